//! affix as it is installed: the chart and the kustomize base, on a real control plane, and the real operator run with exactly the
//! arguments, the environment and the rights that they give it.
//!
//! One binary with a module a noun, so that it is linked once.

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
mod foreign;
mod generated;
mod image;
mod kustomize;
mod support;
mod upgrade;
mod webhook;
