//! DSSE envelopes (secure-systems-lab/dsse, protocol.md and envelope.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What is signed: the pre-authentication encoding of a payload and its type, so that neither can stand in for the other.
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

/// A signed payload, in the order of fields in which cosign writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    /// Base64.
    pub(super) payload: String,
    pub(super) payload_type: String,
    pub(super) signatures: Vec<Signature>,
}

/// A signature; which key made it is not looked at, since the key is known.
#[derive(Serialize, Deserialize)]
pub(super) struct Signature {
    /// Base64.
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

    /// The payload and its one signature; `None` where there are none or several, or either is not base64.
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
