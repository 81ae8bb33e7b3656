//! The key files of cosign: PKCS#8 inside a NaCl secretbox, whose key scrypt makes from a password; or PKCS#8 as it is.
//!
//! Owns opening them, signing as `cosign verify --key` expects it (ECDSA P-256 with SHA-256 in ASN.1; Ed25519 pure, never
//! Ed25519ph) and the public half, which is always derived: a public key kept beside would hide a rotation. It refuses scrypt
//! parameters that cosign does not write, and opens one key at a time, since each takes 64 to 128 MiB.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::error::KeyError;
use super::private_key::{Kind, PrivateKey, key_block};

const FILE: &str = "cosign.key";
const EXPECTED: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
const SUPPORTED: &str = "ECDSA P-256 or Ed25519";
const OPENSSL_WAY_OUT: &str = "use cosign import-key-pair, or store the key as unencrypted PKCS#8";

/// Held while scrypt works.
static DERIVATION: Mutex<()> = Mutex::new(());

/// A cosign key, opened. No `Debug`.
pub(super) struct CosignKey {
    pair: Pair,
    /// DER of the public half, a SubjectPublicKeyInfo.
    public: Vec<u8>,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl CosignKey {
    /// Opens `cosign.key`, with `cosign.password` where it is encrypted.
    pub(super) fn open(file: &[u8], password: Option<&[u8]>) -> Result<Self, KeyError> {
        let block = key_block(FILE, file, EXPECTED, OPENSSL_WAY_OUT)?;
        let key = match block.label {
            EXPECTED | "ENCRYPTED COSIGN PRIVATE KEY" => {
                PrivateKey::from_der(decrypt(&block.contents, password)?)
            }
            _ => PrivateKey::from_block(
                FILE,
                block,
                "ENCRYPTED SIGSTORE PRIVATE KEY or PRIVATE KEY",
                OPENSSL_WAY_OUT,
            )?,
        };
        Self::of(&key)
    }

    fn of(key: &PrivateKey) -> Result<Self, KeyError> {
        let unreadable = || KeyError::UnreadableKey {
            file: FILE,
            supported: SUPPORTED,
        };
        let (pair, public) = match key.kind().ok_or_else(unreadable)? {
            Kind::P256 => {
                let pair = key
                    .ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)
                    .ok_or_else(unreadable)?;
                let public: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| unreadable())?;
                let public = public.as_ref().to_vec();
                (Pair::P256(pair), public)
            }
            Kind::Ed25519 => {
                let pair = key.ed25519().ok_or_else(unreadable)?;
                let public: PublicKeyX509Der<'_> =
                    pair.public_key().as_der().map_err(|_| unreadable())?;
                let public = public.as_ref().to_vec();
                (Pair::Ed25519(pair), public)
            }
            found @ (Kind::Rsa(_) | Kind::P384 | Kind::P521) => {
                return Err(KeyError::UnsupportedKey {
                    file: FILE,
                    found: found.to_string(),
                    supported: SUPPORTED,
                });
            }
        };
        Ok(Self { pair, public })
    }

    /// DER of the public half, a SubjectPublicKeyInfo.
    pub(super) fn public_der(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message),
            Pair::Ed25519(pair) => pair.try_sign(message),
        };
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError::Unable)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.pair {
            Pair::P256(pair) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key())
                .verify(message, signature),
            Pair::Ed25519(pair) => {
                UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(message, signature)
            }
        }
        .is_ok()
    }
}

