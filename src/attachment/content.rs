//! The bytes of an attachment: the manifest that `oras attach` writes (image-spec, manifest.md, "Guidelines for Artifact
//! Usage"), as a pure function of the content, the subject and the `created` time.

use std::collections::BTreeMap;

use bytes::Bytes;

use affix_registry::oci::{
    ArtifactType, Descriptor, Digest, ImageManifest, annotation, media_type,
};

use super::files::{File, FileError, FileTarget};
use super::image::Entry;
use super::selection::SelectedEntry;
use super::time::Created;

/// The content of a resource for all targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The artifact type.
    pub artifact_type: ArtifactType,
    /// The annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The files, one layer each, in order.
    pub files: Vec<File>,
}

impl Content {
    /// Returns the content for one target: the files for every target and the files for this one.
    ///
    /// # Errors
    /// Fails if all files are for other targets, or if two files have the same name.
    pub fn for_target(&self, entry: &Entry) -> Result<TargetContent, FileError> {
        let files: Vec<&File> = self
            .files
            .iter()
            .filter(|file| file.target.covers(entry))
            .collect();
        if files.is_empty()
            && self
                .files
                .iter()
                .any(|file| file.target != FileTarget::Every)
        {
            return Err(FileError::Uncovered {
                target: describe(entry),
            });
        }
        for (nth, file) in files.iter().enumerate() {
            if files
                .iter()
                .take(nth)
                .any(|earlier| earlier.title == file.title)
            {
                return Err(FileError::TwoOfOneName {
                    name: file.title.clone(),
                    target: describe(entry),
                });
            }
        }
        Ok(TargetContent {
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
            layers: files.iter().map(|file| file.layer()).collect(),
            blobs: files.iter().map(|file| file.bytes.clone()).collect(),
        })
    }

    /// Returns a warning for each file that no selected target gets.
    #[must_use]
    pub fn idle_files(&self, chosen: &[SelectedEntry<'_>]) -> Vec<String> {
        let targets: Vec<&Entry> = chosen
            .iter()
            .filter(|chosen| chosen.skip.is_none())
            .map(|chosen| chosen.entry)
            .collect();
        self.files
            .iter()
            .filter(|file| !targets.iter().any(|entry| file.target.covers(entry)))
            .map(|file| {
                format!(
                    "the file {:?} is for {}, which is not one of the targets",
                    file.title, file.target
                )
            })
            .collect()
    }
}

/// Returns a target for messages: its platform, or `index`, with its digest.
pub(super) fn describe(entry: &Entry) -> String {
    format!(
        "{} ({})",
        entry.platform().unwrap_or_else(|| "index".to_owned()),
        entry.subject.digest
    )
}

/// The content for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetContent {
    /// The artifact type.
    pub artifact_type: ArtifactType,
    /// The annotations of the spec.
    pub annotations: BTreeMap<String, String>,
    /// The layers, one per file. If there are none, the manifest has the empty descriptor as its layer.
    pub layers: Vec<Descriptor>,
    /// The bytes of the layers, in the same order.
    pub blobs: Vec<Bytes>,
}

/// A complete attachment: the bytes of its manifest and its listing entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The bytes of the manifest.
    pub bytes: Bytes,
    /// The listing entry: media type, digest, size, artifact type and all annotations (distribution-spec, "Listing
    /// Referrers").
    pub listed: Descriptor,
}

impl Attachment {
    /// Encodes a manifest.
    #[must_use]
    pub fn from_manifest(manifest: &ImageManifest) -> Self {
        let bytes = serde_json::to_vec(manifest).unwrap_or_default();
        let listed = Descriptor {
            artifact_type: manifest.effective_artifact_type().to_owned(),
            annotations: manifest.annotations.clone(),
            ..Descriptor::of(media_type::OCI_MANIFEST, &bytes)
        };
        Self {
            bytes: bytes.into(),
            listed,
        }
    }

    /// Returns the digest of the manifest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.listed.digest
    }
}

