//! The webhooks against a real API server, by the webhook configurations that ship (`config/webhook/`), with real registries.
//!
//! Every test has a namespace, configurations and a webhook of its own on one shared control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking"
)]

mod certificates;
mod connections;
#[allow(dead_code, reason = "the corpus has more than each user needs")]
#[path = "../schema/corpus.rs"]
mod corpus;
mod direct;
mod floods;
mod hostile;
mod image_attachments;
mod place;
mod pods;
mod readiness;
mod webhook;
mod workloads;