/// go-securesystemslib, `encrypted`: the JSON inside of the PEM block.
#[derive(Deserialize)]
struct Encrypted {
    kdf: KeyDerivation,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct KeyDerivation {
    name: String,
    params: ScryptParameters,
    salt: String,
}

#[derive(Deserialize)]
struct ScryptParameters {
    #[serde(rename = "N")]
    n: u64,
    r: u64,
    p: u64,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl ScryptParameters {
    fn checked(&self) -> Result<scrypt::Params, KeyError> {
        let refused = KeyError::ScryptParameters {
            n: self.n,
            r: self.r,
            p: self.p,
        };
        let log_n = match (self.n, self.r, self.p) {
            (32_768, 8, 1) => 15,
            (65_536, 8, 1) => 16,
            (131_072, 8, 1) => 17,
            _ => return Err(refused),
        };
        scrypt::Params::new(log_n, 8, 1, scrypt::Params::RECOMMENDED_LEN).map_err(|_| refused)
    }
}

/// The PKCS#8 inside of an encrypted key.
fn decrypt(json: &[u8], password: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let malformed = KeyError::MalformedCosignKey;
    let encrypted: Encrypted = serde_json::from_slice(json)
        .map_err(|_| malformed("its JSON lacks what an encrypted key has"))?;
    if encrypted.kdf.name != "scrypt" || encrypted.cipher.name != "nacl/secretbox" {
        return Err(malformed(
            "it is encrypted with something else than scrypt and nacl/secretbox",
        ));
    }
    let parameters = encrypted.kdf.params.checked()?;
    let bytes = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|_| malformed("its salt, nonce or ciphertext is not base64"))
    };
    let (salt, nonce, ciphertext) = (
        bytes(&encrypted.kdf.salt)?,
        bytes(&encrypted.cipher.nonce)?,
        bytes(&encrypted.ciphertext)?,
    );
    let nonce: [u8; 24] = nonce
        .try_into()
        .map_err(|_| malformed("its nonce is not 24 bytes long"))?;
    let password = password.ok_or(KeyError::NoPassword)?;

