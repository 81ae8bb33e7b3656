//! Content descriptors (image-spec, descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, Platform, media_type};

/// A content descriptor (image-spec, descriptor.md).
///
/// Fields are serialised in the order of the Go implementation, so equal content has equal bytes.
/// Unknown fields are not kept: see [`RawDocument`](crate::oci::RawDocument) for lossless rewrites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content. Some registries leave it empty in listings, and `null` is read
    /// as empty.
    #[serde(default, deserialize_with = "null_is_default")]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Annotations. `null` is read as empty, for the map and for a value. An empty map is not
    /// written.
    #[serde(
        default,
        deserialize_with = "annotations",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64, if it is embedded (image-spec, descriptor.md, "Embedded
    /// Content").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Platform of an index entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Artifact type of the content, in listings of referrers. Empty if the listing does not state
    /// it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub artifact_type: String,
}

/// Reads `null` as the default value. Go writes `null` for empty maps and slices.
pub(super) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads annotations as Go does: `null` in place of the map or of a value is empty.
pub(super) fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let read: Option<BTreeMap<String, Option<String>>> = Option::deserialize(deserializer)?;
    let pairs = read.unwrap_or_default().into_iter();
    Ok(pairs
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

impl Descriptor {
    /// Creates a descriptor with only the required fields. `size` is in bytes.
    #[must_use]
    pub fn plain(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: String::new(),
        }
    }

    /// Creates a descriptor of `bytes` with only the required fields. The digest is SHA-256.
    #[must_use]
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::plain(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// Creates the descriptor of the empty JSON object with its content embedded (image-spec,
    /// manifest.md, "Guidance for an Empty Descriptor").
    #[must_use]
    pub fn empty() -> Self {
        Self {
            data: Some("e30=".to_owned()),
            ..Self::of(media_type::OCI_EMPTY, b"{}")
        }
    }

    /// Returns the artifact type that a listing states for this entry, if it states one.
    ///
    /// Some registries omit it. go-containerregistry states the config's media type, and the empty
    /// config's media type does not identify an artifact. In both cases only the manifest has the
    /// type.
    #[must_use]
    pub fn listed_type(&self) -> Option<&str> {
        Some(self.artifact_type.as_str())
            .filter(|stated| !matches!(*stated, "" | media_type::OCI_EMPTY))
    }

    /// Returns true unless the listing states a type other than `artifact_type`. Only the manifest
    /// proves the type.
    #[must_use]
    pub fn may_have_type(&self, artifact_type: &str) -> bool {
        self.listed_type()
            .is_none_or(|stated| stated == artifact_type)
    }

    /// Returns the descriptor with only the required fields, as in the `subject` field of a
    /// manifest.
    #[must_use]
    pub fn stripped(&self) -> Self {
        Self::plain(self.media_type.clone(), self.digest.clone(), self.size)
    }
}
