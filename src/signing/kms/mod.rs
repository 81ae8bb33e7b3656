//! Keys that a key management service holds.
//!
//! A [`KmsKeys`] opens them. It caches logins until shortly before their end and public keys by their version, and concurrent passes
//! share one request. The private key never leaves the service: a pass sends the messages of all its targets in as few requests as
//! the service allows. Every signature is verified with the public key before it is used (threat T31).
//!
//! See `docs/decisions/0142-sign-with-a-kms-by-its-http-api.md`.

mod cache;
mod error;
mod keys;
mod vault;
mod vault_answers;

pub use error::SigningError;
pub use keys::{KmsIdentity, KmsKeys, KmsRequest};
pub use vault::VaultKey;