    let mut key = Zeroizing::new([0; 32]);
    {
        let _one_at_a_time = DERIVATION.lock().unwrap_or_else(PoisonError::into_inner);
        scrypt::scrypt(password, &salt, &parameters, &mut *key)
            .map_err(|_| malformed("its key cannot be derived"))?;
    }
    let cipher = XSalsa20Poly1305::new((&*key).into());
    match cipher.decrypt(Nonce::from_slice(&nonce), ciphertext.as_slice()) {
        Ok(pkcs8) => Ok(Zeroizing::new(pkcs8)),
        Err(_) if password.ends_with(b"\n") => Err(KeyError::WrongPasswordLineBreak),
        Err(_) => Err(KeyError::WrongPassword),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::super::pem;
    use super::super::vectors::{PASSWORD, read};
    use super::*;

    fn refusal(file: &[u8], password: Option<&[u8]>) -> String {
        CosignKey::open(file, password)
            .err()
            .expect("a refusal")
            .to_string()
    }

    /// A key file with another JSON inside.
    fn rewritten(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let file = read("cosign/generated.key");
        let mut json = serde_json::from_slice(&pem::blocks(&file).unwrap()[0].contents).unwrap();
        change(&mut json);
        format!(
            "-----BEGIN {EXPECTED}-----\n{}\n-----END {EXPECTED}-----\n",
            STANDARD.encode(json.to_string())
        )
        .into_bytes()
    }

    #[test]
    fn a_key_that_cosign_wrote_opens_and_has_the_public_half_that_cosign_wrote() {
        for name in ["generated", "p256", "ed25519"] {
            let key =
                CosignKey::open(&read(&format!("cosign/{name}.key")), Some(PASSWORD)).unwrap();
            let public = read(&format!("cosign/{name}.pub"));
            assert_eq!(
                key.public_der(),
                pem::blocks(&public).unwrap()[0].contents.as_slice(),
                "{name}"
            );
            let signature = key.sign(b"message").unwrap();
            assert!(
                key.verifies(b"message", &signature) && !key.verifies(b"another", &signature),
                "{name}"
            );
        }
    }

    #[test]
    fn the_older_label_opens_too() {
        let file = String::from_utf8(read("cosign/generated.key"))
            .unwrap()
            .replace("SIGSTORE", "COSIGN");
        assert!(CosignKey::open(file.as_bytes(), Some(PASSWORD)).is_ok());
    }

    #[test]
    fn an_unencrypted_key_is_the_same_key_as_the_one_that_cosign_imported() {
        for (plain, public) in [
            ("p256.pem", "p256.pub"),
            ("p256.sec1.pem", "p256.pub"),
            ("ed25519.pem", "ed25519.pub"),
        ] {
            let key = CosignKey::open(&read(&format!("cosign/{plain}")), None).unwrap();
            let public = read(&format!("cosign/{public}"));
            assert_eq!(
                key.public_der(),
                pem::blocks(&public).unwrap()[0].contents.as_slice(),
                "{plain}"
            );
        }
    }

    #[test]
    fn a_password_that_does_not_fit_is_said_without_being_shown() {
        let file = read("cosign/generated.key");
        for (password, said) in [
            (None, "the Secret has no cosign.password"),
            (
                Some(&b"canary"[..]),
                "cosign.password does not open cosign.key",
            ),
            (Some(b""), "cosign.password does not open cosign.key"),
            (Some(b"affix\n"), "ends with a line break"),
        ] {
            let error = refusal(&file, password);
            assert!(error.contains(said) && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn scrypt_parameters_that_cosign_does_not_write_are_refused_before_any_work() {
        let started = std::time::Instant::now();
        for (name, value) in [
            ("N", 16_384),
            ("N", 262_144),
            ("N", 65_537),
            ("r", 16),
            ("p", 2),
            ("N", u64::MAX),
            ("N", 0),
        ] {
            let error = refusal(
                &rewritten(|json| json["kdf"]["params"][name] = value.into()),
                Some(PASSWORD),
            );
            assert!(
                error.contains(&format!("{name}={value}"))
                    && error.contains("only N of 32768, 65536 or 131072"),
                "{error}"
            );
        }
        assert!(started.elapsed().as_secs() < 1, "{:?}", started.elapsed());
    }

    #[test]
    fn each_of_the_three_costs_that_cosign_writes_is_derived() {
        for n in [32_768, 131_072] {
            // The key was made with another cost, so it must not open: but for the password, not for the cost.
            let error = refusal(
                &rewritten(|json| json["kdf"]["params"]["N"] = n.into()),
                Some(PASSWORD),
            );
            assert_eq!(error, "cosign.password does not open cosign.key", "{n}");
        }
    }

    #[test]
    fn a_key_file_that_does_not_fit_is_refused_by_name() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        for (file, said) in [
            (
                text(read("cosign/rsa.key")),
                "is RSA of 2048 bits: ECDSA P-256 or Ed25519 is supported",
            ),
            (text(read("cosign/rsa.pem")), "is RSA of 2048 bits"),
            (
                text(read("cosign/p384.pem")),
                "is ECDSA P-384: ECDSA P-256 or Ed25519 is supported",
            ),
            (text(read("notary/p521.key")), "is ECDSA P-521"),
            (
                text(read("cosign/p256.openssl.pem")),
                "encrypted in OpenSSL's way, which affix does not open: use cosign import-key-pair",
            ),
            (
                text(read("cosign/generated.pub")),
                "cosign.key holds a PEM block \"PUBLIC KEY\"",
            ),
            (
                "affix".to_owned(),
                "cosign.key holds no PEM block: a line -----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY----- is expected",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAEC\n-----END PRIVATE KEY-----\n".to_owned(),
                "cannot be read: ECDSA P-256 or Ed25519",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAEC\n".to_owned(),
                "cosign.key is damaged",
            ),
            (
                text(rewritten(|json| json["kdf"]["name"] = "argon2".into())),
                "something else than scrypt and nacl/secretbox",
            ),
            (
                text(rewritten(|json| json["cipher"]["name"] = "none".into())),
                "something else than scrypt",
            ),
            (
                text(rewritten(|json| json["cipher"]["nonce"] = "AAEC".into())),
                "its nonce is not 24 bytes long",
            ),
            (
                text(rewritten(|json| json["ciphertext"] = "?".into())),
                "is not base64",
            ),
            (text(rewritten(|json| *json = 7.into())), "its JSON lacks"),
        ] {
            let error = refusal(file.as_bytes(), Some(PASSWORD));
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn a_key_whose_ciphertext_was_changed_does_not_open() {
        let file = rewritten(|json| json["ciphertext"] = STANDARD.encode([0; 154]).into());
        assert_eq!(
            CosignKey::open(&file, Some(PASSWORD)).err(),
            Some(KeyError::WrongPassword)
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_key_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100), label in 0..3_usize) {
            let label = [EXPECTED, "PRIVATE KEY", "EC PRIVATE KEY"][label];
            let file = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(&bytes));
            assert!(CosignKey::open(file.as_bytes(), Some(PASSWORD)).is_err());
        }
    }
}
