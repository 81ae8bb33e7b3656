//! What `tree` found, as data: the shape of its JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use affix_registry::oci::Digest;

/// An image with everything below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Tree {
    /// As asked for.
    pub image: String,
    /// The index, or the single manifest.
    #[serde(flatten)]
    pub root: Node,
    /// Referrers whose own referrers were not asked for, since there are too many.
    #[serde(rename = "referrersNotFollowed", skip_serializing_if = "is_zero")]
    pub not_followed: usize,
}

/// What a node of the image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum NodeKind {
    /// An index, also a nested one.
    Index,
    /// The manifest of a platform.
    Manifest,
    /// A build attestation.
    Attestation,
    /// Of a media type that affix does not know.
    Unknown,
}

/// A manifest of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its platforms: several where an index lists it several times.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Which manifest a build attestation is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attests: Option<String>,
    /// What is attached to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Referrer>,
    /// The manifests that an index lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Self>,
    /// Why what is attached to it, or what it lists, is not shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Something that is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Referrer {
    /// Its type; empty where neither the listing nor the manifest says one.
    pub artifact_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is attached to it in turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Self>,
    /// Why it, or what is attached to it, is not shown whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl Tree {
    /// Whether everything could be read.
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
    reason = "the signature that serde calls"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
