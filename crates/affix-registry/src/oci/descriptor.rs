//! Content descriptors (image-spec, descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, Platform, media_type};

/// A descriptor. Fields are written in the order that Go tools write them, so that equal content has equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of what is described. Some tools leave it empty in listings.
    #[serde(default)]
    pub media_type: String,
    /// Digest of what is described.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Annotations; absent and `null` are the same.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, base64, where it is inlined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Platform of an index entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Artifact type of what is described, in listings of referrers.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub artifact_type: String,
}

/// Reads `null` as the default value: Go writes it for empty maps and slices.
pub(super) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Descriptor {
    /// A plain descriptor: media type, digest and size, nothing else.
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

    /// A plain descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::plain(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// The empty descriptor, with its content `{}` inlined (image-spec, manifest.md).
    #[must_use]
    pub fn empty() -> Self {
        Self {
            data: Some("e30=".to_owned()),
            ..Self::of(media_type::OCI_EMPTY, b"{}")
        }
    }

    /// The artifact type that a listing states for this entry. Some registries state none, and go-containerregistry's states the config's
    /// media type: that of the empty config says nothing of the artifact. Then only the manifest says.
    #[must_use]
    pub fn stated_type(&self) -> Option<&str> {
        Some(self.artifact_type.as_str())
            .filter(|stated| !matches!(*stated, "" | media_type::OCI_EMPTY))
    }

    /// Whether what a listing shows could be of `artifact_type`: a listing only nominates, the manifest decides.
    #[must_use]
    pub fn could_be_of(&self, artifact_type: &str) -> bool {
        self.stated_type()
            .is_none_or(|stated| stated == artifact_type)
    }

    /// The same without annotations, platform, inlined data and artifact type: how affix names a subject.
    #[must_use]
    pub fn stripped(&self) -> Self {
        Self::plain(self.media_type.clone(), self.digest.clone(), self.size)
    }
}
