//! Private keys that are not encrypted: PKCS#8, PKCS#1 and SEC1.
//!
//! Finds out the kind of a key. The signature formats decide which kinds they accept.

use std::fmt;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use zeroize::Zeroizing;

use affix_registry::oci::cut;

use super::pem::{self, Block, PemError};
use crate::signing::error::KeyError;

/// The DER of a private key. It is wiped when dropped and has no `Debug`.
pub(super) struct PrivateKey {
    der: Zeroizing<Vec<u8>>,
}

/// The algorithm and the size of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// RSA, with the size of its modulus in bits.
    Rsa(usize),
    /// ECDSA on the NIST curve P-256.
    P256,
    /// ECDSA on the NIST curve P-384.
    P384,
    /// ECDSA on the NIST curve P-521.
    P521,
    /// EdDSA on Curve25519.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA of {bits} bits"),
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::P521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// Returns the first block of a file that can be a key. `openssl ecparam` writes a block of parameters above the key.
pub(super) fn key_block(
    file: &'static str,
    bytes: &[u8],
    expected: &'static str,
    openssl_way_out: &'static str,
) -> Result<Block, KeyError> {
    let blocks = pem::blocks(bytes).map_err(|error| match error {
        PemError::Damaged => KeyError::DamagedPem { file },
        PemError::Headers => KeyError::EncryptedByOpenSsl {
            file,
            way_out: openssl_way_out,
        },
    })?;
    blocks
        .into_iter()
        .find(|block| block.label != "EC PARAMETERS")
        .ok_or(KeyError::NoPem { file, expected })
}

impl PrivateKey {
    /// Takes the key out of a PEM block.
    pub(super) fn from_block(
        file: &'static str,
        block: Block,
        expected: &'static str,
        openssl_way_out: &'static str,
    ) -> Result<Self, KeyError> {
        match block.label.as_str() {
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                Ok(Self::from_der(block.contents))
            }
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::EncryptedByOpenSsl {
                file,
                way_out: openssl_way_out,
            }),
            other => Err(KeyError::UnexpectedPem {
                file,
                found: cut(other),
                expected,
            }),
        }
    }

    /// Takes a key in DER.
    pub(super) const fn from_der(der: Zeroizing<Vec<u8>>) -> Self {
        Self { der }
    }

    /// Returns the kind of the key, or `None` for a key that aws-lc-rs refuses: broken, weak or of another algorithm.
    pub(super) fn kind(&self) -> Option<KeyKind> {
        let curve = |kind, algorithm| self.ecdsa(algorithm).map(|_| kind);
        curve(KeyKind::P256, &ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|| self.ed25519().map(|_| KeyKind::Ed25519))
            .or_else(|| {
                self.rsa()
                    .map(|pair| KeyKind::Rsa(pair.public_modulus_len() * 8))
            })
            .or_else(|| curve(KeyKind::P384, &ECDSA_P384_SHA384_ASN1_SIGNING))
            .or_else(|| curve(KeyKind::P521, &ECDSA_P521_SHA512_ASN1_SIGNING))
    }

    pub(super) fn ecdsa(&self, algorithm: &'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair> {
        EcdsaKeyPair::from_private_key_der(algorithm, &self.der).ok()
    }

    pub(super) fn ed25519(&self) -> Option<Ed25519KeyPair> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.der).ok()
    }

    pub(super) fn rsa(&self) -> Option<RsaKeyPair> {
        rsa::KeyPair::from_pkcs8(&self.der)
            .or_else(|_| rsa::KeyPair::from_der(&self.der))
            .ok()
    }
}
