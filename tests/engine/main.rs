//! Passes of the engine against the scriptable registry, without a cluster: the status between passes, and the requests to the registry.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking"
)]

mod attestations;
mod cost;
mod dry_run;
mod edges;
mod files;
mod histories;
mod kills;
mod lifecycle_statements;
mod limits;
mod listings;
mod marks;
mod moves;
mod refusals;
mod removals;
mod resource;
mod selection;
mod sets;
mod signature_tag;
mod signatures;
