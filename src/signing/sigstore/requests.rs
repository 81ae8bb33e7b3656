//! The requests to the services of an instance: bytes in, bytes out.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::signing::error::KeyError;

/// The header of a SubjectPublicKeyInfo with a key of P-256 (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key whose signatures a transparency log takes: one of P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::signing) struct LoggedKey {
    /// The public key or its certificate.
    der: Vec<u8>,
    /// The field of the request.
    field: &'static str,
}

impl LoggedKey {
    /// Returns the key with this SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// Fails for a key that is not of P-256 (docs/decisions/0145).
    pub(in crate::signing) fn new(der: &[u8]) -> Result<Self, KeyError> {
        if !der.starts_with(&P256) {
            return Err(KeyError::NotLogged);
        }
        Ok(Self {
            der: der.to_vec(),
            field: "publicKey",
        })
    }

    /// Returns the ephemeral key, of P-256, with this certificate.
    pub(in crate::signing) const fn certified(certificate: Vec<u8>) -> Self {
        Self {
            der: certificate,
            field: "x509Certificate",
        }
    }
}

/// Returns the request for an entry of a signature over `message` (sigstore/rekor-tiles, `hashedrekord.proto`).
pub(super) fn log_entry(message: &[u8], signature: &[u8], key: &LoggedKey) -> Vec<u8> {
    let verifier = json!({
        key.field: {"rawBytes": STANDARD.encode(&key.der)},
        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
    });
    let request = json!({"hashedRekordRequestV002": {
        "digest": STANDARD.encode(digest(&SHA256, message)),
        "signature": {"content": STANDARD.encode(signature), "verifier": verifier},
    }});
    request.to_string().into_bytes()
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

    fn key(name: &str) -> Result<LoggedKey, KeyError> {
        let key = read(&format!("cosign/{name}.key"));
        LoggedKey::new(CosignKey::open(&key, Some(PASSWORD)).unwrap().public_der())
    }

    #[test]
    fn the_log_takes_keys_of_p256_only() {
        assert_eq!(key("generated").unwrap().field, "publicKey");
        for name in ["ed25519", "rsa", "p384", "p521"] {
            assert_eq!(key(name), Err(KeyError::NotLogged), "{name}");
        }
        assert_eq!(LoggedKey::new(b"affix"), Err(KeyError::NotLogged));
    }
}
