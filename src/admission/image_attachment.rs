//! The verdict on an `ImageAttachment`: by the code with which the controller reads it, so that both say the same.
//!
//! What only the cluster or a registry can tell (a ConfigMap's content, a Secret, an image) refuses nothing: it can still come.

use std::collections::BTreeMap;

use bytes::Bytes;
use kube::core::admission::Operation;
use serde::Deserialize as _;

use super::review::{Refusal, Request, Verdict};
use crate::api::{ImageAttachmentSpec, Reason};
use crate::attachment::{Inputs, Intent, Problem};
use crate::engine::{Failure, Names};
use crate::registry::{Access, Registries};

/// Judges a request without asking anybody. `Ok` holds the spec and what it means, where there is anything to be advised on.
pub(super) fn judge(request: &Request, registries: &Registries) -> Result<Option<(ImageAttachmentSpec, Intent)>, Verdict> {
    let Some(object) = &request.object else { return Ok(None) };
    let is_leaving = object.metadata.deletion_timestamp.is_some();
    let spec = object.data.get("spec");
    let is_same = request.old_object.as_ref().is_some_and(|old| old.data.get("spec") == spec);
    if !matches!(request.operation, Operation::Create | Operation::Update) || is_leaving || is_same {
        return Ok(None);
    }
    let Some(spec) = spec else { return Err(Verdict::refused(Refusal::invalid("spec: it is missing"))) };
    let spec = ImageAttachmentSpec::deserialize(spec).map_err(|error| Verdict::refused(Refusal::invalid(format!("spec: {error}"))))?;
    let intent = check(&spec, registries).map_err(|problem| Verdict::refused(Refusal::invalid(problem.message)))?;
    Ok(Some((spec, intent)))
}

/// What the spec asks for, where it can ever be done here.
pub(super) fn check(spec: &ImageAttachmentSpec, registries: &Registries) -> Result<Intent, Problem> {
    let intent = Intent::parse(spec, &assumed(spec))?;
    let access = Access { insecure: spec.insecure(), ..Access::default() };
    let reference = &intent.reference;
    if let Err(error) = registries.open(&reference.host, &reference.repository, access) {
        let problem = Failure::from(error).problem;
        let field = match problem.reason {
            Reason::HostNotAllowed => "spec.image",
            Reason::InsecureNotAllowed => "spec.insecure",
            // What the webhook itself lacks (authorities to trust) says nothing of the resource.
            _ => return Ok(intent),
        };
        return Err(Problem::new(problem.reason, format_args!("{field}: {}", problem.message)));
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
            config_maps.entry(key.name.clone()).or_default().insert(key.key.clone(), Bytes::new());
        }
    }
    for from in spec.artifact.iter().flat_map(|artifact| &artifact.files_from) {
        // Any key: an empty ConfigMap would be a problem.
        let keys = config_maps.entry(from.config_map_ref.name.clone()).or_default();
        if keys.is_empty() {
            keys.insert("key".to_owned(), Bytes::new());
        }
    }
    Inputs { config_maps }
}
