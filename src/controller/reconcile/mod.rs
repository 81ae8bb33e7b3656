//! One reconciliation of a resource.

pub(super) mod backoff;
pub(super) mod delete;
pub(super) mod events;
pub(super) mod finalizer;
pub(super) mod object_state;
pub(super) mod ownership;
pub(super) mod reconciler;
pub(super) mod references;
pub(super) mod status_writer;
