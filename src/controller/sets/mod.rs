//! The reconciliation of `ImageAttachmentSet`: one pass over its repositories each interval, and the children that the pass wants.
//!
//! A pass reads the registry and applies the children. In between, a change of a child triggers a count of the children, which reads
//! nothing from a registry, or a pass, if the child was edited or deleted.

mod children;
pub(super) mod entry;
pub(super) mod memory;
mod observe;
mod pass;
pub(super) mod reconcile;
pub(super) mod watch;
