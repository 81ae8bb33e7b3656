//! Public keys that verify signatures of cosign: the files `cosign.pub`.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};

use affix_registry::oci::{Digest, cut};

use super::pem::{self, PemError};
use super::remote_key::{Hash, Scheme};
use crate::signing::error::KeyError;

const SUPPORTED: &str = "RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519";
const EXPECTED: &str = "PUBLIC KEY";

/// The algorithms that `cosign verify --key` uses, which hashes with SHA-256 on every curve.
static ALGORITHMS: [(&dyn VerificationAlgorithm, Scheme); 5] = [
    (&ECDSA_P256_SHA256_ASN1, Scheme::Ecdsa(Hash::Sha256)),
    (&ED25519, Scheme::Ed25519),
    (&RSA_PKCS1_2048_8192_SHA256, Scheme::RsaPkcs1(Hash::Sha256)),
    (&ECDSA_P384_SHA256_ASN1, Scheme::Ecdsa(Hash::Sha256)),
    (&ECDSA_P521_SHA256_ASN1, Scheme::Ecdsa(Hash::Sha256)),
];

/// A public key with its signature algorithm.
#[derive(Clone)]
pub struct PublicKey {
    key: ParsedPublicKey,
    scheme: Scheme,
    id: Digest,
}

impl PublicKey {
    /// Reads every key of a PEM file. `file` is its name in messages.
    ///
    /// # Errors
    /// Fails if the file has no key or a block that is not a supported public key.
    pub fn from_pem(file: &'static str, bytes: &[u8]) -> Result<Vec<Self>, KeyError> {
        let blocks = pem::blocks(bytes).map_err(|error| match error {
            PemError::Damaged => KeyError::DamagedPem { file },
            PemError::Headers => KeyError::EncryptedByOpenSsl {
                file,
                way_out: "a public key is needed",
            },
        })?;
        if blocks.is_empty() {
            return Err(KeyError::NoPem {
                file,
                expected: EXPECTED,
            });
        }
        let key = |block: &pem::Block| match block.label.as_str() {
            EXPECTED => Self::from_der(&block.contents).ok_or(KeyError::UnreadablePublicKey {
                file,
                supported: SUPPORTED,
            }),
            other => Err(KeyError::UnexpectedPem {
                file,
                found: cut(other),
                expected: EXPECTED,
            }),
        };
        blocks.iter().map(key).collect()
    }

    /// Reads the DER of a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    pub(in crate::signing) fn from_der(der: &[u8]) -> Option<Self> {
        let key = |(algorithm, scheme): &(&'static dyn VerificationAlgorithm, Scheme)| {
            Some((ParsedPublicKey::new(*algorithm, der).ok()?, *scheme))
        };
        let (key, scheme) = ALGORITHMS.iter().find_map(key)?;
        Some(Self {
            key,
            scheme,
            id: Digest::sha256(der),
        })
    }

    /// Returns the algorithm of the key's signatures.
    pub(in crate::signing) const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the digest of the key's DER, as [`Signer::key_id`](crate::signing::Signer::key_id) returns it.
    #[must_use]
    pub const fn id(&self) -> &Digest {
        &self.id
    }

    /// Returns true if the key made `signature` over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::signing::keys::CosignKey;
    use crate::signing::vectors::{PASSWORD, read};

    #[test]
    fn a_public_key_verifies_what_its_private_key_signs_and_nothing_else() {
        let keys = ["generated", "ed25519", "rsa", "p384", "p521"];
        for key in keys {
            let private =
                CosignKey::open(&read(&format!("cosign/{key}.key")), Some(PASSWORD)).unwrap();
            let signature = private.sign_one(b"message");
            for public in keys {
                let file = read(&format!("cosign/{public}.pub"));
                let public_key = PublicKey::from_pem("a.pub", &file).unwrap().remove(0);
                assert_eq!(
                    public_key.verifies(b"message", &signature),
                    key == public,
                    "{key} under {public}"
                );
                assert!(!public_key.verifies(b"another", &signature), "{public}");
                if key == public {
                    assert_eq!(*public_key.id(), Digest::sha256(private.public_der()));
                }
            }
        }
    }

    #[test]
    fn every_key_of_a_file_is_read_and_other_files_are_refused() {
        let (one, other) = (read("cosign/p256.pub"), read("cosign/rsa.pub"));
        let both = PublicKey::from_pem("a.pub", &[one, other].concat()).unwrap();
        assert_eq!(both.len(), 2);
        for (file, said) in [
            (read("cosign/p256.pem"), "a PEM block"),
            (b"affix".to_vec(), "no PEM block"),
            (
                b"-----BEGIN PUBLIC KEY-----\nAAEC\n-----END PUBLIC KEY-----\n".to_vec(),
                "cannot be read",
            ),
        ] {
            let error = PublicKey::from_pem("a.pub", &file).unwrap_err().to_string();
            assert!(error.contains("a.pub") && error.contains(said), "{error}");
        }
    }
}
