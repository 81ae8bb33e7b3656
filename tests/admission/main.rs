//! The webhooks against a real API server with the shipped webhook configurations (`config/webhook/`)
//! and real registries.
//!
//! Every test has its own namespace, configurations and webhook on a shared control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking"
)]

mod callers;
mod certificates;
mod connections;
#[allow(dead_code, reason = "the corpus has more than each user needs")]
#[path = "../schema/corpus.rs"]
mod corpus;
mod fail_open;
mod fairness;
mod floods;
mod hostile;
mod image_attachment_sets;
mod image_attachments;
mod lifecycle_trust;
mod outage;
mod pods;
mod readiness;
mod sidecars;
mod support;
mod unchecked;
mod workloads;
