//! Signatures in the format of cosign 3: an in-toto statement in a DSSE envelope in a Sigstore bundle, attached as a referrer.
//!
//! A signature is a statement with an empty predicate. Makes bundles and recognises those that state the same with the same key. Unless
//! the signer publishes, a bundle has no transparency log entry and no timestamp, so verifiers need the option to ignore the log.
//! [`simple`] has the format of the signature tag, and [`statement`] the statements.

mod canonical;
mod keyless;
mod publication;
mod simple;
mod statement;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sigstore_verify::types::TransparencyLogEntry;
use sigstore_verify::types::bundle::TimestampVerificationData;

use affix_registry::oci::media_type::SIGSTORE_BUNDLE as BUNDLE;
use affix_registry::oci::{Algorithm, Descriptor, Digest, ImageManifest};

use super::dsse::{Envelope, pre_authentication_encoding};
use crate::signing::error::KeyError;
use crate::signing::inspection::MAX_INSPECTED_BYTES;
use crate::signing::keys::CosignKey;
use crate::signing::kms::SigningError;
use crate::signing::signer::{Shape, Signature, Signed, Signer, TagSigner};
use crate::signing::sigstore::{Evidence, Publisher};

use publication::Publication;

pub use keyless::KeylessSigner;

pub use statement::{
    MAX_PREDICATE_BYTES, MAX_STATEMENT_BYTES, Predicate, PredicateError, SignedStatement,
    UnsignedStatement,
};

const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The type of the empty predicate of a signature.
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Signs like `cosign sign --key` or `cosign attest --key`, with an RSA, ECDSA or Ed25519 key. It has no `Debug`, because it holds the
/// key.
pub struct CosignSigner {
    key: Arc<CosignKey>,
    hint: String,
    annotations: BTreeMap<String, String>,
    /// The statement about each subject.
    predicate: Predicate,
    shape: Shape,
    publication: Option<Publication>,
}

/// Returns the shape of a bundle around a statement.
fn shape_of(predicate: &Predicate) -> Shape {
    let annotation = |key: &str, value: &str| (format!("dev.sigstore.bundle.{key}"), value.into());
    Shape {
        artifact_type: Some(BUNDLE),
        config: Descriptor::empty(),
        layer_media_type: BUNDLE,
        max_layer_bytes: match predicate.kind() {
            SIGNATURE => MAX_INSPECTED_BYTES,
            _ => MAX_STATEMENT_BYTES,
        } as u64,
        annotations: BTreeMap::from([
            annotation("content", "dsse-envelope"),
            annotation("predicateType", predicate.kind()),
        ]),
    }
}

impl CosignSigner {
    /// Opens the key of a Secret that `cosign generate-key-pair k8s://…` wrote. The signer states the empty predicate of a signature. The
    /// `annotations` go into each statement, like those of `cosign sign -a`.
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
        Self::new(CosignKey::open(key, password)?, annotations)
    }

    /// Returns a signer with an open key.
    pub(in crate::signing) fn new(
        key: CosignKey,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self, KeyError> {
        let hint = STANDARD.encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            key.public_der(),
        ));
        let predicate = Predicate::parse(SIGNATURE, b"{}").map_err(|_| KeyError::Unable)?;
        Ok(Self {
            key: Arc::new(key),
            hint,
            annotations,
            shape: shape_of(&predicate),
            predicate,
            publication: None,
        })
    }

    /// Returns the DER of the public key, a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        self.key.public_der()
    }

    fn statement(&self, subject: &Descriptor) -> Result<Vec<u8>, KeyError> {
        statement::statement(&subject.digest, &self.annotations, &self.predicate)
            .ok_or(KeyError::Unable)
    }

    fn is_signature(&self) -> bool {
        self.predicate.kind() == SIGNATURE
    }
}

