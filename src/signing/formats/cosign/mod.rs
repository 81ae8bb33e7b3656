//! Signatures in the format of cosign 3: an in-toto statement in a DSSE envelope in a Sigstore bundle, attached as a referrer.
//!
//! Makes bundles and recognises those that state the same with the same key. A bundle has no transparency log entry and no
//! timestamp, so verifiers need the option to ignore the log. [`simple`] has the format of the signature tag.

mod simple;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use affix_registry::oci::media_type::SIGSTORE_BUNDLE as BUNDLE;
use affix_registry::oci::{Algorithm, Descriptor, Digest, ImageManifest};

use super::dsse::{Envelope, pre_authentication_encoding};
use crate::signing::error::KeyError;
use crate::signing::keys::CosignKey;
use crate::signing::signer::{Shape, Signature, Signer, TagSigner, parse_part};

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Signs like `cosign sign --key`, with an RSA, ECDSA or Ed25519 key. It has no `Debug`, because it holds the key.
pub struct CosignSigner {
    key: CosignKey,
    hint: String,
    annotations: BTreeMap<String, String>,
    shape: Shape,
}

impl CosignSigner {
    /// Opens the key of a Secret that `cosign generate-key-pair k8s://…` wrote. The `annotations` go into each statement, like
    /// those of `cosign sign -a`.
    ///
    /// An encrypted key takes 150 to 200 ms and 64 MiB to open, and the process opens one at a time. Call this function on a
    /// thread that can block, and reuse the signer until the Secret changes.
    ///
    /// # Errors
    /// Fails if the file is malformed, the password is wrong or the kind of the key is not supported.
    pub fn open(
        key: &[u8],
        password: Option<&[u8]>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self, KeyError> {
        let key = CosignKey::open(key, password)?;
        let hint = STANDARD.encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            key.public_der(),
        ));
        let shape = Shape {
            artifact_type: Some(BUNDLE),
            config: Descriptor::empty(),
            layer_media_type: BUNDLE,
            annotations: BTreeMap::from([
                (
                    "dev.sigstore.bundle.content".to_owned(),
                    "dsse-envelope".to_owned(),
                ),
                (
                    "dev.sigstore.bundle.predicateType".to_owned(),
                    PREDICATE.to_owned(),
                ),
            ]),
        };
        Ok(Self {
            key,
            hint,
            annotations,
            shape,
        })
    }

    /// Returns the DER of the public key, a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        self.key.public_der()
    }

    /// Returns true if `statement` is the one of this signer about `subject`.
    fn is_own_statement(&self, statement: &Statement, subject: &Digest) -> bool {
        let [stated] = statement.subject.as_slice() else {
            return false;
        };
        statement.kind == STATEMENT
            && statement.predicate_type == PREDICATE
            && statement.predicate.is_empty()
            && stated
                .digest
                .get(subject.algorithm().as_str())
                .is_some_and(|hex| hex == subject.hex())
            && stated.annotations == self.annotations
    }
}

impl Signer for CosignSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn sign(&self, subject: &Descriptor, at: Timestamp) -> Result<Signature, KeyError> {
        let statement = Statement::new(&subject.digest, &self.annotations).bytes();
        let signature = self
            .key
            .sign(&pre_authentication_encoding(IN_TOTO, &statement))?;
        Ok(self.shape.to_signature(
            Bundle::new(&self.hint, &statement, &signature).bytes(),
            subject,
            at,
        ))
    }

    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        _now: Timestamp,
    ) -> bool {
        if !self.shape.fits(manifest, &subject.digest) || !Shape::has_layer(manifest, layer) {
            return false;
        }
        let Some(bundle) = parse_part::<Bundle>(layer) else {
            return false;
        };
        let Some((payload, signature)) = bundle.dsse_envelope.open() else {
            return false;
        };
        let Some(statement) = parse_part::<Statement>(&payload) else {
            return false;
        };
        bundle.media_type == BUNDLE
            && bundle.verification_material.public_key.hint == self.hint
            && bundle.dsse_envelope.payload_type == IN_TOTO
            && self.is_own_statement(&statement, &subject.digest)
            && self
                .key
                .verifies(&pre_authentication_encoding(IN_TOTO, &payload), &signature)
    }

    fn tag_signer(&self) -> Option<&dyn TagSigner> {
        Some(self)
    }

    fn key_id(&self) -> Digest {
        Digest::sha256(self.key.public_der())
    }

    fn fingerprint(&self) -> Digest {
        let content = serde_json::json!({"signature": BUNDLE, "publicKey": self.hint, "annotations": self.annotations});
        Algorithm::Sha256.hash(content.to_string().as_bytes())
    }
}

/// An in-toto statement (in-toto attestation, statement.md) without a predicate, with the fields in cosign's order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    predicate: Map<String, Value>,
}

/// The subject of a statement.
#[derive(Serialize, Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Statement {
    fn new(subject: &Digest, annotations: &BTreeMap<String, String>) -> Self {
        Self {
            kind: STATEMENT.to_owned(),
            subject: vec![Subject {
                digest: BTreeMap::from([(
                    subject.algorithm().as_str().to_owned(),
                    subject.hex().to_owned(),
                )]),
                annotations: annotations.clone(),
            }],
            predicate_type: PREDICATE.to_owned(),
            predicate: Map::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A Sigstore bundle (sigstore/protobuf-specs, `sigstore_bundle.proto`) around a DSSE envelope. Other fields, for example log
/// entries, are ignored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: VerificationMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationMaterial {
    public_key: PublicKeyIdentifier,
}

#[derive(Serialize, Deserialize)]
struct PublicKeyIdentifier {
    /// Base64 of the SHA-256 of the DER of the public key.
    hint: String,
}

impl Bundle {
    fn new(hint: &str, payload: &[u8], signature: &[u8]) -> Self {
        Self {
            media_type: BUNDLE.to_owned(),
            verification_material: VerificationMaterial {
                public_key: PublicKeyIdentifier {
                    hint: hint.to_owned(),
                },
            },
            dsse_envelope: Envelope::new(IN_TOTO, payload, signature),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
