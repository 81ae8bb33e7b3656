//! Manifests: detection of their kind, and image manifests as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::descriptor::{annotations, null_is_default};
use super::digest::cut;
use super::index::{SkippedEntry, descriptor, readable};
use super::media_type::{self, Kind};
use super::values::without_bom;
use super::{Descriptor, ImageIndex};

/// An image manifest (image-spec, manifest.md). Fields are serialised in the order of the Go
/// implementation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "ImageDocument")]
pub struct ImageManifest {
    /// The schema version. Always 2.
    pub schema_version: u32,
    /// The document's own media type, if it states one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The artifact type, if the manifest is an artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The readable layers. `null` and an absent field are read as empty.
    pub layers: Vec<Descriptor>,
    /// The layers that are not valid descriptors, such as those with an unknown digest algorithm.
    /// They are not written.
    #[serde(skip)]
    pub skipped: Vec<SkippedEntry>,
    /// The manifest that this one refers to, if it is a referrer (image-spec, manifest.md,
    /// `subject`). A subject that is not a valid descriptor is read as absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations. `null` is read as empty, for the map and for a value. An empty map is not
    /// written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The fields of an image manifest before its layers are parsed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageDocument {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<Box<RawValue>>,
    #[serde(default)]
    subject: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "annotations")]
    annotations: BTreeMap<String, String>,
}

impl From<ImageDocument> for ImageManifest {
    fn from(document: ImageDocument) -> Self {
        let (layers, skipped) = readable(&document.layers);
        Self {
            schema_version: document.schema_version.unwrap_or(2),
            media_type: document.media_type,
            artifact_type: document.artifact_type,
            config: document.config,
            layers,
            skipped,
            subject: document.subject.as_deref().and_then(descriptor),
            annotations: document.annotations,
        }
    }
}

impl ImageManifest {
    /// Returns the artifact type by which listings identify this manifest: `artifactType`, or the
    /// config's media type if that field is absent or empty (distribution-spec, "Listing
    /// Referrers").
    #[must_use]
    pub fn effective_artifact_type(&self) -> &str {
        self.artifact_type
            .as_deref()
            .filter(|own| !own.is_empty())
            .unwrap_or(&self.config.media_type)
    }
}

/// A manifest of a supported kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one manifest is held at a time, and most are images"
)]
pub enum Manifest {
    /// An OCI index or a Docker manifest list.
    Index(ImageIndex),
    /// An OCI or Docker image manifest.
    Image(ImageManifest),
}

