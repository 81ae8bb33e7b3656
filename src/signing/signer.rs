//! The interface of a signer to the engine, and the manifest around a signature.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;

use affix_registry::SignatureLayer;
use affix_registry::oci::{Descriptor, Digest, ImageManifest, annotation, media_type, value_bound};

use super::error::KeyError;
use super::formats::Predicate;
use super::kms::SigningError;
use super::sigstore::{Evidence, Publisher};
use super::time::to_rfc3339;
use super::timestamps::Timestamper;

/// Makes signatures of one format with one key, and recognises equal ones.
pub trait Signer: Send + Sync {
    /// Returns the parts that all attachments of this signer have in common.
    fn shape(&self) -> &Shape;

    /// Returns the message that the key signs for an attachment of `subject` at the time `at`, in whole seconds.
    ///
    /// # Errors
    /// Fails if the certificates of the key are not valid at that time.
    fn message(&self, subject: &Descriptor, at: Timestamp) -> Result<Vec<u8>, KeyError>;

    /// Returns the attachment with a signature over its [`message`](Self::message).
    ///
    /// # Errors
    /// As for `message`. Fails if the evidence of the signature does not verify.
    fn attachment(
        &self,
        subject: &Descriptor,
        at: Timestamp,
        signed: &Signed,
    ) -> Result<Signature, SigningError>;

    /// Signs messages of this signer, of its [`TagSigner`], and of signers that state other predicates with the same key. A service
    /// signs all of them at once. Returns a result for each message, in their order.
    fn sign<'a>(
        &'a self,
        messages: &'a [Vec<u8>],
    ) -> BoxFuture<'a, Vec<Result<Signed, SigningError>>>;

    /// Returns true if an attachment makes a new signature at `now` unnecessary.
    ///
    /// It has the [`Shape`] and the statement of this signer, verifies with this key for `subject`, and is not in the last
    /// third of its validity. `layer` is the content of its one layer.
    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        now: Timestamp,
    ) -> bool;

    /// Returns a hash of all inputs of this signer: the key, the certificates, the annotations and the expiry. It changes
    /// with nothing else and reveals no secret.
    fn fingerprint(&self) -> Digest;

    /// Returns the digest of the public key, or of the certificate for it. Verifiers show the same one.
    fn key_id(&self) -> Digest;

    /// Returns a signer that states `predicate` with the same key, or `None` if the format has no predicates.
    fn stating(&self, predicate: &Predicate) -> Option<Arc<dyn Signer>> {
        let _ = predicate;
        None
    }

    /// Returns a signer with the same key whose signatures are logged and timestamped.
    ///
    /// # Errors
    /// Fails if transparency logs do not take signatures of this kind of key or format.
    fn publishing(&self, publisher: Arc<Publisher>) -> Result<Arc<dyn Signer>, KeyError> {
        let _ = publisher;
        Err(KeyError::NotLogged)
    }

    /// Returns a signer with the same key whose signatures are timestamped, or `None` if the format takes timestamps in another way.
    fn timestamping(&self, timestamper: Arc<Timestamper>) -> Option<Arc<dyn Signer>> {
        let _ = timestamper;
        None
    }

    /// Returns the signer for the signature tag, or `None` if there is no such tag for this kind of key.
    fn tag_signer(&self) -> Option<&dyn TagSigner> {
        None
    }

    /// Returns the age at which a signature must be renewed, or `None` if it has no expiry.
    fn renewal(&self) -> Option<Duration> {
        None
    }

    /// Returns the time from which verifiers refuse the signatures, or `None` if the key has no certificates.
    ///
    /// A signature without a timestamp is valid until its certificates end, also if it has no expiry.
    fn ends(&self) -> Option<Timestamp> {
        None
    }
}

/// Makes signatures for the signature tag, and recognises equal ones. `identity` is the name of the image in the signed text.
pub trait TagSigner: Send + Sync {
    /// Returns the message that the key signs for `subject`, which is the content of the layer.
    fn text(&self, identity: &str, subject: &Digest) -> Vec<u8>;

    /// Returns the layer with a signature over its [`text`](Self::text).
    fn layer(&self, identity: &str, subject: &Digest, signed: &Signed) -> TagSignature;

    /// Returns true if `layer` with the content `text` makes a new signature unnecessary: it verifies with this key and states the
    /// same.
    fn is_equal_layer(
        &self,
        layer: &SignatureLayer,
        text: &[u8],
        identity: &str,
        subject: &Digest,
    ) -> bool;

    /// Returns true if this key made the signature in `layer` over `text`.
    fn made_layer(&self, layer: &SignatureLayer, text: &[u8]) -> bool;

    /// Returns a hash of the public key, the identity and the annotations. It changes with nothing else and reveals no secret.
    fn tag_fingerprint(&self, identity: &str) -> Digest;
}

/// A signature over a message of a signer.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    pub(super) signature: Vec<u8>,
    /// The DER of the certificate of an ephemeral key.
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) evidence: Option<Evidence>,
    /// The token of a timestamp authority over the signature.
    pub(super) timestamp: Option<Vec<u8>>,
}

