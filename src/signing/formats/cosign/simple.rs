//! Signatures in the format of the signature tag: a text that names the image and its digest, signed as it is (containers/image,
//! "Simple signing").

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use affix_registry::SignatureLayer;
use affix_registry::oci::{Algorithm, Digest, media_type};

use super::CosignSigner;
use crate::signing::signer::{Signed, TagSignature, TagSigner, parse_part};

const TYPE: &str = "cosign container image signature";

/// The signed text, with the fields in cosign's order.
#[derive(Serialize, Deserialize)]
struct Text {
    critical: Critical,
    /// The annotations. Cosign writes `null` for none.
    optional: Option<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

impl Text {
    /// Returns the bytes that Go's encoder writes: it escapes HTML and two separators of lines.
    fn bytes(&self) -> Vec<u8> {
        let text = serde_json::to_string(self).unwrap_or_default();
        let escapes = [
            ("<", "\\u003c"),
            (">", "\\u003e"),
            ("&", "\\u0026"),
            ("\u{2028}", "\\u2028"),
            ("\u{2029}", "\\u2029"),
        ];
        let escape = |text: String, (from, to): (&str, &str)| text.replace(from, to);
        escapes.into_iter().fold(text, escape).into_bytes()
    }
}

impl TagSigner for CosignSigner {
    fn text(&self, identity: &str, subject: &Digest) -> Vec<u8> {
        let annotations = (!self.annotations.is_empty()).then(|| self.annotations.clone());
        Text {
            critical: Critical {
                identity: Identity {
                    docker_reference: identity.to_owned(),
                },
                image: Image {
                    docker_manifest_digest: subject.to_string(),
                },
                kind: TYPE.to_owned(),
            },
            optional: annotations,
        }
        .bytes()
    }

    fn layer(&self, identity: &str, subject: &Digest, signed: &Signed) -> TagSignature {
        let text = self.text(identity, subject);
        TagSignature {
            layer: SignatureLayer::new(&text, STANDARD.encode(&signed.signature)),
            text,
        }
    }

    fn is_equal_layer(
        &self,
        layer: &SignatureLayer,
        text: &[u8],
        identity: &str,
        subject: &Digest,
    ) -> bool {
        let Some(stated) = parse_part::<Text>(text) else {
            return false;
        };
        let Ok(signature) = STANDARD.decode(layer.signature()) else {
            return false;
        };
        layer.descriptor.digest.matches(text)
            && stated.critical.kind == TYPE
            && stated.critical.identity.docker_reference == identity
            && stated.critical.image.docker_manifest_digest == subject.to_string()
            && stated.optional.unwrap_or_default() == self.annotations
            && self.key.verifies(text, &signature)
    }

    fn made_layer(&self, layer: &SignatureLayer, text: &[u8]) -> bool {
        let signature = STANDARD.decode(layer.signature());
        layer.descriptor.digest.matches(text)
            && signature.is_ok_and(|signature| self.key.verifies(text, &signature))
    }

    fn tag_fingerprint(&self, identity: &str) -> Digest {
        let content = serde_json::json!({
            "signature": media_type::SIMPLE_SIGNING, "publicKey": self.hint, "identity": identity, "annotations": self.annotations,
        });
        Algorithm::Sha256.hash(content.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::signing::signer::test_signing::sign_text;

    const KEY: &[u8] = include_bytes!("../../../../tests/vectors/signing/cosign/p256.pem");
    const OTHER: &[u8] = include_bytes!("../../../../tests/vectors/signing/cosign/ed25519.pem");

    fn signer(key: &[u8], annotations: &[(&str, &str)]) -> CosignSigner {
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        CosignSigner::open(key, None, annotations.collect()).unwrap()
    }

    #[test]
    fn the_text_has_the_bytes_of_cosign() {
        let subject = Digest::sha256(b"image");
        let text = |annotations| {
            String::from_utf8(signer(KEY, annotations).text("r.example.com/a:v1", &subject))
                .unwrap()
        };
        let head = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.example.com/a:v1"}},"image":{{"docker-manifest-digest":"{subject}"}},"type":"cosign container image signature"}},"optional":"#
        );
        assert_eq!(text(&[]), format!("{head}null}}"));
        assert_eq!(
            text(&[("b", "<&>"), ("a", "1")]),
            format!(r#"{head}{{"a":"1","b":"\u003c\u0026\u003e"}}}}"#)
        );
    }

    #[test]
    fn equal_is_the_same_statement_by_the_same_key_in_any_bytes() {
        let (subject, other) = (Digest::sha256(b"image"), Digest::sha256(b"other"));
        let ours = signer(KEY, &[]);
        let TagSignature { layer, text } = sign_text(&ours, "r/a:v1", &subject);
        assert!(ours.is_equal_layer(&layer, &text, "r/a:v1", &subject));
        assert!(!ours.is_equal_layer(&layer, &text, "r/a", &subject));
        assert!(!ours.is_equal_layer(&layer, &text, "r/a:v1", &other));
        assert!(!ours.is_equal_layer(&layer, b"{}", "r/a:v1", &subject));
        for foreign in [signer(OTHER, &[]), signer(KEY, &[("a", "1")])] {
            assert!(!foreign.is_equal_layer(&layer, &text, "r/a:v1", &subject));
        }
        assert!(ours.made_layer(&layer, &text) && !signer(OTHER, &[]).made_layer(&layer, &text));
        let spaced = [b" ".as_slice(), &text].concat();
        let signature = STANDARD.encode(ours.key.sign_one(&spaced));
        let spaced_layer = SignatureLayer::new(&spaced, signature);
        assert!(ours.is_equal_layer(&spaced_layer, &spaced, "r/a:v1", &subject));
        assert_ne!(layer.id(), spaced_layer.id());
    }
}
