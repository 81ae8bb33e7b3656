//! The keys that notation signs with, each of which has exactly one algorithm (notaryproject, signature-specification.md,
//! "Algorithm Selection").

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};

use super::error::KeyError;
use super::private_key::{Kind, PrivateKey, key_block};

const FILE: &str = "tls.key";
const SUPPORTED: &str = "RSA of 2048, 3072 or 4096 bits, or ECDSA P-256, P-384 or P-521";
const OPENSSL_WAY_OUT: &str =
    "store it without a password, as openssl pkcs8 -topk8 -nocrypt writes it";

/// A key and the one algorithm for it. No `Debug`.
pub(super) struct NotationKey {
    pair: Pair,
    name: &'static str,
    verification: &'static dyn VerificationAlgorithm,
}

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
}

impl NotationKey {
    /// Opens `tls.key`: PKCS#8, PKCS#1 or SEC1.
    pub(super) fn open(file: &[u8]) -> Result<Self, KeyError> {
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
        let rsa = |name, encoding: &'static dyn RsaEncoding, verification| {
            let pair = Pair::Rsa(key.rsa().ok_or_else(unreadable)?, encoding);
            Ok(Self {
                pair,
                name,
                verification,
            })
        };
        let ecdsa = |name, algorithm: &'static EcdsaSigningAlgorithm, verification| {
            let pair = Pair::Ecdsa(key.ecdsa(algorithm).ok_or_else(unreadable)?);
            Ok(Self {
                pair,
                name,
                verification,
            })
        };
        match key.kind().ok_or_else(unreadable)? {
            Kind::Rsa(2048) => rsa("PS256", &RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
            Kind::Rsa(3072) => rsa("PS384", &RSA_PSS_SHA384, &RSA_PSS_2048_8192_SHA384),
            Kind::Rsa(4096) => rsa("PS512", &RSA_PSS_SHA512, &RSA_PSS_2048_8192_SHA512),
            Kind::P256 => ecdsa(
                "ES256",
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                &ECDSA_P256_SHA256_FIXED,
            ),
            Kind::P384 => ecdsa(
                "ES384",
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                &ECDSA_P384_SHA384_FIXED,
            ),
            Kind::P521 => ecdsa(
                "ES512",
                &ECDSA_P521_SHA512_FIXED_SIGNING,
                &ECDSA_P521_SHA512_FIXED,
            ),
            found @ (Kind::Rsa(_) | Kind::Ed25519) => Err(KeyError::UnsupportedKey {
                file: FILE,
                found: found.to_string(),
                supported: SUPPORTED,
            }),
        }
    }

    /// The algorithm's name in a JWS (RFC 7518, section 3.1).
    pub(super) const fn algorithm(&self) -> &'static str {
        self.name
    }

    /// The public half as it stands in the bit string of a SubjectPublicKeyInfo: an uncompressed point, or PKCS#1.
    pub(super) fn public(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair, _) => pair.public_key().as_ref(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// A signature as a JWS has it: PSS with a salt as long as the hash, or raw r‖s.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .map_err(|_| KeyError::Unable)?;
                Ok(signature)
            }
            Pair::Ecdsa(pair) => Ok(pair
                .sign(&random, message)
                .map_err(|_| KeyError::Unable)?
                .as_ref()
                .to_vec()),
        }
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.verification, self.public())
            .verify(message, signature)
            .is_ok()
    }
}
