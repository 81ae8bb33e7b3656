//! The keys that notation signs with. Each kind has exactly one algorithm (notaryproject, signature-specification.md,
//! "Algorithm Selection").

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512,
};

use super::private_key::{KeyKind, PrivateKey, key_block};
use super::signing_key::SigningKey;
use crate::signing::error::KeyError;

const FILE: &str = "tls.key";
const SUPPORTED: &str = "RSA of 2048, 3072 or 4096 bits, or ECDSA P-256, P-384 or P-521";
const OPENSSL_WAY_OUT: &str =
    "store it without a password, as openssl pkcs8 -topk8 -nocrypt writes it";

/// A notation key and its algorithm. It has no `Debug`.
pub(in crate::signing) struct NotationKey {
    key: SigningKey,
    algorithm: &'static str,
}

impl NotationKey {
    /// Opens `tls.key`: PKCS#8, PKCS#1 or SEC1.
    pub(in crate::signing) fn open(file: &[u8]) -> Result<Self, KeyError> {
        let block = key_block(FILE, file, "PRIVATE KEY", OPENSSL_WAY_OUT)?;
        let key = PrivateKey::from_block(
            FILE,
            block,
            "PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY",
            OPENSSL_WAY_OUT,
        )?;
        let unreadable = || KeyError::UnreadableKey {
            file: FILE,
            supported: SUPPORTED,
        };
        let (algorithm, key) = match key.kind().ok_or_else(unreadable)? {
            KeyKind::Rsa(2048) => (
                "PS256",
                SigningKey::rsa(&key, &RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
            ),
            KeyKind::Rsa(3072) => (
                "PS384",
                SigningKey::rsa(&key, &RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
            ),
            KeyKind::Rsa(4096) => (
                "PS512",
                SigningKey::rsa(&key, &RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
            ),
            KeyKind::P256 => (
                "ES256",
                SigningKey::ecdsa(
                    &key,
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    &ECDSA_P256_SHA256_FIXED,
                ),
            ),
            KeyKind::P384 => (
                "ES384",
                SigningKey::ecdsa(
                    &key,
                    &ECDSA_P384_SHA384_FIXED_SIGNING,
                    &ECDSA_P384_SHA384_FIXED,
                ),
            ),
            KeyKind::P521 => (
                "ES512",
                SigningKey::ecdsa(
                    &key,
                    &ECDSA_P521_SHA512_FIXED_SIGNING,
                    &ECDSA_P521_SHA512_FIXED,
                ),
            ),
            found @ (KeyKind::Rsa(_) | KeyKind::Ed25519) => {
                return Err(KeyError::UnsupportedKey {
                    file: FILE,
                    found: found.to_string(),
                    supported: SUPPORTED,
                });
            }
        };
        Ok(Self {
            key: key.ok_or_else(unreadable)?,
            algorithm,
        })
    }

    /// Returns the name of the algorithm in a JWS (RFC 7518, section 3.1).
    pub(in crate::signing) const fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// Returns the public key as a certificate holds it: an uncompressed point, or PKCS#1.
    pub(in crate::signing) fn public_bits(&self) -> &[u8] {
        self.key.public_bits()
    }

    /// Returns a signature in the form of a JWS: PSS with a salt as long as the hash, or raw r‖s.
    pub(in crate::signing) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign(message)
    }

    pub(in crate::signing) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verifies(message, signature)
    }
}
