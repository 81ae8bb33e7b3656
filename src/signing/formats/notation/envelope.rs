//! The JWS envelope of notation, flattened JSON serialisation (notaryproject, signature-envelope-jws.md).

use affix_registry::oci::Descriptor;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::signing::signer::parse_part;

/// The envelope, with the fields in notation's order.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) payload: String,
    pub(super) protected: String,
    pub(super) header: Unprotected,
    pub(super) signature: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Unprotected {
    /// The token of a timestamp authority over the signature, as standard base64 of DER.
    #[serde(
        rename = "io.cncf.notary.timestampSignature",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) timestamp: Option<String>,
    /// The certificates as standard base64 of DER (RFC 7515, section 4.1.6), the signing certificate first.
    pub(super) x5c: Vec<String>,
    #[serde(rename = "io.cncf.notary.signingAgent", default)]
    pub(super) agent: String,
}

/// The protected header, with the fields in notation's order. A header with other fields is not one of affix.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Protected {
    #[serde(rename = "alg")]
    pub(super) algorithm: String,
    #[serde(rename = "crit")]
    pub(super) critical: Vec<String>,
    #[serde(rename = "cty")]
    pub(super) content_type: String,
    #[serde(
        rename = "io.cncf.notary.expiry",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) expiry: Option<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    pub(super) scheme: String,
    #[serde(rename = "io.cncf.notary.signingTime")]
    pub(super) signing_time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payload {
    pub(super) target_artifact: Descriptor,
}

/// Returns the signed text (RFC 7515, section 5.1).
pub(super) fn signing_input(protected: &str, payload: &str) -> String {
    format!("{protected}.{payload}")
}

/// Returns a part of the envelope as base64 of its JSON.
pub(super) fn encode<T: Serialize>(part: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

/// Parses a part of the envelope, or returns `None` if it has another form.
pub(super) fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    parse_part(&URL_SAFE_NO_PAD.decode(part).ok()?)
}
