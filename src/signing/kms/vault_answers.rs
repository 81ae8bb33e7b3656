//! The answers of OpenBao and Vault.

use std::collections::BTreeMap;

use affix_registry::LoginAnswer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::signing::keys::pem;

/// The DER of an Ed25519 key up to its 32 bytes (RFC 8410, section 4).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

#[derive(Deserialize)]
pub(super) struct LoginDocument {
    pub(super) auth: Auth,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: String,
    #[serde(default)]
    pub(super) lease_duration: u64,
}

#[derive(Deserialize)]
pub(super) struct KeyDocument {
    pub(super) data: KeyData,
}

#[derive(Deserialize)]
pub(super) struct KeyData {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) latest_version: u64,
    #[serde(default)]
    pub(super) derived: bool,
    /// Versions of symmetric keys are numbers.
    #[serde(default)]
    pub(super) keys: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
pub(super) struct SignDocument {
    pub(super) data: Batch,
}

#[derive(Deserialize)]
pub(super) struct Batch {
    pub(super) batch_results: Vec<Signed>,
}

#[derive(Deserialize)]
pub(super) struct Signed {
    #[serde(default)]
    pub(super) signature: String,
    #[serde(default)]
    pub(super) error: String,
}

/// Returns the messages of an error, which are untrusted.
pub(super) fn errors(answer: &LoginAnswer) -> String {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        errors: Vec<String>,
    }
    let document = serde_json::from_slice::<Document>(answer.body());
    document.map_or_else(|_| String::new(), |document| document.errors.join("; "))
}

/// Returns a public key as a SubjectPublicKeyInfo. That of Ed25519 comes as its 32 bytes, that of other kinds as PEM.
pub(super) fn public_der(kind: &str, text: &str) -> Option<Vec<u8>> {
    if kind == "ed25519" {
        let bytes = STANDARD
            .decode(text)
            .ok()
            .filter(|bytes| bytes.len() == 32)?;
        return Some([ED25519_PREFIX.as_slice(), &bytes].concat());
    }
    let blocks = pem::blocks(text.as_bytes()).ok()?;
    let block = blocks
        .into_iter()
        .find(|block| block.label == "PUBLIC KEY")?;
    Some(block.contents.to_vec())
}
