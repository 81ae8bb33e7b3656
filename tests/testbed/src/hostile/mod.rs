//! A scriptable registry for tests. It is correct until a test changes it. `README.md` in this
//! folder shows how to use it.
//!
//! [`HostileRegistry`] speaks the OCI distribution protocol on a loopback port and keeps its
//! content in memory. It starts as a correct registry with the referrers API. A test then changes
//! it:
//!
//! * [`Quirks`] are traits of a *kind* of registry: no referrers API, immutable tags, one entry per
//!   page. They stay until they are changed. [`Quirks::distribution`], [`Quirks::ghcr`] and others
//!   describe existing registries.
//! * A [`Fault`] applies to the requests that a [`Matcher`] selects: a 503 for the second manifest
//!   PUT, a body of one byte per second.
//! * A [`Hold`] stops a request, before or after its effect, until the test releases it. A hook
//!   runs code of the test there, for example a concurrent write of the tag.
//! * [`Auth`] is the authorization of requests. An [`Issuer`] issues tokens, on the same port or on
//!   that of another registry.
//!
//! Every request is recorded as a [`Request`] with all its headers, including those that were
//! refused or reset. [`HostileRegistry::transcript`] prints them.
//!
//! The registry never corrects a request, never follows a redirect and never opens a connection. It
//! shares no code with affix, so the two cannot share a defect.

mod answer;
mod auth;
mod blobs;
mod body;
mod bomb;
mod connection;
mod digest;
mod fault;
mod image;
mod issuer;
mod manifests;
mod matcher;
mod op;
mod query;
mod quirk;
mod record;
mod referrers;
mod reply;
mod rules;
mod server;
mod service;
mod store;
mod tags;
mod tls;

pub use auth::{Auth, Bearer, Challenge, Denial};
pub use connection::Arrival;
pub use digest::{Algorithm, digest, fallback_tag};
pub use fault::{Cut, Fault, Stage};
pub use image::{Child, Image, ImageBuilder};
pub use issuer::{Account, Action, Exchange, Issuer, Terms, TokenForm};
pub use matcher::Matcher;
pub use op::Op;
pub use quirk::{
    Deletion, EntryType, Filtering, ImmutableTags, Lag, LinkForm, Location, OciSubject, Paging,
    Quirks, Referrers, Refusal, Unsupported,
};
pub use record::{Outcome, Request};
pub use reply::{Reply, RetryAfter};
pub use rules::{Hold, Rule};
pub use server::{Builder, HostileRegistry};
pub use store::{Manifest, Store};
pub use tls::{Authority, Certificate};

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also after a thread panicked with it, so that a failed test can still print the
/// requests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns true if `text` matches `pattern`, in which `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(head) else {
        return false;
    };
    (0..=text.len())
        .filter_map(|at| text.get(at..))
        .any(|tail| glob(rest, tail))
}
