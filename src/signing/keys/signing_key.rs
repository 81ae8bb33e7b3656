//! A private key with one signature algorithm: bytes in, signature out.

use aws_lc_rs::digest::{Digest, SHA256, SHA384, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, ED25519, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::private_key::PrivateKey;
use crate::signing::error::KeyError;

/// A key pair and its signature algorithm. It has no `Debug`.
pub(super) struct SigningKey {
    pair: Pair,
    verification: &'static dyn VerificationAlgorithm,
}

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    /// ECDSA P-384 with SHA-256, which aws-lc-rs verifies but does not sign.
    P384Sha256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// Returns an RSA key that signs with `encoding`, or `None` if `key` is not RSA.
    pub(super) fn rsa(
        key: &PrivateKey,
        encoding: &'static dyn RsaEncoding,
        verification: &'static dyn VerificationAlgorithm,
    ) -> Option<Self> {
        Some(Self {
            pair: Pair::Rsa(key.rsa()?, encoding),
            verification,
        })
    }

    /// Returns an ECDSA key that signs with `algorithm`, or `None` if `key` is not on its curve.
    pub(super) fn ecdsa(
        key: &PrivateKey,
        algorithm: &'static EcdsaSigningAlgorithm,
        verification: &'static dyn VerificationAlgorithm,
    ) -> Option<Self> {
        Some(Self {
            pair: Pair::Ecdsa(key.ecdsa(algorithm)?),
            verification,
        })
    }

    /// Returns a P-384 key that signs with SHA-256, or `None` if `key` is not on that curve. Signatures are ASN.1.
    pub(super) fn p384_sha256(key: &PrivateKey) -> Option<Self> {
        Some(Self {
            pair: Pair::P384Sha256(key.ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
            verification: &ECDSA_P384_SHA256_ASN1,
        })
    }

    /// Returns an Ed25519 key, or `None` if `key` is of another kind.
    pub(super) fn ed25519(key: &PrivateKey) -> Option<Self> {
        Some(Self {
            pair: Pair::Ed25519(key.ed25519()?),
            verification: &ED25519,
        })
    }

    /// Returns the public key as the bit string of a SubjectPublicKeyInfo holds it.
    pub(super) fn public_bits(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair, _) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) | Pair::P384Sha256(pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// Returns the DER of the public key, a SubjectPublicKeyInfo.
    pub(super) fn public_der(&self) -> Option<Vec<u8>> {
        let der: Result<PublicKeyX509Der<'_>, _> = match &self.pair {
            Pair::Rsa(pair, _) => pair.public_key().as_der(),
            Pair::Ecdsa(pair) | Pair::P384Sha256(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => pair.public_key().as_der(),
        };
        Some(der.ok()?.as_ref().to_vec())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map(|()| signature)
            }
            Pair::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec()),
            Pair::P384Sha256(pair) => sha256_as_sha384(message)
                .and_then(|digest| pair.sign_digest(&digest))
                .map(|signature| signature.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair
                .try_sign(message)
                .map(|signature| signature.as_ref().to_vec()),
        };
        signature.map_err(|_| KeyError::Unable)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.verification, self.public_bits())
            .verify(message, signature)
            .is_ok()
    }
}

/// Returns the SHA-256 hash of `message` in the form of a SHA-384 digest.
///
/// ECDSA signs a hash as an integer (FIPS 186-5, section 6.4.1). A P-384 key takes 384 bits of it, so zeros in front do
/// not change the integer, and the signature is that of SHA-256.
fn sha256_as_sha384(message: &[u8]) -> Result<Digest, Unspecified> {
    let hash = digest(&SHA256, message);
    Digest::import_less_safe(&[[0; 16].as_slice(), hash.as_ref()].concat(), &SHA384)
}
