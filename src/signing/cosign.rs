//! Signatures as cosign 3 makes them: an in-toto statement in a DSSE envelope in a Sigstore bundle, attached as a referrer.
//!
//! Owns the statement's and the bundle's bytes, and telling whether a bundle that is there says the same under the same key. It
//! writes no transparency log entry and no timestamp, so verifiers are told to ignore the log.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::oci::{Algorithm, Descriptor, Digest, ImageManifest};

use super::cosign_key::CosignKey;
use super::dsse::{Envelope, pre_authentication_encoding};
use super::error::KeyError;
use super::signer::{Shape, Signature, Signer};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Signs as `cosign sign --key` does, with an ECDSA P-256 or an Ed25519 key. No `Debug`: it holds the key.
pub struct CosignSigner {
    key: CosignKey,
    hint: String,
    annotations: BTreeMap<String, String>,
    shape: Shape,
}

impl CosignSigner {
    /// Opens the key of a Secret as `cosign generate-key-pair k8s://…` writes it; `annotations` go into each statement, as those
    /// of `cosign sign -a` do.
    ///
    /// An encrypted key takes 150 to 200 ms and 64 MiB to open, and only one is opened at a time: call it where blocking does no
    /// harm, and keep what it returns for as long as the Secret does not change.
    ///
    /// # Errors
    /// When the file, the password or the kind of key does not fit.
    pub fn open(key: &[u8], password: Option<&[u8]>, annotations: BTreeMap<String, String>) -> Result<Self, KeyError> {
        let key = CosignKey::open(key, password)?;
        let hint = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.public_der()));
        let shape = Shape {
            artifact_type: Some(BUNDLE),
            config: Descriptor::empty(),
            layer_media_type: BUNDLE,
            annotations: BTreeMap::from([
                ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
                ("dev.sigstore.bundle.predicateType".to_owned(), PREDICATE.to_owned()),
            ]),
        };
        Ok(Self { key, hint, annotations, shape })
    }

    /// DER of the public half, a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        self.key.public_der()
    }

    /// Whether `statement` says about `subject` what this signer would say.
    fn says_the_same(&self, statement: &Statement, subject: &Digest) -> bool {
        let [about] = statement.subject.as_slice() else { return false };
        statement.kind == STATEMENT
            && statement.predicate_type == PREDICATE
            && statement.predicate.is_empty()
            && about.digest.get(subject.algorithm().as_str()).is_some_and(|hex| hex == subject.hex())
            && about.annotations == self.annotations
    }
}

impl Signer for CosignSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn sign(&self, subject: &Descriptor, at: Timestamp) -> Result<Signature, KeyError> {
        let statement = Statement::about(&subject.digest, &self.annotations).bytes();
        let signature = self.key.sign(&pre_authentication_encoding(IN_TOTO, &statement))?;
        Ok(self.shape.around(Bundle::new(&self.hint, &statement, &signature).bytes(), subject, at))
    }

    fn is_equal(&self, manifest: &ImageManifest, layer: &[u8], subject: &Descriptor, _now: Timestamp) -> bool {
        if !self.shape.fits(manifest, &subject.digest) || !Shape::holds(manifest, layer) {
            return false;
        }
        let Ok(bundle) = serde_json::from_slice::<Bundle>(layer) else { return false };
        let Some((payload, signature)) = bundle.dsse_envelope.open() else { return false };
        let Ok(statement) = serde_json::from_slice::<Statement>(&payload) else { return false };
        bundle.media_type == BUNDLE
            && bundle.verification_material.public_key.hint == self.hint
            && bundle.dsse_envelope.payload_type == IN_TOTO
            && self.says_the_same(&statement, &subject.digest)
            && self.key.verifies(&pre_authentication_encoding(IN_TOTO, &payload), &signature)
    }

    fn fingerprint(&self) -> Digest {
        let content = serde_json::json!({"signature": BUNDLE, "publicKey": self.hint, "annotations": self.annotations});
        Algorithm::Sha256.hash(content.to_string().as_bytes())
    }
}

/// An in-toto statement (in-toto attestation, statement.md) without a predicate, in cosign's order of fields.
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

/// What a statement is about.
#[derive(Serialize, Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Statement {
    fn about(subject: &Digest, annotations: &BTreeMap<String, String>) -> Self {
        Self {
            kind: STATEMENT.to_owned(),
            subject: vec![Subject {
                digest: BTreeMap::from([(subject.algorithm().as_str().to_owned(), subject.hex().to_owned())]),
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

/// A Sigstore bundle (sigstore/protobuf-specs, `sigstore_bundle.proto`) around a DSSE envelope. What else a bundle may carry, such
/// as entries of a log, adds to it and is not looked at.
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
    /// Base64 of the SHA-256 of the public key's DER.
    hint: String,
}

impl Bundle {
    fn new(hint: &str, payload: &[u8], signature: &[u8]) -> Self {
        Self {
            media_type: BUNDLE.to_owned(),
            verification_material: VerificationMaterial { public_key: PublicKeyIdentifier { hint: hint.to_owned() } },
            dsse_envelope: Envelope::new(IN_TOTO, payload, signature),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
