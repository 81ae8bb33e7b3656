//! Watches of resources, Secrets and ConfigMaps, the cache of resources, and the CRD compatibility check.

pub(super) mod cache;
pub(super) mod child;
pub(super) mod claimant;
pub(super) mod crd_check;
pub(super) mod quota;
pub(super) mod repository_index;
pub(super) mod request;
pub(super) mod resource_name;
pub(super) mod resource_watch;
pub(super) mod secret_watch;
pub(super) mod summary;
pub(super) mod triggers;
