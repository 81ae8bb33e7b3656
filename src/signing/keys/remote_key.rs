//! A key that a service holds.

use futures::future::BoxFuture;

use crate::signing::kms::SigningError;

/// A signature algorithm. ECDSA signatures are ASN.1, and the salt of PSS is as long as the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::signing) enum Scheme {
    /// ECDSA on the curve of the key.
    Ecdsa(Hash),
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// Pure Ed25519.
    Ed25519,
}

/// The hash of a signature algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::signing) enum Hash {
    /// SHA-256.
    Sha256,
}

impl Scheme {
    /// Returns the hash. Ed25519 has none that a caller computes.
    pub(in crate::signing) const fn hash(self) -> Option<Hash> {
        match self {
            Self::Ecdsa(hash) | Self::RsaPkcs1(hash) => Some(hash),
            Self::Ed25519 => None,
        }
    }
}

impl Hash {
    /// Returns the name in the API of Vault.
    pub(in crate::signing) const fn vault_name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha2-256",
        }
    }

    pub(in crate::signing) fn digest(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
        };
        aws_lc_rs::digest::digest(algorithm, message)
            .as_ref()
            .to_vec()
    }
}

/// Signs with a key that a service holds.
pub(in crate::signing) trait RemoteKey: Send + Sync {
    /// Signs all messages, in as few requests as the service allows. Returns a result for each message, in their order. The
    /// signatures are not verified.
    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
        scheme: Scheme,
    ) -> BoxFuture<'a, Vec<Result<Vec<u8>, SigningError>>>;

    /// Ends the use of the cached public key, because the key does not sign or a signature does not verify: the version may be gone, or
    /// another key may have its name now. The next pass reads the key again.
    fn expire(&self) -> BoxFuture<'_, ()>;

    /// Returns the service and the key, for messages.
    fn describe(&self) -> String;
}
