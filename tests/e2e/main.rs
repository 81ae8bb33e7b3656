//! affix end to end: the real operator on a real control plane, real registries beside it, and other people's tools to look.
//!
//! One binary with a module a noun, so that it is linked once. Every test has a namespace and an operator of its own on one shared
//! control plane, and at its end every resource that it leaves there is held against the rules of status.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking"
)]

mod access;
mod alerts;
mod attaching;
mod attestations;
mod breakage;
mod budget;
mod canary;
mod command;
mod crowd;
mod deletion;
mod fairness;
mod gitops;
mod identity;
mod keyless;
mod kms;
mod logs;
mod marks;
mod memory;
mod metrics;
mod once;
mod operator;
mod panics;
mod partial;
mod platforms;
mod questions;
mod races;
mod recovery;
mod repair;
mod replicas;
mod report;
mod reports;
mod restart;
mod rotation;
mod sets;
mod soak;
mod spec;
mod status_command;
mod superseded;
mod support;
mod tenants;
mod threats;
