//! Services of a Sigstore instance: a certificate authority, transparency logs and timestamp authorities.
//!
//! A [`SigstoreInstance`] is the description of an instance, as a ConfigMap has it. A [`Publisher`] has signatures logged and
//! timestamped, and a [`KeylessIdentity`] gets certificates for keys that live for one pass. Everything that a service answers is verified
//! with the trusted root before it is used (threat T31).
//!
//! See `docs/decisions/0145-verify-sigstore-bundles-with-the-crates-of-sigstore.md`.

mod certificates;
mod evidence;
mod instance;
mod publisher;
mod requests;

pub(super) use certificates::Certificates;
pub use certificates::KeylessIdentity;
pub(super) use evidence::Evidence;
pub use instance::{InstanceError, SigstoreInstance};
pub(super) use publisher::PublishError;
pub use publisher::Publisher;
pub(super) use requests::LoggedKey;
