//! The verdict on an `ImageAttachment`. It uses the parser of the controller, so both give the same
//! answer.
//!
//! A missing ConfigMap, Secret or image is no reason for a refusal: it may be created later.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::{Refusal, Verdict};
use crate::admission::review::warning_text::{MAX_WARNING_CHARS, truncate};
use crate::api::{ImageAttachmentSpec, Reason};
use crate::attachment::{Inputs, Intent, Problem};
use crate::engine::{Failure, Names, parse_predicates};
use affix_registry::oci::value_bound;
use affix_registry::{Access, Registries};

/// Maximum number of JSON values in a spec. The schema allows far fewer. Some comparisons take
/// quadratic time.
const MAX_VALUES: usize = 20_000;

/// The reviewed part of a resource.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
}

/// Reviews a request without I/O. The error is a final verdict: a refusal, or a warning about a
/// problem that the update does not change. Returns the spec and its parsed form, or `None` if nothing has to be
/// checked.
pub(crate) fn judge(
    request: &Request<'_>,
    registries: &Registries,
) -> Result<Option<(ImageAttachmentSpec, Intent)>, Verdict> {
    review(request, |spec| parse(spec, registries))
}

/// Reviews a request whose spec `parse` parses and checks. The error of `parse` is the text for the user.
pub(crate) fn review<T>(
    request: &Request<'_>,
    parse: impl Fn(&RawValue) -> Result<T, String>,
) -> Result<Option<T>, Verdict> {
    let Some(object) = request.object.filter(|_| request.writes()) else {
        return Ok(None);
    };
    let refused = |message: String| Verdict::refused(Refusal::invalid(message));
    if Metadata::of(object)
        .map_err(|error| refused(format!("metadata: {error}")))?
        .is_being_deleted()
    {
        return Ok(None);
    }
    let spec =
        spec_of(object).map_err(|error| refused(format!("cannot parse the resource: {error}")))?;
    // The API server serializes both in the same way, so an equal spec has equal text.
    let old = request.old_object.and_then(|old| spec_of(old).ok());
    if old.is_some_and(|old| old.map(RawValue::get) == spec.map(RawValue::get)) {
        return Ok(None);
    }
    let Some(spec) = spec else {
        return Err(refused("spec: required".to_owned()));
    };
    if value_bound(spec.get().as_bytes()) > MAX_VALUES {
        return Err(refused(format!(
            "spec: more than {MAX_VALUES} values: split it into several resources"
        )));
    }
    match parse(spec) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(problem)
            if old
                .flatten()
                .is_some_and(|old| is_unchanged(&problem, old, spec, &parse)) =>
        {
            let warning = format!("admitted, but still invalid: {problem}");
            Err(Verdict {
                warnings: vec![truncate(&warning, MAX_WARNING_CHARS)],
                ..Verdict::default()
            })
        }
        Err(problem) => Err(refused(problem)),
    }
}

/// Parses and checks a spec. The error is the text for the user.
fn parse(
    spec: &RawValue,
    registries: &Registries,
) -> Result<(ImageAttachmentSpec, Intent), String> {
    let spec: ImageAttachmentSpec =
        serde_json::from_str(spec.get()).map_err(|error| format!("spec: {error}"))?;
    let intent = check(&spec, registries).map_err(|problem| problem.message)?;
    Ok((spec, intent))
}

/// Returns whether the old spec has the same problem in a field that the update does not change.
/// Such a problem, for example after `--allowed-registries` was tightened, must not block an update
/// of other fields.
fn is_unchanged<T>(
    problem: &str,
    old: &RawValue,
    new: &RawValue,
    parse: impl Fn(&RawValue) -> Result<T, String>,
) -> bool {
    let field = problem
        .strip_prefix("spec.")
        .and_then(|path| path.split(|c: char| !c.is_ascii_alphanumeric()).next());
    let is_same_field = field.is_none_or(|name| field_text(old, name) == field_text(new, name));
    is_same_field && parse(old).err().is_some_and(|before| before == problem)
}

/// Returns the text of a field of the spec.
fn field_text<'a>(spec: &'a RawValue, name: &str) -> Option<&'a str> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(spec.get()).ok()?;
    fields.get(name).map(|value| value.get())
}

fn spec_of(object: &RawValue) -> serde_json::Result<Option<&RawValue>> {
    serde_json::from_str::<Object<'_>>(object.get()).map(|object| object.spec)
}

