//! Signatures, judged by those who made the formats: the real cosign and a program on notation-go, on both kinds of registry.
//!
//! A binary of its own, since the verifiers take minutes to build where no cache has them. The engine runs in this process, with
//! the status that it wrote before, as the controller runs it; one module goes through a whole cluster.

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

mod cluster;
#[path = "../e2e/support/controller.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod controller;
mod cosign;
mod desk;
mod files;
mod keys;
#[path = "../e2e/support/namespace.rs"]
#[allow(dead_code, reason = "the end-to-end tests use the rest")]
mod namespace;
mod notation;
mod release;
