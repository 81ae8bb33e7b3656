//! Tests of the installation: the chart and the kustomize bases on a real control plane. The operator runs with the arguments, the
//! environment and the permissions of its Deployment.
//!
//! All modules are one binary, so that they are linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking"
)]

mod access;
mod apply;
mod chart;
mod conformity;
mod definition;
mod distribution;
mod docs;
mod foreign;
mod generated;
mod image;
mod kustomize;
mod support;
mod upgrade;
mod webhook;
