//! A registry that is correct until it is told otherwise.
//!
//! [`HostileRegistry`] speaks the OCI distribution protocol on a loopback port and keeps what is pushed to it in memory. As it starts it
//! is a plain, correct registry with the referrers API. A test then bends it:
//!
//! * [`Quirks`] are traits of a *kind* of registry: no referrers API, immutable tags, one entry a page. They stay until they are
//!   changed. [`Quirks::distribution`], [`Quirks::ghcr`] and others bundle them into registries that exist.
//! * A [`Fault`] happens to the requests that a [`Matcher`] picks: a 503 for the second manifest PUT, a body of one byte a second.
//! * A [`Hold`] stops a request, before it has its effect or after it, until the test lets go; a hook runs code of the test there,
//!   such as "somebody else writes the tag now".
//! * [`Auth`] says who may do what; an [`Issuer`] makes the tokens, on the same port or on that of another registry.
//!
//! Everything that arrives is recorded as a [`Request`] with all its headers, also what is refused or reset, so a test can ask what a
//! client sent where: [`HostileRegistry::transcript`] prints it for people.
//!
//! It refuses to be clever: it never fixes a request, never follows a redirect, never calls out. Nothing of affix is used in it, so that
//! the two cannot share a mistake.

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

/// Locks `mutex`, also after a thread panicked with it: a test that failed must not hide what the registry saw.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `text` is of the form that `pattern` describes, where `*` stands for any run of characters.
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