impl From<Vec<u8>> for Signed {
    fn from(signature: Vec<u8>) -> Self {
        Self {
            signature,
            certificate: None,
            evidence: None,
            timestamp: None,
        }
    }
}

/// A signature for the signature tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagSignature {
    /// The layer.
    pub layer: SignatureLayer,
    /// The content of the layer: the signed text.
    pub text: Vec<u8>,
}

/// The parts of a signature's manifest that are the same for every signature of one signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The artifact type of the manifest, or `None` if listings show the media type of the config.
    pub artifact_type: Option<&'static str>,
    /// The descriptor of the config. Its content is `{}`.
    pub config: Descriptor,
    /// The media type of the one layer.
    pub layer_media_type: &'static str,
    /// The size up to which the layer of another writer is read, in bytes.
    pub max_layer_bytes: u64,
    /// The annotations of the manifest except `created`, which is the time of signing.
    pub annotations: BTreeMap<String, String>,
}

impl Shape {
    /// Returns the artifact type that listings show.
    #[must_use]
    pub fn listed_artifact_type(&self) -> &str {
        self.artifact_type.unwrap_or(&self.config.media_type)
    }

    /// Returns true if `manifest` has this shape and is attached to `subject`.
    #[must_use]
    pub fn fits(&self, manifest: &ImageManifest, subject: &Digest) -> bool {
        let annotations = manifest
            .annotations
            .iter()
            .filter(|(key, _)| *key != annotation::CREATED);
        manifest.effective_artifact_type() == self.listed_artifact_type()
            && manifest.config.media_type == self.config.media_type
            && manifest.config.digest == self.config.digest
            && manifest
                .subject
                .as_ref()
                .is_some_and(|stated| stated.digest == *subject)
            && annotations.eq(self.annotations.iter())
            && manifest.skipped.is_empty()
            && matches!(manifest.layers.as_slice(), [layer] if layer.media_type == self.layer_media_type)
    }

    /// Returns true if `layer` is the content of the one layer of `manifest`.
    pub(super) fn has_layer(manifest: &ImageManifest, layer: &[u8]) -> bool {
        matches!(manifest.layers.as_slice(), [only] if only.size == layer.len() as u64 && only.digest.matches(layer))
    }

    /// Returns the signature in `layer` as an attachment of `subject`.
    pub(super) fn to_signature(
        &self,
        layer: Vec<u8>,
        subject: &Descriptor,
        at: Timestamp,
    ) -> Signature {
        let mut annotations = self.annotations.clone();
        annotations.insert(annotation::CREATED.to_owned(), to_rfc3339(at));
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: self.artifact_type.map(str::to_owned),
            config: self.config.clone(),
            layers: vec![Descriptor::of(self.layer_media_type, &layer)],
            skipped: Vec::new(),
            subject: Some(subject.stripped()),
            annotations,
        };
        Signature { layer, manifest }
    }
}

/// A signature that is ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The content of the one layer.
    pub layer: Vec<u8>,
    /// The manifest, with the time of signing as `created`. Its config is the blob `{}`.
    pub manifest: ImageManifest,
}

/// The maximum number of JSON values in a part of a signature.
const MAX_VALUES: usize = 1000;

/// Parses a part of a signature from the registry, or returns `None` if it has another form or more than [`MAX_VALUES`].
pub(super) fn parse_part<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    (value_bound(bytes) <= MAX_VALUES)
        .then(|| serde_json::from_slice(bytes).ok())
        .flatten()
}

#[cfg(test)]
pub(super) mod test_signing {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    /// Returns an attachment with a signature.
    pub(in crate::signing) fn sign(
        signer: &dyn Signer,
        subject: &Descriptor,
        at: Timestamp,
    ) -> Result<Signature, SigningError> {
        let messages = [signer.message(subject, at)?];
        let mut signatures = futures::executor::block_on(signer.sign(&messages));
        signer.attachment(subject, at, &signatures.remove(0).unwrap())
    }

    /// Returns a layer of the signature tag with a signature.
    pub(in crate::signing) fn sign_text(
        signer: &dyn Signer,
        identity: &str,
        subject: &Digest,
    ) -> TagSignature {
        let tag_signer = signer.tag_signer().unwrap();
        let messages = [tag_signer.text(identity, subject)];
        let mut signatures = futures::executor::block_on(signer.sign(&messages));
        tag_signer.layer(identity, subject, &signatures.remove(0).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_signature_is_parsed_up_to_a_thousand_values() {
        let list = |values: usize| format!("[{}]", vec!["0"; values].join(","));
        assert_eq!(
            parse_part::<Vec<u8>>(list(MAX_VALUES).as_bytes()),
            Some(vec![0; MAX_VALUES])
        );
        assert_eq!(parse_part::<Vec<u8>>(list(MAX_VALUES + 1).as_bytes()), None);
    }
}