/// The reason for which bytes are not a supported manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The document is a Docker schema 1 manifest, a format without referrers.
    #[error(
        "the image uses Docker schema 1, which has no referrers: push it again with a current tool"
    )]
    Schema1,
    /// The media type is not that of a supported manifest.
    #[error("media type {0:?} is neither an image index nor an image manifest")]
    UnsupportedMediaType(String),
    /// The `Content-Type` header and the document state different media types, so readers would
    /// disagree.
    #[error("the registry serves the document as {header:?}, but the document states {body:?}")]
    MediaTypeMismatch {
        /// The media type in the `Content-Type` header.
        header: String,
        /// The media type in the document.
        body: String,
    },
    /// The document has the fields of an index and those of an image (image-spec, security advisory
    /// GHSA-77vh-xpmg-72qh).
    #[error("the document has both the fields of an index and those of an image manifest")]
    Ambiguous,
    /// The document is not valid JSON, or a field has an invalid value.
    #[error("the document is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The index has entries, and none of them is a valid descriptor. Contains the cause of the first.
    #[error("no entry of the index is readable: {0}")]
    NoReadableEntry(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: Option<serde_json::Number>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    /// Parses a manifest that a registry served as `content_type`. Returns it with the media type
    /// for its descriptor.
    ///
    /// # Errors
    /// If the document is malformed, ambiguous, or of an unsupported kind, or if it contradicts
    /// `content_type`. A single unreadable entry of an index is no error, see
    /// [`ImageIndex::skipped`].
    pub fn parse(
        content_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<(String, Self), ManifestError> {
        let served = content_type
            .map(media_type::essence)
            .filter(|served| !served.is_empty());
        if served.is_some_and(|served| {
            matches!(
                served,
                media_type::DOCKER_SCHEMA1 | media_type::DOCKER_SCHEMA1_SIGNED
            )
        }) {
            return Err(ManifestError::Schema1);
        }
        let bytes = without_bom(bytes);
        let probe: Probe = serde_json::from_slice(bytes)?;
        let is_schema1 = probe.schema_version.and_then(|version| version.as_u64()) == Some(1);
        if is_schema1 || probe.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        if probe.manifests.is_some() && (probe.layers.is_some() || probe.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let stated = probe.media_type.filter(|stated| !stated.is_empty());
        let media_type = match (served, stated) {
            (Some(served), Some(body))
                if media_type::kind(served) != Kind::Other && served != body =>
            {
                return Err(ManifestError::MediaTypeMismatch {
                    header: cut(served),
                    body: cut(&body),
                });
            }
            (_, Some(body)) => body,
            (Some(served), None) => served.to_owned(),
            (None, None) => return Err(ManifestError::UnsupportedMediaType(String::new())),
        };
        let manifest = match media_type::kind(&media_type) {
            Kind::Index => Self::Index(with_readable_entry(serde_json::from_slice(bytes)?)?),
            Kind::Image => Self::Image(serde_json::from_slice(bytes)?),
            Kind::Other => return Err(ManifestError::UnsupportedMediaType(cut(&media_type))),
        };
        Ok((media_type, manifest))
    }

    /// Returns the manifest that this one refers to, if it is a referrer.
    #[must_use]
    pub const fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Index(index) => index.subject.as_ref(),
            Self::Image(image) => image.subject.as_ref(),
        }
    }
}

