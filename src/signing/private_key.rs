//! Private keys that are not encrypted: PKCS#8, PKCS#1 and SEC1, in PEM or as bare PKCS#8.
//!
//! Owns finding out what a key is. What it may sign is for the signature formats to say.

use std::fmt;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RsaKeyPair,
};
use zeroize::Zeroizing;

use affix_registry::oci::cut;

use super::error::KeyError;
use super::pem::{self, Block, PemError};

/// A private key's DER, wiped when dropped. No `Debug`.
pub(super) struct PrivateKey {
    der: Zeroizing<Vec<u8>>,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// RSA, with the size of its modulus in bits.
    Rsa(usize),
    /// On NIST's curve P-256.
    P256,
    /// On NIST's curve P-384.
    P384,
    /// On NIST's curve P-521.
    P521,
    /// Edwards curve 25519.
    Ed25519,
}

impl fmt::Display for Kind {
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

/// The block of a file of the Secret that holds the key: the first but for the parameters that `openssl ecparam` writes above it.
pub(super) fn key_block<'a>(
    file: &'static str,
    bytes: &'a [u8],
    expected: &'static str,
    openssl_way_out: &'static str,
) -> Result<Block<'a>, KeyError> {
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
    /// The key in a PEM block.
    pub(super) fn from_block(
        file: &'static str,
        block: Block<'_>,
        expected: &'static str,
        openssl_way_out: &'static str,
    ) -> Result<Self, KeyError> {
        match block.label {
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

    /// A key in DER.
    pub(super) const fn from_der(der: Zeroizing<Vec<u8>>) -> Self {
        Self { der }
    }

    /// What the key is; `None` where it is broken, weak or of a kind that affix does not know. Each kind is tried: the library
    /// that signs is the one to ask.
    pub(super) fn kind(&self) -> Option<Kind> {
        let curve = |kind, algorithm| self.ecdsa(algorithm).map(|_| kind);
        curve(Kind::P256, &ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|| self.ed25519().map(|_| Kind::Ed25519))
            .or_else(|| {
                self.rsa()
                    .map(|pair| Kind::Rsa(pair.public_modulus_len() * 8))
            })
            .or_else(|| curve(Kind::P384, &ECDSA_P384_SHA384_ASN1_SIGNING))
            .or_else(|| curve(Kind::P521, &ECDSA_P521_SHA512_ASN1_SIGNING))
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
