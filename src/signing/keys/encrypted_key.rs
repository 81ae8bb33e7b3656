//! The encrypted key files of cosign: PKCS#8 in a NaCl secretbox, whose key scrypt derives from a password.
//!
//! Accepts only the scrypt parameters that cosign writes. Derives one key at a time, because each takes 32 to 128 MiB.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::signing::error::KeyError;

/// Held while scrypt runs.
static DERIVATION: Mutex<()> = Mutex::new(());

/// The JSON in the PEM block (go-securesystemslib, package `encrypted`).
#[derive(Deserialize)]
struct EncryptedKey {
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

/// Returns the PKCS#8 inside of an encrypted key.
pub(super) fn decrypt(
    json: &[u8],
    password: Option<&[u8]>,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let malformed = KeyError::MalformedCosignKey;
    let encrypted: EncryptedKey = serde_json::from_slice(json)
        .map_err(|_| malformed("its JSON lacks a field of an encrypted key"))?;
    if encrypted.kdf.name != "scrypt" || encrypted.cipher.name != "nacl/secretbox" {
        return Err(malformed(
            "its encryption is not scrypt with nacl/secretbox",
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
