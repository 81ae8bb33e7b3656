//! Watches, the cache that they fill, and the CRD compatibility check.

pub(super) mod cache;
pub(super) mod crd_check;
pub(super) mod packed;
pub(super) mod repository_index;
pub(super) mod resource_watch;
pub(super) mod secret_watch;