impl TargetContent {
    /// Returns the hash of the content without the subject and the time.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let manifest = self.manifest(None, None);
        Digest::sha256(&serde_json::to_vec(&manifest).unwrap_or_default())
    }

    /// Returns the attachment of this content to `subject`. A `created` among the annotations takes precedence.
    #[must_use]
    pub fn attach_to(&self, subject: &Descriptor, created: Created) -> Attachment {
        Attachment::from_manifest(&self.manifest(Some(subject), Some(&created.to_string())))
    }

    /// Returns true if the annotations of the spec contain the creation time.
    #[must_use]
    pub fn fixes_created(&self) -> bool {
        self.annotations.contains_key(annotation::CREATED)
    }

    /// Returns true if `manifest` is this content on `subject`. The `created` time and the optional fields of the subject do
    /// not count.
    #[must_use]
    pub fn equals(&self, subject: &Digest, manifest: &ImageManifest) -> bool {
        let empty = [Descriptor::empty()];
        let layers: &[Descriptor] = if self.layers.is_empty() {
            &empty
        } else {
            &self.layers
        };
        let same_layer = |desired: &Descriptor, found: &Descriptor| {
            desired.media_type == found.media_type
                && desired.digest == found.digest
                && desired.size == found.size
                && desired.annotations == found.annotations
        };
        manifest
            .media_type
            .as_deref()
            .is_none_or(|own| own == media_type::OCI_MANIFEST)
            && manifest.effective_artifact_type() == self.artifact_type.as_str()
            && manifest.config.media_type == media_type::OCI_EMPTY
            && manifest.config.digest == Descriptor::empty().digest
            && manifest
                .subject
                .as_ref()
                .is_some_and(|stated| stated.digest == *subject)
            && self.same_annotations(&manifest.annotations)
            && manifest.skipped.is_empty()
            && layers.len() == manifest.layers.len()
            && layers
                .iter()
                .zip(&manifest.layers)
                .all(|(desired, found)| same_layer(desired, found))
    }

    /// Returns true if the annotations of a listing entry can belong to an equal manifest. Listings can omit annotations, so only
    /// a different value excludes equality.
    #[must_use]
    pub fn could_list_as(&self, listed: &BTreeMap<String, String>) -> bool {
        listed
            .iter()
            .filter(|(key, _)| self.fixes_created() || *key != annotation::CREATED)
            .all(|(key, value)| self.annotations.get(key) == Some(value))
    }

    fn same_annotations(&self, found: &BTreeMap<String, String>) -> bool {
        let compared = |annotations: &BTreeMap<String, String>| {
            let mut annotations = annotations.clone();
            if !self.fixes_created() {
                annotations.remove(annotation::CREATED);
            }
            annotations
        };
        compared(found) == self.annotations
    }

    fn manifest(&self, subject: Option<&Descriptor>, created: Option<&str>) -> ImageManifest {
        let mut annotations = self.annotations.clone();
        if let (Some(created), false) = (created, self.fixes_created()) {
            annotations.insert(annotation::CREATED.to_owned(), created.to_owned());
        }
        ImageManifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: Some(self.artifact_type.to_string()),
            config: Descriptor::empty(),
            layers: if self.layers.is_empty() {
                vec![Descriptor::empty()]
            } else {
                self.layers.clone()
            },
            skipped: Vec::new(),
            subject: subject.map(Descriptor::stripped),
            annotations,
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    const EMPTY: &str = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}"#;

    /// Registries hold these bytes and status holds their hashes. A version with other bytes attaches all content again.
    #[test]
    fn attachment_bytes_and_content_hashes_are_stable_across_versions() {
        let subject = Descriptor::plain(
            media_type::OCI_INDEX,
            format!("sha256:{}", "a1".repeat(32)).parse().unwrap(),
            511,
        );
        let named = format!(
            r#""subject":{{"mediaType":"{}","digest":"{}","size":511}}"#,
            media_type::OCI_INDEX,
            subject.digest
        );
        let title = r#"{"org.opencontainers.image.title":"b1b1.sig"}"#;
        let file = Descriptor {
            annotations: serde_json::from_str(title).unwrap(),
            ..Descriptor::of("application/octet-stream", b"signature")
        };
        let layer = format!(
            r#"{{"mediaType":"application/octet-stream","digest":"{}","size":9,"annotations":{title}}}"#,
            file.digest
        );
        for (layers, layer) in [(Vec::new(), EMPTY), (vec![file.clone()], layer.as_str())] {
            let content = TargetContent {
                artifact_type: "application/vnd.demo.artifact.lifecycle".parse().unwrap(),
                annotations: BTreeMap::from([("demo/k".to_owned(), "ü<>&".to_owned())]),
                layers,
                blobs: Vec::new(),
            };
            let head = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"application/vnd.demo.artifact.lifecycle","config":{EMPTY},"layers":[{layer}]"#,
                media_type::OCI_MANIFEST
            );
            let made = content.attach_to(&subject, "2026-11-23T17:33:35Z".parse().unwrap());
            let written = format!(
                r#"{head},{named},"annotations":{{"demo/k":"ü<>&","org.opencontainers.image.created":"2026-11-23T17:33:35Z"}}}}"#
            );
            assert_eq!(String::from_utf8_lossy(&made.bytes), written);
            assert_eq!(
                content.hash(),
                Digest::sha256(format!(r#"{head},"annotations":{{"demo/k":"ü<>&"}}}}"#).as_bytes())
            );
        }
    }
}
