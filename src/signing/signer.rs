//! What the engine needs of a signer, whatever the key is.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;

use affix_registry::oci::{Descriptor, Digest, ImageManifest, annotation, media_type, most_values};

use super::error::KeyError;

/// Makes signatures of one shape with one key, and knows them again.
pub trait Signer: Send + Sync {
    /// What the attachments of this signer look like.
    fn shape(&self) -> &Shape;

    /// Signs `subject` at the time `at`, of which only whole seconds count.
    ///
    /// # Errors
    /// When the key's certificates do not hold at that time, or the key cannot sign.
    fn sign(&self, subject: &Descriptor, at: Timestamp) -> Result<Signature, KeyError>;

    /// Whether an attachment is as good as a signature that this signer would make `now`: of its [`Shape`], saying the same,
    /// verifying under this key for `subject`, and not in the last third of its life. `layer` is the content of its one layer.
    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        now: Timestamp,
    ) -> bool;

    /// A hash of all that makes this signer's signatures what they are: it changes with the key, the certificates, the
    /// annotations and the expiry, and with nothing else. It holds no secret.
    fn fingerprint(&self) -> Digest;

    /// How long after it was made a signature counts as equal no more; `None` where it has no expiry.
    fn renewal(&self) -> Option<Duration> {
        None
    }

    /// When verifiers stop taking this signer's signatures although they have no expiry: without a timestamp a signature ends
    /// with its certificates. `None` where there are none.
    fn ends(&self) -> Option<Timestamp> {
        None
    }
}

/// The manifest of an attachment that holds a signature, but for what differs from one signature to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The manifest's own artifact type; absent where listings know it by its config.
    pub artifact_type: Option<&'static str>,
    /// The config, whose content is `{}`.
    pub config: Descriptor,
    /// Media type of the one layer.
    pub layer_media_type: &'static str,
    /// The manifest's annotations, without `created`, which is the time of signing.
    pub annotations: BTreeMap<String, String>,
}

impl Shape {
    /// The artifact type by which listings know the attachment.
    #[must_use]
    pub fn listed_artifact_type(&self) -> &str {
        self.artifact_type.unwrap_or(&self.config.media_type)
    }

    /// Whether `manifest` is of this shape and attached to `subject`, so that its layer is worth a look.
    #[must_use]
    pub fn fits(&self, manifest: &ImageManifest, subject: &Digest) -> bool {
        let theirs = || {
            manifest
                .annotations
                .iter()
                .filter(|(key, _)| *key != annotation::CREATED)
        };
        manifest.effective_artifact_type() == self.listed_artifact_type()
            && manifest.config.media_type == self.config.media_type
            && manifest.config.digest == self.config.digest
            && manifest
                .subject
                .as_ref()
                .is_some_and(|theirs| theirs.digest == *subject)
            && theirs().eq(self.annotations.iter())
            && matches!(manifest.layers.as_slice(), [layer] if layer.media_type == self.layer_media_type)
    }

    /// Whether `layer` is the content of the one layer of `manifest`.
    pub(super) fn holds(manifest: &ImageManifest, layer: &[u8]) -> bool {
        matches!(manifest.layers.as_slice(), [only] if only.size == layer.len() as u64 && only.digest.matches(layer))
    }

    /// The signature as an attachment of `subject`.
    pub(super) fn around(&self, layer: Vec<u8>, subject: &Descriptor, at: Timestamp) -> Signature {
        let mut annotations = self.annotations.clone();
        annotations.insert(annotation::CREATED.to_owned(), seconds(at));
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: self.artifact_type.map(str::to_owned),
            config: self.config.clone(),
            layers: vec![Descriptor::of(self.layer_media_type, &layer)],
            subject: Some(subject.stripped()),
            annotations,
        };
        Signature { layer, manifest }
    }
}

/// A signature, ready to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The content of the one layer.
    pub layer: Vec<u8>,
    /// The manifest around it, with the time of signing as `created`. Its config is the blob `{}`.
    pub manifest: ImageManifest,
}

/// An instant as signatures write it: RFC 3339, whole seconds, UTC.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Most values of a part of a signature that is compared with ours.
const MOST_VALUES: usize = 1000;

/// A part of somebody's signature, where it is of this form and of no more values than a signature has use for: what is not equal
/// anyway costs no memory.
pub(super) fn read_part<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    (most_values(bytes) <= MOST_VALUES)
        .then(|| serde_json::from_slice(bytes).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_signature_is_read_up_to_a_thousand_values() {
        let list = |values: usize| format!("[{}]", vec!["0"; values].join(","));
        assert_eq!(
            read_part::<Vec<u8>>(list(MOST_VALUES).as_bytes()),
            Some(vec![0; MOST_VALUES])
        );
        assert_eq!(read_part::<Vec<u8>>(list(MOST_VALUES + 1).as_bytes()), None);
    }
}