/// Refuses an index whose entries are all unreadable: its platforms are unknown.
fn with_readable_entry(index: ImageIndex) -> Result<ImageIndex, ManifestError> {
    match index.skipped.first() {
        Some(first) if index.manifests.is_empty() => {
            Err(ManifestError::NoReadableEntry(first.to_string()))
        }
        _ => Ok(index),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

    #[test]
    fn an_index_without_a_readable_entry_is_refused_with_the_cause() {
        let odd = r#"{"digest":"blake9:aa","size":1,"mediaType":"a/b"}"#;
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{odd}]}}"#);
        let error = Manifest::parse(Some(media_type::OCI_INDEX), text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no entry of the index is readable: entry 0"),
            "{error}"
        );
    }

    #[test]
    fn the_document_and_its_header_must_agree() {
        let lie = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#,
            media_type::OCI_INDEX
        );
        let error = Manifest::parse(Some(media_type::OCI_MANIFEST), lie.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains("but the document states"), "{error}");
        let (media_type, _) = Manifest::parse(Some("application/json"), lie.as_bytes()).unwrap();
        assert_eq!(media_type, media_type::OCI_INDEX);
        let (media_type, manifest) = Manifest::parse(
            Some("application/vnd.docker.distribution.manifest.list.v2+json; charset=utf-8"),
            INDEX.as_bytes(),
        )
        .unwrap();
        assert_eq!(media_type, media_type::DOCKER_LIST);
        assert!(matches!(manifest, Manifest::Index(_)));
    }

    #[test]
    fn an_unsupported_document_is_refused_by_name() {
        for (header, body, said) in [
            (
                Some(media_type::DOCKER_SCHEMA1_SIGNED),
                "{}",
                "Docker schema 1",
            ),
            (None, r#"{"schemaVersion":1}"#, "Docker schema 1"),
            (None, r#"{"fsLayers":[]}"#, "Docker schema 1"),
            (
                Some(media_type::OCI_INDEX),
                r#"{"manifests":[],"layers":[]}"#,
                "both the fields",
            ),
            (Some("text/html"), "<html>", "malformed"),
            (Some("text/html"), "{}", "\"text/html\" is neither"),
            (None, "{}", "\"\" is neither"),
            (
                Some(media_type::OCI_INDEX),
                r#"{"manifests":7}"#,
                "malformed",
            ),
            (
                Some(media_type::OCI_MANIFEST),
                r#"{"schemaVersion":2,"layers":[]}"#,
                "missing field `config`",
            ),
            (Some(media_type::OCI_INDEX), "[[[", "malformed"),
        ] {
            let error = Manifest::parse(header, body.as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.contains(said), "{body}: {error}");
        }
    }

    #[test]
    fn null_values_and_a_byte_order_mark_are_read_as_go_reads_them() {
        let descriptor = format!(
            r#"{{"mediaType":null,"digest":"{}","size":2,"annotations":{{"a":null}},"platform":null,"data":null,"artifactType":null}}"#,
            Descriptor::empty().digest
        );
        for (header, body) in [
            (
                media_type::OCI_INDEX,
                format!(
                    r#"{{"schemaVersion":2,"mediaType":null,"artifactType":null,"annotations":null,"subject":null,"manifests":[{descriptor}]}}"#
                ),
            ),
            (
                media_type::OCI_INDEX,
                r#"{"mediaType":null,"manifests":null}"#.to_owned(),
            ),
            (
                media_type::OCI_MANIFEST,
                format!(
                    r#"{{"schemaVersion":2,"mediaType":null,"artifactType":null,"annotations":null,"subject":null,"config":{descriptor},"layers":null}}"#
                ),
            ),
        ] {
            let marked = [b"\xEF\xBB\xBF", body.as_bytes()].concat();
            let (media_type, plain) = Manifest::parse(Some(header), body.as_bytes()).unwrap();
            assert_eq!(media_type, header);
            assert_eq!(Manifest::parse(Some(header), &marked).unwrap().1, plain);
        }
    }

    #[test]
    fn an_unknown_digest_algorithm_of_a_layer_or_a_subject_hides_nothing_else() {
        let good = serde_json::to_string(&Descriptor::empty()).unwrap();
        let odd = good.replace("sha256:", "blake3:");
        let text = format!(r#"{{"config":{good},"layers":[{good},{odd},null],"subject":{odd}}}"#);
        let (_, manifest) =
            Manifest::parse(Some(media_type::OCI_MANIFEST), text.as_bytes()).unwrap();
        let Manifest::Image(image) = manifest else {
            unreachable!("{manifest:?}")
        };
        assert_eq!((image.layers.len(), image.subject), (1, None));
        let reasons: Vec<_> = image.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        let first = reasons.concat();
        assert!(
            first.starts_with("entry 1") && first.contains("\"blake3\" is not supported"),
            "{reasons:?}"
        );
        let index = format!(r#"{{"manifests":[{good}],"subject":{odd}}}"#);
        let (_, index) = Manifest::parse(Some(media_type::OCI_INDEX), index.as_bytes()).unwrap();
        assert_eq!(index.subject(), None);
    }

    proptest::proptest! {
        #[test]
        fn an_odd_layer_never_hides_the_others(odd in "\\PC{0,60}|[a-z0-9]{1,9}:[0-9a-f]{0,70}", position in 0..3_usize) {
            let good = serde_json::json!(Descriptor::empty());
            let mut layers = vec![good.clone(), good.clone()];
            layers.insert(position, serde_json::json!({"digest": odd, "size": 1}));
            let text = serde_json::json!({"config": good, "layers": layers}).to_string();
            let parsed = Manifest::parse(Some(media_type::OCI_MANIFEST), text.as_bytes());
            let Ok((_, Manifest::Image(image))) = parsed else {
                return Err(proptest::test_runner::TestCaseError::fail(format!("{parsed:?}")));
            };
            proptest::prop_assert_eq!(image.layers.len() + image.skipped.len(), 3);
            proptest::prop_assert!(image.layers.len() >= 2);
        }

        #[test]
        fn any_bytes_are_a_manifest_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 0..3_usize) {
            let header = [Some(media_type::OCI_INDEX), Some(media_type::OCI_MANIFEST), None].get(kind).copied().flatten();
            let _ = Manifest::parse(header, &bytes);
        }
    }
}
