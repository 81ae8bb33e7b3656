//! The changes that trigger a reconcile, and the priority of that reconcile.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use crate::api::ACCEPT_LEFTOVERS;
use crate::controller::reconcile::finalizer::has_finalizer;
use crate::controller::reconcile::object_state::ObjectStates;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::request::REQUESTED_AT;
use crate::controller::watch::secret_watch::{ChangedSource, SourceKind};
use crate::controller::workqueue::flow::Flow;
use affix_registry::Priority;

/// The least time for which a deletion waits in the queue, even after the deletion timeout: the controller may have been down.
const MIN_DELETION_WAIT: Duration = Duration::from_secs(30);

/// Returns the flow of a resource in the work queue. `has_changed`: the resource, or an object that it references, has changed.
pub(crate) fn flow(entry: &CacheEntry, has_changed: bool) -> Flow {
    let meta = entry.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let Some(summary) = entry.summary() else {
        return Flow::unlimited(namespace);
    };
    let is_deleted = meta.deletion_timestamp.is_some();
    if is_deleted && !(summary.needs_cleanup && has_finalizer(meta)) {
        return Flow::unlimited(namespace);
    }
    let priority = if is_deleted || has_changed || summary.is_pending {
        Priority::Interactive
    } else {
        Priority::Background
    };
    Flow::to_host(priority, namespace, &summary.host).for_size(summary.size)
}

/// Returns the longest time for which a resource that is being deleted waits in the queue.
pub(crate) fn longest_wait(entry: &CacheEntry, deletion_timeout: Duration) -> Option<Duration> {
    let remaining = remaining_deletion(entry.meta(), deletion_timeout)?;
    Some(remaining.max(MIN_DELETION_WAIT))
}

/// Returns the rest of the time in which a resource that is being deleted waits for the registry.
pub(crate) fn remaining_deletion(meta: &ObjectMeta, timeout: Duration) -> Option<Duration> {
    let since = meta.deletion_timestamp.as_ref()?;
    let elapsed = Timestamp::now().duration_since(since.0);
    Some(timeout.saturating_sub(Duration::try_from(elapsed).unwrap_or_default()))
}

/// Returns whether a resource uses the changed object. The pull secrets of its service account are known from its last pass.
pub(crate) fn uses(states: &ObjectStates, entry: &CacheEntry, changed: &ChangedSource) -> bool {
    let Some(summary) = entry.summary() else {
        return false;
    };
    let uid = entry.meta().uid.as_deref().unwrap_or_default();
    entry.meta().namespace.as_deref() == Some(changed.namespace.as_str())
        && (summary.may_reference(changed.kind, &changed.name)
            || (changed.kind == SourceKind::Secret
                && summary.has_service_account()
                && states.is_pull_secret(uid, &changed.name)))
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
