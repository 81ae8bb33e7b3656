//! The tree as data, in the shape of its JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use affix_registry::oci::Digest;

/// An image, its manifests and their referrers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Tree {
    /// The reference as the user wrote it.
    pub image: String,
    /// The index, or the single manifest.
    #[serde(flatten)]
    pub root: Node,
    /// The number of referrers whose own referrers were not read, because there are too many.
    #[serde(rename = "referrersNotFollowed", skip_serializing_if = "is_zero")]
    pub not_followed: usize,
}

/// The kind of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum NodeKind {
    /// An index, also a nested one.
    Index,
    /// The manifest of a platform.
    Manifest,
    /// A build attestation.
    Attestation,
    /// A manifest of an unknown media type.
    Unknown,
}

/// A manifest of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// The kind.
    pub kind: NodeKind,
    /// The platforms. There are several if the index lists the manifest several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// The digest.
    pub digest: Digest,
    /// The media type.
    pub media_type: String,
    /// The size in bytes.
    pub size: u64,
    /// The manifest that a build attestation describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attests: Option<String>,
    /// The referrers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Referrer>,
    /// The tags of cosign for the manifest: `.sig` and `.att`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<CosignTag>,
    /// The manifests that an index lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Self>,
    /// The reasons why referrers or manifests are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// A tag with signatures or attestations that cosign stores beside the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CosignTag {
    /// The tag.
    pub tag: String,
    /// The digest.
    pub digest: Digest,
    /// The media type.
    pub media_type: String,
    /// The size in bytes.
    pub size: u64,
    /// The layers: one for each signature or attestation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CosignLayer>,
}

/// A signature or an attestation in a tag of cosign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CosignLayer {
    /// The media type.
    pub media_type: String,
    /// The digest of the signed text. Several signatures may share it.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// The annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A referrer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Referrer {
    /// The artifact type. It is empty if neither the listing nor the manifest has one.
    pub artifact_type: String,
    /// The digest.
    pub digest: Digest,
    /// The media type.
    pub media_type: String,
    /// The size in bytes.
    pub size: u64,
    /// The annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The referrers of the referrer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Self>,
    /// The reasons why parts are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl Tree {
    /// Returns whether everything could be read.
    pub(super) fn is_complete(&self) -> bool {
        self.root.is_complete()
    }
}

impl Node {
    fn is_complete(&self) -> bool {
        self.errors.is_empty()
            && self.referrers.iter().all(Referrer::is_complete)
            && self.manifests.iter().all(Self::is_complete)
    }
}

impl Referrer {
    fn is_complete(&self) -> bool {
        self.errors.is_empty() && self.referrers.iter().all(Self::is_complete)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
