//! One reconciliation of a resource: references, a pass of the engine, status, events, and the delay until the next one.

pub(super) mod audit;
pub(super) mod backoff;
mod delete;
pub(super) mod events;
pub(crate) mod finalizer;
pub(crate) mod object_read;
pub(super) mod object_state;
mod ownership;
pub(super) mod reconciler;
pub(super) mod reconciliation;
pub(super) mod references;
mod status_writer;
