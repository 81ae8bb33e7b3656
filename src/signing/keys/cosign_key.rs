//! The keys that cosign signs with: the encrypted files of cosign, plain PKCS#8, PKCS#1 and SEC1, or keys that a service holds.
//!
//! Signs with the algorithm that `cosign verify --key` expects: SHA-256 for RSA (PKCS#1 v1.5) and for every ECDSA curve,
//! pure Ed25519 but not Ed25519ph. The public key is derived from the private one, because a public key that is stored
//! beside it could hide a rotation.

use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA256_ASN1_SIGNING, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
};

use super::encrypted_key::decrypt;
use super::private_key::{KeyKind, PrivateKey, key_block};
use super::public_key::PublicKey;
use super::remote_key::RemoteKey;
use super::signing_key::SigningKey;
use crate::signing::error::KeyError;
use crate::signing::kms::SigningError;

const FILE: &str = "cosign.key";
const EXPECTED: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// The label of cosign before version 2.
const EXPECTED_EARLIER: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const SUPPORTED: &str = "RSA of 2048, 3072 or 4096 bits, ECDSA P-256, P-384 or P-521, or Ed25519";
const OPENSSL_WAY_OUT: &str = "use cosign import-key-pair, or store the key as unencrypted PKCS#8";

/// An open cosign key. It has no `Debug`.
pub(in crate::signing) struct CosignKey {
    key: Key,
    public_der: Vec<u8>,
}

enum Key {
    Local(SigningKey),
    Remote {
        key: Arc<dyn RemoteKey>,
        public_key: PublicKey,
    },
}

impl CosignKey {
    /// Opens `cosign.key`, with `cosign.password` if it is encrypted.
    pub(in crate::signing) fn open(file: &[u8], password: Option<&[u8]>) -> Result<Self, KeyError> {
        let block = key_block(FILE, file, EXPECTED, OPENSSL_WAY_OUT)?;
        let key = match block.label.as_str() {
            EXPECTED | EXPECTED_EARLIER => {
                PrivateKey::from_der(decrypt(&block.contents, password)?)
            }
            _ => PrivateKey::from_block(
                FILE,
                block,
                "ENCRYPTED SIGSTORE PRIVATE KEY or PRIVATE KEY",
                OPENSSL_WAY_OUT,
            )?,
        };
        Self::from_private_key(&key)
    }

    /// Returns a new P-256 key, which is never stored.
    pub(in crate::signing) fn generate() -> Result<Self, KeyError> {
        let key = aws_lc_rs::signature::EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        let der = key.and_then(|key| key.to_pkcs8v1());
        let der = der.map_err(|_| KeyError::Unable)?;
        Self::from_private_key(&PrivateKey::from_der(der.as_ref().to_vec().into()))
    }

    fn from_private_key(key: &PrivateKey) -> Result<Self, KeyError> {
        let unreadable = || KeyError::UnreadableKey {
            file: FILE,
            supported: SUPPORTED,
        };
        let key = match key.kind().ok_or_else(unreadable)? {
            KeyKind::Rsa(2048 | 3072 | 4096) => {
                SigningKey::rsa(key, &RSA_PKCS1_SHA256, &RSA_PKCS1_2048_8192_SHA256)
            }
            KeyKind::P256 => SigningKey::ecdsa(
                key,
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &ECDSA_P256_SHA256_ASN1,
            ),
            KeyKind::P384 => SigningKey::p384_sha256(key),
            KeyKind::P521 => SigningKey::ecdsa(
                key,
                &ECDSA_P521_SHA256_ASN1_SIGNING,
                &ECDSA_P521_SHA256_ASN1,
            ),
            KeyKind::Ed25519 => SigningKey::ed25519(key),
            found @ KeyKind::Rsa(_) => {
                return Err(KeyError::UnsupportedKey {
                    file: FILE,
                    found: found.to_string(),
                    supported: SUPPORTED,
                });
            }
        }
        .ok_or_else(unreadable)?;
        let public_der = key.public_der().ok_or_else(unreadable)?;
        Ok(Self {
            key: Key::Local(key),
            public_der,
        })
    }

    /// Returns the key of a service, or `None` if its kind is not supported. `public_der` is its public key.
    pub(in crate::signing) fn remote(key: Arc<dyn RemoteKey>, public_der: Vec<u8>) -> Option<Self> {
        Some(Self {
            key: Key::Remote {
                key,
                public_key: PublicKey::from_der(&public_der)?,
            },
            public_der,
        })
    }

    /// Returns the DER of the public key, a SubjectPublicKeyInfo.
    pub(in crate::signing) fn public_der(&self) -> &[u8] {
        &self.public_der
    }

    /// Signs each message. A service signs all of them at once, and its signatures are verified.
    pub(in crate::signing) async fn sign(
        &self,
        messages: &[Vec<u8>],
    ) -> Vec<Result<Vec<u8>, SigningError>> {
        match &self.key {
            Key::Local(key) => {
                let mut signatures = Vec::new();
                for message in messages {
                    // A hundred RSA signatures take half a second, so other tasks run in between.
                    tokio::task::yield_now().await;
                    signatures.push(key.sign(message).map_err(SigningError::from));
                }
                signatures
            }
            Key::Remote { key, public_key } => {
                let signatures = key.sign(messages, public_key.scheme()).await;
                let verified = |(message, signature): (&Vec<u8>, Result<Vec<u8>, SigningError>)| {
                    let signature = signature?;
                    if public_key.verifies(message, &signature) {
                        return Ok(signature);
                    }
                    let message = format!(
                        "{} returned a signature that its public key does not verify: nothing is pushed",
                        key.describe()
                    );
                    Err(SigningError::Unavailable(message))
                };
                let signatures: Vec<_> = messages.iter().zip(signatures).map(verified).collect();
                if signatures.iter().any(Result::is_err) {
                    key.expire().await;
                }
                signatures
            }
        }
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    pub(in crate::signing) fn sign_one(&self, message: &[u8]) -> Vec<u8> {
        let signed = futures::executor::block_on(self.sign(&[message.to_vec()]));
        signed.into_iter().next().unwrap().unwrap()
    }

    pub(in crate::signing) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Key::Local(key) => key.verifies(message, signature),
            Key::Remote { public_key, .. } => public_key.verifies(message, signature),
        }
    }
}

#[cfg(test)]
mod tests;
