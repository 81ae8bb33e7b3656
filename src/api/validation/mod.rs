//! Validation of documents without an API server.
//!
//! The schema of the CRD is the only source: its structure is walked here, and its rules are those of [`rules`]. In one way the command line is
//! stricter than the API server: an unknown field of the spec is an error, because in a file it is a typing error. The API server prunes it.

mod structure;

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use super::crd::crd;
use super::rules;
use structure::{UnknownFields, check, excerpt};

/// The schema of an ImageAttachment.
static ROOT: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
    crd()
        .spec
        .versions
        .into_iter()
        .find_map(|version| version.schema?.open_api_v3_schema)
        .unwrap_or_default()
});

/// The state of the image of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// The image is final, so all rules apply.
    Final,
    /// A tag will get its digest, so rules that only require a digest do not apply.
    Later,
}

/// Returns the errors of a spec, one sentence each. Each begins with the field.
#[must_use]
pub fn check_spec(spec: &Value, pinned: Pinned) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(schema) = property("spec") {
        check("spec", spec, schema, UnknownFields::Refused, &mut errors);
    }
    let violations = rules::check(spec)
        .into_iter()
        .filter(|violation| pinned == Pinned::Final || !violation.needs_digest);
    for violation in violations {
        let shown = match violation.value {
            Value::String(_) => format!("{}: ", excerpt(violation.value)),
            _ => String::new(),
        };
        errors.push(format!("{}: {shown}{}", violation.field, violation.message));
    }
    errors
}

/// Returns the errors of a status, one sentence each. Each begins with the field. Unknown fields are those of a newer version.
#[must_use]
pub fn check_status(status: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(schema) = property("status") {
        check(
            "status",
            status,
            schema,
            UnknownFields::Ignored,
            &mut errors,
        );
    }
    errors
}

fn property(name: &str) -> Option<&'static JSONSchemaProps> {
    ROOT.properties.as_ref()?.get(name)
}
