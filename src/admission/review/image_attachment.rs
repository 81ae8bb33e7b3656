//! The verdict on an `ImageAttachment`: by the code with which the controller reads it, so that both say the same.
//!
//! What only the cluster or a registry can tell (a ConfigMap's content, a Secret, an image) refuses nothing: it can still come.

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

/// Most values of a spec; the schema lets through far fewer. What is compared with each other grows faster than its number.
const MOST_VALUES: usize = 20_000;

/// The part of a resource that is judged.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
}

/// Judges a request without asking anybody. `Ok` holds the spec and what it means, where there is anything to be advised on.
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
        .is_leaving()
    {
        return Ok(None);
    }
    let spec = spec_of(object)
        .map_err(|error| refused(format!("the resource cannot be read: {error}")))?;
    // The API server writes both in one way, so the same spec is the same text.
    let before = request.old_object.and_then(|old| spec_of(old).ok());
    if before.is_some_and(|before| before.map(RawValue::get) == spec.map(RawValue::get)) {
        return Ok(None);
    }
    let Some(spec) = spec else {
        return Err(refused("spec: it is missing".to_owned()));
    };
    if most_values(spec.get().as_bytes()) > MOST_VALUES {
        return Err(refused(format!(
            "spec: it has more than {MOST_VALUES} values: make several resources of it"
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

/// What the spec asks for, where it can ever be done here.
pub(crate) fn check(
    spec: &ImageAttachmentSpec,
    registries: &Registries,
) -> Result<Intent, Problem> {
    let intent = Intent::parse(spec, &assumed(spec))?;
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
            // What the webhook itself lacks (authorities to trust) says nothing of the resource.
            _ => return Ok(intent),
        };
        return Err(Problem::new(
            problem.reason,
            format_args!("{field}: {}", problem.message),
        ));
    }
    Ok(intent)
}

/// The ConfigMaps that a spec names, as if they and their keys were there.
fn assumed(spec: &ImageAttachmentSpec) -> Inputs {
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
        // Any key: an empty ConfigMap would be a problem.
        let keys = config_maps
            .entry(from.config_map_ref.name.clone())
            .or_default();
        if keys.is_empty() {
            keys.insert("key".to_owned(), Bytes::new());
        }
    }
    Inputs { config_maps }
}
