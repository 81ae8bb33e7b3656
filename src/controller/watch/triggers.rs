//! The changes that trigger a reconcile, and the priority of that reconcile.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::{Resource as _, ResourceExt as _};

use crate::api::{ACCEPT_LEFTOVERS, ImageAttachment, ImageAttachmentStatus};
use crate::controller::reconcile::object_state::ObjectStates;
use crate::controller::watch::cache::{CacheEntry, REQUESTED_AT, Summary};
use crate::controller::watch::secret_watch::{ChangedSource, SourceKind};
use crate::controller::workqueue::queue::Flow;
use crate::engine::Names;
use affix_registry::Priority;
use affix_registry::oci::Digest;

/// The most characters of a request that status can echo.
const MAX_REQUEST_CHARS: usize = 256;

/// Returns the flow of a resource in the work queue. `has_changed`: the resource, or an object that it references, has changed.
pub(crate) fn flow(entry: &CacheEntry, has_changed: bool) -> Flow {
    match entry.object() {
        Ok(object) if object.metadata.deletion_timestamp.is_none() => {
            let priority = if has_changed || has_pending_change(&object) {
                Priority::Interactive
            } else {
                Priority::Background
            };
            Flow::to_host(priority, registry_host(&object.spec.image))
        }
        _ => Flow::unlimited(),
    }
}

/// Returns whether the last reconcile has not seen the current spec or request.
pub(crate) fn has_pending_change(object: &ImageAttachment) -> bool {
    let status = object.status.as_ref();
    status.map(|status| status.observed_generation) != object.metadata.generation
        || status.is_some_and(|status| has_pending_request(object, status))
}

/// Returns whether the user has requested a reconcile that `status` does not acknowledge.
pub(crate) fn has_pending_request(
    object: &ImageAttachment,
    status: &ImageAttachmentStatus,
) -> bool {
    let request = acknowledgement(object);
    request.is_some() && request != status.last_handled_reconcile_at
}

/// Returns the text with which status acknowledges the current request: the request itself, or, if status cannot hold it, its
/// beginning and its digest.
pub(crate) fn acknowledgement(object: &ImageAttachment) -> Option<String> {
    let request = object.annotations().get(REQUESTED_AT)?;
    if request.chars().count() <= MAX_REQUEST_CHARS {
        return Some(request.clone());
    }
    let digest = format!("…{}", Digest::sha256(request.as_bytes()));
    let beginning = request
        .chars()
        .take(MAX_REQUEST_CHARS - digest.chars().count());
    Some(beginning.chain(digest.chars()).collect())
}

/// Returns the registry's part of an image. It works for invalid references too.
pub(crate) fn registry_host(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}

/// Returns whether a resource uses the changed object. The pull secrets of its service account are known from its last pass.
pub(crate) fn uses(states: &ObjectStates, entry: &CacheEntry, changed: &ChangedSource) -> bool {
    if !entry.summary().is_some_and(Summary::has_references)
        || entry.meta().namespace.as_deref() != Some(changed.namespace.as_str())
    {
        return false;
    }
    let Ok(object) = entry.object() else {
        return false;
    };
    let names = Names::of(&object.spec);
    match changed.kind {
        SourceKind::ConfigMap => names.config_maps.contains(&changed.name),
        SourceKind::Secret => {
            names.secrets.contains(&changed.name)
                || states.is_pull_secret(&object.uid().unwrap_or_default(), &changed.name)
        }
    }
}

/// Returns a hash of the metadata whose change triggers a reconcile: generation, request, accepted leftovers, deletion and finalizers.
pub(crate) fn trigger_hash(entry: &CacheEntry) -> u64 {
    let meta = entry.meta();
    let mut hasher = DefaultHasher::new();
    meta.generation.hash(&mut hasher);
    for annotation in [REQUESTED_AT, ACCEPT_LEFTOVERS] {
        entry.annotations().get(annotation).hash(&mut hasher);
    }
    meta.finalizers.hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    hasher.finish()
}