impl Signer for CosignSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn message(&self, subject: &Descriptor, _at: Timestamp) -> Result<Vec<u8>, KeyError> {
        let statement = self.statement(subject)?;
        Ok(pre_authentication_encoding(IN_TOTO, &statement))
    }

    fn attachment(
        &self,
        subject: &Descriptor,
        at: Timestamp,
        signed: &Signed,
    ) -> Result<Signature, SigningError> {
        let statement = self.statement(subject)?;
        let bundle = Bundle::new(Some(&self.hint), &statement, signed).bytes();
        if let Some(publication) = &self.publication {
            publication.verify(&bundle, self.key.public_der(), &subject.digest)?;
        }
        Ok(self.shape.to_signature(bundle, subject, at))
    }

    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Vec<Result<Signed, SigningError>>> {
        async move {
            let signatures = self.key.sign(messages).await;
            let Some(publication) = &self.publication else {
                return signatures
                    .into_iter()
                    .map(|signature| signature.map(Signed::from))
                    .collect();
            };
            let published = messages.iter().zip(signatures);
            let published = published.map(|(message, signature)| async move {
                publication.publish(&self.key, message, signature?).await
            });
            join_all(published).await
        }
        .boxed()
    }

    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        _now: Timestamp,
    ) -> bool {
        self.shape.fits(manifest, &subject.digest)
            && Shape::has_layer(manifest, layer)
            && SignedStatement::parse(layer).is_some_and(|found| {
                found.hint == self.hint
                    && found.states(&subject.digest, &self.annotations, &self.predicate)
                    && found
                        .verifies_with(|message, signature| self.key.verifies(message, signature))
            })
            && self.publication.as_ref().is_none_or(|publication| {
                publication
                    .verify(layer, self.key.public_der(), &subject.digest)
                    .is_ok()
            })
    }

    fn stating(&self, predicate: &Predicate) -> Option<Arc<dyn Signer>> {
        Some(Arc::new(Self {
            key: Arc::clone(&self.key),
            hint: self.hint.clone(),
            annotations: self.annotations.clone(),
            predicate: predicate.clone(),
            shape: shape_of(predicate),
            publication: self.publication.clone(),
        }))
    }

    fn publishing(&self, publisher: Arc<Publisher>) -> Result<Arc<dyn Signer>, KeyError> {
        Ok(Arc::new(Self {
            key: Arc::clone(&self.key),
            hint: self.hint.clone(),
            annotations: self.annotations.clone(),
            predicate: self.predicate.clone(),
            shape: self.shape.clone(),
            publication: Some(Publication::new(publisher, self.key.public_der())?),
        }))
    }

    fn tag_signer(&self) -> Option<&dyn TagSigner> {
        (self.is_signature() && self.publication.is_none()).then_some(self as &dyn TagSigner)
    }

    fn key_id(&self) -> Digest {
        Digest::sha256(self.key.public_der())
    }

    fn fingerprint(&self) -> Digest {
        let mut content = serde_json::json!({"signature": BUNDLE, "publicKey": self.hint, "annotations": self.annotations});
        if let (Some(content), false) = (content.as_object_mut(), self.is_signature()) {
            let hash = self.predicate.hash().to_string();
            content.insert("predicateType".to_owned(), self.predicate.kind().into());
            content.insert("predicate".to_owned(), hash.into());
        }
        if let (Some(content), Some(publication)) = (content.as_object_mut(), &self.publication) {
            let id = publication.instance_id().to_string();
            content.insert("transparency".to_owned(), id.into());
        }
        Algorithm::Sha256.hash(content.to_string().as_bytes())
    }
}

/// A Sigstore bundle (sigstore/protobuf-specs, `sigstore_bundle.proto`) around a DSSE envelope. Only the fields that tell a bundle of
/// the key from others are parsed.
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
    /// Absent in a bundle with a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKeyIdentifier>,
    /// That of a signature without a key.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    certificate: Option<RawBytes>,
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<TransparencyLogEntry>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<TimestampVerificationData>,
}

#[derive(Serialize, Deserialize)]
struct PublicKeyIdentifier {
    /// Base64 of the SHA-256 of the DER of the public key.
    #[serde(default)]
    hint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RawBytes {
    /// DER in base64.
    raw_bytes: String,
}

impl Bundle {
    fn new(hint: Option<&str>, payload: &[u8], signed: &Signed) -> Self {
        let (tlog_entries, timestamp_verification_data) = match &signed.evidence {
            Some(Evidence {
                entries,
                timestamps,
            }) => (entries.clone(), Some(timestamps.clone())),
            None => (Vec::new(), None),
        };
        Self {
            media_type: BUNDLE.to_owned(),
            verification_material: VerificationMaterial {
                public_key: hint.map(|hint| PublicKeyIdentifier {
                    hint: hint.to_owned(),
                }),
                certificate: signed.certificate.as_ref().map(|der| RawBytes {
                    raw_bytes: STANDARD.encode(der),
                }),
                tlog_entries,
                timestamp_verification_data,
            },
            dsse_envelope: Envelope::new(IN_TOTO, payload, &signed.signature),
        }
    }

    fn hint(&self) -> String {
        let key = self.verification_material.public_key.as_ref();
        key.map(|key| key.hint.clone()).unwrap_or_default()
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
