//! Signature formats and keys of cosign and notation: bytes and times in, bytes out. A key can be one that a service holds.
//!
//! A [`Signer`] makes signatures for the engine and recognises equal ones. [`named_subjects`] reads the subjects of signature
//! files that other tools made. Keys and certificates that verifiers refuse are a [`KeyError`] with the way out. Only
//! `kms` has I/O and a clock, and only the cryptographic library uses randomness. Secrets are wiped when dropped and have no `Debug`.
//!
//! - `formats`: one signer per signature format;
//! - `keys`: key files, key pairs and certificates;
//! - `kms`: keys that a key management service holds;
//! - `inspection`: the subjects of signature files.

mod error;
mod formats;
mod inspection;
mod keys;
mod kms;
mod signer;
mod sigstore;
mod time;
mod timestamps;
#[cfg(test)]
mod vectors;

pub use error::{CertificateProblem, KeyError};
pub use formats::{
    CosignSigner, KeylessSigner, MAX_PREDICATE_BYTES, MAX_STATEMENT_BYTES, NotationSigner,
    Predicate, PredicateError, SignedStatement, UnsignedStatement,
};
pub use inspection::{MAX_INSPECTED_BYTES, NamedSubjects, named_subjects};
pub use keys::PublicKey;
pub use kms::{KmsIdentity, KmsKeys, KmsRequest, SigningError, VaultKey};
pub use signer::{Shape, Signature, Signed, Signer, TagSignature, TagSigner};
pub use sigstore::{InstanceError, KeylessIdentity, Publisher, SigstoreInstance};
pub use timestamps::{TimestampAuthority, Timestamper};
