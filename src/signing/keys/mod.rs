//! Private and public keys, their files in a Secret, and the certificates that belong to them.

mod certificate;
mod certificate_chain;
mod cosign_key;
mod encrypted_key;
mod notation_key;
pub(super) mod pem;
mod private_key;
mod public_key;
mod remote_key;
mod signing_key;

pub(super) use certificate::is_signed_with;
pub(super) use certificate_chain::{CertificateChain, certificates_of};
pub(super) use cosign_key::CosignKey;
pub(super) use notation_key::NotationKey;
pub use public_key::PublicKey;
#[cfg(test)]
pub(super) use remote_key::Hash;
pub(super) use remote_key::{RemoteKey, Scheme};
