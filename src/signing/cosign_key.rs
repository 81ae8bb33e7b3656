//! The key files of cosign: PKCS#8 inside a NaCl secretbox, whose key scrypt makes from a password; or PKCS#8 as it is.
//!
//! Owns opening them, signing as `cosign verify --key` expects it (ECDSA P-256 with SHA-256 in ASN.1; Ed25519 pure, never
//! Ed25519ph) and the public half, which is always derived: a public key kept beside would hide a rotation. It refuses scrypt
//! parameters that cosign does not write, and opens one key at a time, since each takes 64 to 128 MiB.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey,
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
            EXPECTED | "ENCRYPTED COSIGN PRIVATE KEY" => PrivateKey::from_der(decrypt(&block.contents, password)?),
            _ => PrivateKey::from_block(FILE, block, "ENCRYPTED SIGSTORE PRIVATE KEY or PRIVATE KEY", OPENSSL_WAY_OUT)?,
        };
        Self::of(&key)
    }

    fn of(key: &PrivateKey) -> Result<Self, KeyError> {
        let unreadable = || KeyError::UnreadableKey { file: FILE, supported: SUPPORTED };
        let (pair, public) = match key.kind().ok_or_else(unreadable)? {
            Kind::P256 => {
                let pair = key.ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING).ok_or_else(unreadable)?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| unreadable())?;
                let public = public.as_ref().to_vec();
                (Pair::P256(pair), public)
            }
            Kind::Ed25519 => {
                let pair = key.ed25519().ok_or_else(unreadable)?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| unreadable())?;
                let public = public.as_ref().to_vec();
                (Pair::Ed25519(pair), public)
            }
            found @ (Kind::Rsa(_) | Kind::P384 | Kind::P521) => {
                return Err(KeyError::UnsupportedKey { file: FILE, found: found.to_string(), supported: SUPPORTED });
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
        signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| KeyError::Unable)
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.pair {
            Pair::P256(pair) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key()).verify(message, signature),
            Pair::Ed25519(pair) => UnparsedPublicKey::new(&ED25519, pair.public_key()).verify(message, signature),
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
        let refused = KeyError::ScryptParameters { n: self.n, r: self.r, p: self.p };
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
    let encrypted: Encrypted = serde_json::from_slice(json).map_err(|_| malformed("its JSON lacks what an encrypted key has"))?;
    if encrypted.kdf.name != "scrypt" || encrypted.cipher.name != "nacl/secretbox" {
        return Err(malformed("it is encrypted with something else than scrypt and nacl/secretbox"));
    }
    let parameters = encrypted.kdf.params.checked()?;
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| malformed("its salt, nonce or ciphertext is not base64"));
    let (salt, nonce, ciphertext) = (bytes(&encrypted.kdf.salt)?, bytes(&encrypted.cipher.nonce)?, bytes(&encrypted.ciphertext)?);
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| malformed("its nonce is not 24 bytes long"))?;
    let password = password.ok_or(KeyError::NoPassword)?;

    let mut key = Zeroizing::new([0; 32]);
    {
        let _one_at_a_time = DERIVATION.lock().unwrap_or_else(PoisonError::into_inner);
        scrypt::scrypt(password, &salt, &parameters, &mut *key).map_err(|_| malformed("its key cannot be derived"))?;
    }
    let cipher = XSalsa20Poly1305::new((&*key).into());
    match cipher.decrypt(Nonce::from_slice(&nonce), ciphertext.as_slice()) {
        Ok(pkcs8) => Ok(Zeroizing::new(pkcs8)),
        Err(_) if password.ends_with(b"\n") => Err(KeyError::WrongPasswordLineBreak),
        Err(_) => Err(KeyError::WrongPassword),
    }
}
