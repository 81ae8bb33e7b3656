//! The binary against real registries: output, attachments and exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking"
)]

mod attach;
mod attestation;
mod candidates;
mod detach;
mod fixture;
mod image;
mod input;
mod login;
mod pin;
mod proxy;
mod sets;
mod shells;
mod signature;
#[cfg(feature = "otlp")]
mod traces;
mod tree;
