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
use crate::api::{ImageAttachmentSpec, Reason};
use crate::attachment::{Inputs, Intent, Problem};
use crate::engine::{Failure, Names};
use affix_registry::oci::most_values;
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

/// Reviews a request without I/O. Returns the spec and its parsed form, or `None` if nothing has to be
/// checked.
pub(crate) fn judge(
    request: &Request<'_>,
    registries: &Registries,
) -> Result<Option<(ImageAttachmentSpec, Intent)>, Verdict> {
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
    let before = request.old_object.and_then(|old| spec_of(old).ok());
    if before.is_some_and(|before| before.map(RawValue::get) == spec.map(RawValue::get)) {
        return Ok(None);
    }
    let Some(spec) = spec else {
        return Err(refused("spec: required".to_owned()));
    };
    if most_values(spec.get().as_bytes()) > MAX_VALUES {
        return Err(refused(format!(
            "spec: more than {MAX_VALUES} values: split it into several resources"
        )));
    }
    let spec: ImageAttachmentSpec =
        serde_json::from_str(spec.get()).map_err(|error| refused(format!("spec: {error}")))?;
    let intent = check(&spec, registries).map_err(|problem| refused(problem.message))?;
    Ok(Some((spec, intent)))
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

/// Returns the ConfigMaps that a spec references, with all referenced keys present.
fn assumed_inputs(spec: &ImageAttachmentSpec) -> Inputs {
    let mut config_maps: BTreeMap<String, BTreeMap<String, Bytes>> = BTreeMap::new();
    for name in Names::of(spec).config_maps {
        config_maps.insert(name, BTreeMap::new());
    }
    for file in spec.artifact.iter().flat_map(|artifact| &artifact.files) {
        if let Some(from) = &file.value_from {
            let key = &from.config_map_key_ref;
            config_maps
                .entry(key.name.clone())
                .or_default()
                .insert(key.key.clone(), Bytes::new());
        }
    }
    for from in spec
        .artifact
        .iter()
        .flat_map(|artifact| &artifact.files_from)
    {
        // One key, because an empty ConfigMap is invalid.
        let keys = config_maps
            .entry(from.config_map_ref.name.clone())
            .or_default();
        if keys.is_empty() {
            keys.insert("key".to_owned(), Bytes::new());
        }
    }
    Inputs { config_maps }
}
