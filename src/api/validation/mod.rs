//! Validation of documents without an API server.
//!
//! The schema of the CRD is the only source: its structure is walked here, and its rules are those of [`rules`]. In one way the command line is
//! stricter than the API server: an unknown field of the spec is an error, because in a file it is a typing error. The API server prunes it.

mod structure;

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use serde_json::Value;

use super::crd::{crd, set_crd};
use super::rules::{self, Violation};
use structure::{UnknownFields, check, excerpt};

/// The schema of an ImageAttachment.
static ATTACHMENT: LazyLock<JSONSchemaProps> = LazyLock::new(|| root(crd()));

/// The schema of an ImageAttachmentSet.
static SET: LazyLock<JSONSchemaProps> = LazyLock::new(|| root(set_crd()));

fn root(crd: CustomResourceDefinition) -> JSONSchemaProps {
    crd.spec
        .versions
        .into_iter()
        .find_map(|version| version.schema?.open_api_v3_schema)
        .unwrap_or_default()
}

/// The state of the image of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// The image is final, so all rules apply.
    Final,
    /// A tag will get its digest, so rules that only require a digest do not apply.
    Later,
}

/// Returns the errors of the spec of an ImageAttachment, one sentence each. Each begins with the field.
#[must_use]
pub fn check_spec(spec: &Value, pinned: Pinned) -> Vec<String> {
    let violations = rules::check(spec)
        .into_iter()
        .filter(|violation| pinned == Pinned::Final || !violation.needs_digest);
    errors_of_spec(&ATTACHMENT, spec, violations)
}

/// Returns the errors of the spec of an ImageAttachmentSet, one sentence each. Each begins with the field.
#[must_use]
pub fn check_set_spec(spec: &Value) -> Vec<String> {
    errors_of_spec(&SET, spec, rules::check_set(spec).into_iter())
}

fn errors_of_spec<'a>(
    root: &JSONSchemaProps,
    spec: &'a Value,
    violations: impl Iterator<Item = Violation<'a>>,
) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(schema) = property(root, "spec") {
        check("spec", spec, schema, UnknownFields::Refused, &mut errors);
    }
    for violation in violations {
        let shown = match violation.value {
            Value::String(_) => format!("{}: ", excerpt(violation.value)),
            _ => String::new(),
        };
        errors.push(format!("{}: {shown}{}", violation.field, violation.message));
    }
    errors
}

/// Returns the errors of the status of an ImageAttachment, one sentence each. Each begins with the field. Unknown fields are those of a
/// newer version.
#[must_use]
pub fn check_status(status: &Value) -> Vec<String> {
    errors_of_status(&ATTACHMENT, status)
}

/// Returns the errors of the status of an ImageAttachmentSet, as [`check_status`] does.
#[must_use]
pub fn check_set_status(status: &Value) -> Vec<String> {
    errors_of_status(&SET, status)
}

fn errors_of_status(root: &JSONSchemaProps, status: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(schema) = property(root, "status") {
        let unknown = UnknownFields::Ignored;
        check("status", status, schema, unknown, &mut errors);
    }
    errors
}

fn property<'a>(root: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    root.properties.as_ref()?.get(name)
}
