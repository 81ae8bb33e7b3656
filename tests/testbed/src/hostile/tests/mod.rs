//! Every switch of the registry shown to work, by clients that know nothing of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails may panic"
)]

mod authentication;
mod client;
mod faults;
mod holds;
mod protocol;
mod quirks;
mod record;
mod tls;
