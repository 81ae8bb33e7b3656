//! The status: what was found, what was done for each target, and what a later pass must know.
//!
//! Owns: the shape of status, the default that keeps an untouched object from being taken for done, and the bounds of its
//! lists. Refuses: anything that moves at steady state, such as a time of the last check.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed generation of an object that no pass has seen yet.
const UNOBSERVED: i64 = -1;

fn unobserved() -> i64 {
    UNOBSERVED
}

/// What affix found in the registry and did there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageAttachmentStatus {
    /// The generation of the spec that this status is about; -1 before the first pass.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,

    /// Ready is always there once a pass has run; Resolved says whether the image was found, Attached whether the attachments
    /// are in place; Reconciling and Stalled are there only while True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The image that the reference was resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,

    /// The artifact type of the attachments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub artifact_type: Option<String>,

    /// How the registry lists attachments: API is the referrers API, TagSchema the fallback tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers_mode: Option<SupportedMode>,

    /// Attached of selected targets, such as 2/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub attached: Option<String>,

    /// Every manifest of the image, with what was done and why; at most 100 skipped ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub targets: Vec<TargetStatus>,

    /// How many more skipped manifests there are than targets lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_not_listed: Option<i64>,

    /// The images that the tag has left, for endOfLife.whenSuperseded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub superseded: Vec<Superseded>,

    /// Attachments that this resource made, that are no longer wanted, and that are not yet removed or cannot be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub leftovers: Vec<Leftover>,

    /// The value of the annotation reconcile.fluxcd.io/requestedAt that was last acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
}

impl ImageAttachmentStatus {
    /// How many leftovers status takes.
    pub const MOST_LEFTOVERS: usize = 256;
}

impl Default for ImageAttachmentStatus {
    fn default() -> Self {
        Self {
            observed_generation: UNOBSERVED,
            conditions: Vec::new(),
            image: None,
            artifact_type: None,
            referrers_mode: None,
            attached: None,
            targets: Vec::new(),
            skipped_not_listed: None,
            superseded: Vec::new(),
            leftovers: Vec::new(),
            last_handled_reconcile_at: None,
        }
    }
}

/// The image that the reference was resolved to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// The image with its digest, such as registry.example.com/team/app@sha256:….
    #[schemars(length(max = 1280))]
    pub reference: String,

    /// The digest of the index, or of the single manifest.
    #[schemars(length(max = 135))]
    pub digest: String,

    /// The tag that was followed to the digest; absent where spec.image names the digest itself. It tells a tag that moved from a
    /// reference that was edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub tag: Option<String>,

    /// The media type of the index, or of the single manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub media_type: Option<String>,

    /// Set while spec.image gives a tag and a digest and the tag names another digest. The digest in spec.image decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_drift: Option<TagDrift>,
}

/// The tag beside the digest in spec.image, and the digest that it names now.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TagDrift {
    /// The tag.
    #[schemars(length(max = 128))]
    pub tag: String,

    /// The digest that the tag names.
    #[schemars(length(max = 135))]
    pub digest: String,
}

/// How a registry lists attachments.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum SupportedMode {
    /// By the referrers API.
    #[serde(rename = "API")]
    Api,
    /// By the fallback tag of OCI 1.1.
    TagSchema,
}

/// One manifest of the image.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Index is an index (also a nested one), Platform the manifest of one platform.
    pub kind: TargetKind,

    /// The platform as os/arch, with its variant and os.version where it has them; absent where the manifest has no platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub platform: Option<String>,

    /// More platforms under which the index lists the same digest; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub other_platforms: Vec<String>,

    /// The digest of the manifest.
    #[schemars(length(max = 135))]
    pub digest: String,

    /// Attached means seen in the registry's listing; Pending is not there yet, Planned would be attached, Failed is tried again,
    /// Skipped is none of this resource's targets.
    pub state: TargetState,

    /// Why the target is in this state, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// Why the target is in this state, with the registry's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// The digest of the attachment's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub attachment: Option<String>,

    /// Made is an attachment that this resource made, Adopted an equal one that was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,

    /// The time of creation that the attachment's manifest carries, fixed before the first push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,

    /// The hash of the attachment's content without its subject and its time, which tells a changed spec from an unchanged one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub content: Option<String>,

    /// The generation of the spec for which a newer mark of somebody else was outranked here: once for each generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_for: Option<i64>,

    /// The earliest creation time of a foreign end-of-life mark on this manifest that is dated in the future. The mark is ignored until
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub future_mark: Option<Time>,
}

/// Whether a target is an index or the manifest of one platform.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum TargetKind {
    /// An index, also a nested one.
    Index,
    /// The manifest of one platform.
    Platform,
}

/// What has become of a target.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum TargetState {
    /// The attachment is there.
    Attached,
    /// The attachment is not there yet, or not listed yet.
    Pending,
    /// The attachment would be made, but for `dryRun`.
    Planned,
    /// The attachment could not be made; another try follows.
    Failed,
    /// The manifest is not one of the targets.
    Skipped,
}

/// Who made an attachment.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum Origin {
    /// This resource made it.
    Made,
    /// It was there, and equal.
    Adopted,
}

/// An image that the tag has left.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Superseded {
    /// The digest of the image that the tag named before.
    #[schemars(length(max = 135))]
    pub digest: String,

    /// When affix saw that the tag had moved.
    pub moved_at: Time,

    /// The end-of-life date that was fixed for this image; absent while the move settles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub date: Option<String>,

    /// Attached once everything that is no longer in use carries its mark; Pending while the move settles.
    pub state: TargetState,

    /// Why the image is in this state, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// Why the image is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// An attachment that this resource made and that is no longer wanted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// The digest of the manifest that it is attached to.
    #[schemars(length(max = 135))]
    pub subject: String,

    /// The digest of the attachment's manifest.
    #[schemars(length(max = 135))]
    pub attachment: String,

    /// Why it is still there, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// Why it is still there, with the registry's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
