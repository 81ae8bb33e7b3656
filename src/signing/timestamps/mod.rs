//! Timestamps of signatures (RFC 3161), for formats whose signatures otherwise end with their certificates.
//!
//! A [`TimestampAuthority`] has the address of an authority and the certificates that its tokens are verified with. A [`Timestamper`] has
//! signatures timestamped by it. Every token is verified before it is used (threat T31).
//!
//! See `docs/decisions/0146-verify-timestamps-with-cms-and-webpki.md`.

mod authority;
mod request;
mod token;

pub use authority::{TimestampAuthority, Timestamper};
pub(super) use request::{Hash, request};
