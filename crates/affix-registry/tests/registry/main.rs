//! The client against a hostile registry: every known quirk of registries and every threat, with
//! the kind of error and the text that a user would read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

mod addresses;
mod blobs;
mod example;
mod fallback_answers;
mod fallback_tag;
mod issued_logins;
mod limits;
mod logins;
mod manifests;
mod oci_client;
mod origins;
mod page;
mod patience;
mod proxies;
mod real;
mod referrers;
mod secrets;
mod support;
mod tags;
mod tls;
mod token_services;
mod uploads;
