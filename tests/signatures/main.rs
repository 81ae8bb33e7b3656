//! Verifies signatures with the real cosign and with a program on notation-go, on registries with and without the referrers API.
//!
//! It is a binary of its own, because the verifiers take minutes to build without a cache. The engine runs in this process with
//! the status of the previous pass, as in the controller. The module `cluster` runs the controller in a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "tests fail by panicking"
)]

mod attestation;
mod cluster;
#[path = "../e2e/support/controller.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod controller;
mod cosign;
mod files;
mod judges;
mod keys;
mod lifecycle;
mod matrix;
#[path = "../e2e/support/namespace.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod namespace;
mod notation;
mod release;
mod runner;
mod signature_tag;
mod timestamps;
mod transparency;
