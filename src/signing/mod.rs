//! Signatures: the shapes and key formats of cosign and notation, pure: bytes and times in, bytes out.
//!
//! Owns what a signature file names ([`named_subjects`]), and the [`Signer`]s that the engine makes signatures with and knows
//! them again by. It refuses keys and certificates whose signatures no verifier would take, with a [`KeyError`] that names the
//! way out. It knows no I/O and no clock; randomness enters only where the cryptographic library signs. Secrets are wiped when
//! dropped and have no `Debug`.

mod cbor;
mod certificate;
mod certificate_chain;
mod cosign;
mod cosign_key;
mod dsse;
mod error;
mod inspect;
mod notation;
mod notation_key;
mod pem;
mod private_key;
mod signer;
#[cfg(test)]
mod vectors;

pub use cosign::CosignSigner;
pub use error::{CertificateProblem, KeyError};
pub use inspect::{LARGEST, Named, named_subjects};
pub use notation::NotationSigner;
pub use signer::{Shape, Signature, Signer};
