//! The real binary against real registries: what it prints, what it writes, how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod attach;
mod desk;
mod detach;
mod input;
mod pin;
mod signature;
#[cfg(feature = "otlp")]
mod traces;
mod tree;
