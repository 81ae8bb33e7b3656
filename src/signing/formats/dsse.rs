//! DSSE envelopes (secure-systems-lab/dsse, protocol.md and envelope.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Returns the signed bytes: the pre-authentication encoding of a payload and its type.
pub(super) fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoding = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    encoding.extend_from_slice(payload);
    encoding
}

/// A signed payload, with the fields in cosign's order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    /// The payload in base64.
    pub(super) payload: String,
    pub(super) payload_type: String,
    pub(super) signatures: Vec<Signature>,
}

/// A signature. The id of the key is not parsed, because the verifying key is known.
#[derive(Serialize, Deserialize)]
pub(super) struct Signature {
    /// The signature in base64.
    pub(super) sig: String,
}

impl Envelope {
    pub(super) fn new(payload_type: &str, payload: &[u8], signature: &[u8]) -> Self {
        Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature {
                sig: STANDARD.encode(signature),
            }],
        }
    }

    /// Returns the payload and its only signature, or `None` if there is another number of signatures or no valid base64.
    pub(super) fn open(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let [signature] = self.signatures.as_slice() else {
            return None;
        };
        Some((
            STANDARD.decode(&self.payload).ok()?,
            STANDARD.decode(&signature.sig).ok()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pre_authentication_encoding_is_that_of_the_specification() {
        assert_eq!(
            pre_authentication_encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