/// Parses the spec and checks it against the registry options.
pub(crate) fn check(
    spec: &ImageAttachmentSpec,
    registries: &Registries,
) -> Result<Intent, Problem> {
    let intent = Intent::parse(spec, &assumed_inputs(spec))?;
    parse_predicates(&intent.desired)?;
    let access = Access {
        insecure: spec.insecure(),
        ..Access::default()
    };
    let reference = &intent.reference;
    if let Err(error) = registries.open(&reference.host, &reference.repository, access) {
        let problem = Failure::from(error).problem;
        let field = match problem.reason {
            Reason::HostNotAllowed => "spec.image",
            Reason::InsecureNotAllowed => "spec.insecure",
            // A problem of the webhook itself, for example missing CA certificates, is not a problem
            // of the resource.
            _ => return Ok(intent),
        };
        return Err(Problem::new(
            problem.reason,
            format_args!("{field}: {}", problem.message),
        ));
    }
    Ok(intent)
}

/// The content of a referenced key, which every use of it allows.
const ASSUMED: Bytes = Bytes::from_static(b"{}");

/// Returns the ConfigMaps that a spec references, with all referenced keys present.
fn assumed_inputs(spec: &ImageAttachmentSpec) -> Inputs {
    let mut config_maps: BTreeMap<String, BTreeMap<String, Bytes>> = BTreeMap::new();
    for name in Names::of(spec).config_maps {
        config_maps.insert(name, BTreeMap::new());
    }
    let files = spec.artifact.iter().flat_map(|of| &of.files);
    let predicates = spec.attestation.iter().flat_map(|of| &of.predicates);
    let sources = files.map(|file| &file.value_from);
    for from in sources.chain(predicates.map(|of| &of.value_from)).flatten() {
        let key = &from.config_map_key_ref;
        config_maps
            .entry(key.name.clone())
            .or_default()
            .insert(key.key.clone(), ASSUMED);
    }
    let files = spec.artifact.iter().flat_map(|of| &of.files_from);
    let predicates = spec.attestation.iter().flat_map(|of| &of.predicates_from);
    let files = files.map(|from| &from.config_map_ref);
    for from in files.chain(predicates.map(|from| &from.config_map_ref)) {
        // One key, because an empty ConfigMap is invalid.
        let keys = config_maps.entry(from.name.clone()).or_default();
        if keys.is_empty() {
            keys.insert("key".to_owned(), ASSUMED);
        }
    }
    Inputs { config_maps }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::review::request;
    use serde_json::{Value, json};

    /// Reviews an update with a webhook that allows only registry.example.com.
    fn update(old: &Value, new: &Value) -> Result<bool, Verdict> {
        let object = |spec: &Value| json!({"metadata": {}, "spec": spec});
        let review = json!({"request": {
            "uid": "u", "kind": {"kind": "ImageAttachment"}, "operation": "UPDATE",
            "oldObject": object(old), "object": object(new)
        }})
        .to_string();
        let registries = Registries::new(affix_registry::Options {
            allowed_registries: vec!["registry.example.com".parse().unwrap()],
            ..affix_registry::Options::default()
        });
        judge(&request::parse(review.as_bytes()).unwrap(), &registries)
            .map(|parsed| parsed.is_some())
    }

    fn with(spec: &Value, field: &str, value: Value) -> Value {
        let mut spec = spec.clone();
        spec.as_object_mut()
            .unwrap()
            .insert(field.to_owned(), value);
        spec
    }

    #[test]
    fn an_update_is_refused_only_for_a_problem_in_a_changed_field() {
        let artifact =
            |artifact_type: &str| json!({"artifactType": artifact_type, "annotations": {"a": "b"}});
        let old = json!({"image": "other.example.com/app:v1", "artifact": artifact("a/b")});
        for (field, value) in [
            ("suspend", json!(true)),
            ("deletionPolicy", json!("Retain")),
            ("artifact", artifact("a/c")),
        ] {
            let verdict = update(&old, &with(&old, field, value)).unwrap_err();
            assert_eq!(verdict.refusal, None, "{field}");
            assert!(
                verdict.warnings.first().is_some_and(
                    |text| text.starts_with("admitted, but still invalid: spec.image: ")
                ),
                "{verdict:?}"
            );
        }
        let moved = with(&old, "image", json!("other.example.com/app:v2"));
        assert!(update(&old, &moved).unwrap_err().refusal.is_some());
        let good = with(&old, "image", json!("registry.example.com/app:v1"));
        assert_eq!(update(&old, &good), Ok(true));
        assert!(update(&good, &old).unwrap_err().refusal.is_some());
        let broken = with(&old, "artifact", artifact("malformed"));
        assert!(update(&old, &broken).unwrap_err().refusal.is_some());
        assert_eq!(update(&old, &old), Ok(false));
    }
}
