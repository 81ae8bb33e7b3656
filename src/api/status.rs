//! The status of an ImageAttachment: the resolved image, the result for each target, and the records for later passes.
//!
//! Status changes only with its contents: it holds no time of the last check. The default has an `observedGeneration` of -1, so that a new
//! object does not look finished.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attachment::SignatureFormat;

/// The observed generation of an object before its first pass.
const UNOBSERVED: i64 = -1;

fn unobserved() -> i64 {
    UNOBSERVED
}

/// The state that affix found and made in the registry.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageAttachmentStatus {
    /// The generation of the spec that this status describes; -1 before the first pass.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,

    /// Ready is present after the first pass. Resolved is True if the image was found, and Attached if every attachment is in
    /// place. Reconciling and Stalled are present only while True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The image of the spec without its digest, such as registry.example.com/team/app:v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1280))]
    pub image_name: Option<String>,

    /// The image that the reference was resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageStatus>,

    /// The artifact type of the attachments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub artifact_type: Option<String>,

    /// The source of the registry's listings: API is the referrers API, TagSchema the fallback tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers_mode: Option<SupportedMode>,

    /// The registry's answer when this resource asked for the right to push, after it had adopted an attachment; absent if it did not
    /// ask for the current generation. Attachments that this resource may push are kept when their maker in another namespace is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_access: Option<PushAccess>,

    /// The number of attached and of selected targets, such as 2/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub attached: Option<String>,

    /// Every manifest of the image, with its state and the reason; at most 100 skipped ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub targets: Vec<TargetStatus>,

    /// The number of skipped manifests that targets does not list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_not_listed: Option<i64>,

    /// The superseded images, which the tag has left, for endOfLife.whenSuperseded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub superseded: Vec<Superseded>,

    /// Attachments that this resource owns and no longer wants, and that are not removed yet or cannot be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub leftovers: Vec<Leftover>,

    /// The value of the annotation reconcile.fluxcd.io/requestedAt that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
}

impl ImageAttachmentStatus {
    /// Maximum number of leftovers in status.
    pub const MAX_LEFTOVERS: usize = 256;
    /// Maximum number of skipped manifests in status.
    pub const MAX_SKIPPED: usize = 100;

    /// Returns the attachments that the resource made: the subject, the attachment's own digest, and the format of a signature.
    pub fn owned(&self) -> impl Iterator<Item = (&str, &str, Option<SignatureFormat>)> {
        let first = self
            .targets
            .iter()
            .filter(|target| target.origin == Some(Origin::Made))
            .filter_map(|target| {
                let format = target.formats.first().map(|first| first.format);
                Some((
                    target.digest.as_str(),
                    target.attachment.as_deref()?,
                    format,
                ))
            });
        let more = self.targets.iter().flat_map(|target| {
            let made = target.formats.iter().skip(1);
            made.filter(|format| format.origin == Some(Origin::Made))
                .filter_map(|format| {
                    let attachment = format.attachment()?;
                    Some((target.digest.as_str(), attachment, Some(format.format)))
                })
        });
        let leftovers = self.leftovers.iter();
        let leftovers =
            leftovers.map(|left| (left.subject.as_str(), left.attachment.as_str(), left.format));
        first.chain(more).chain(leftovers)
    }
}

impl Default for ImageAttachmentStatus {
    fn default() -> Self {
        Self {
            observed_generation: UNOBSERVED,
            conditions: Vec::new(),
            image_name: None,
            image: None,
            artifact_type: None,
            referrers_mode: None,
            push_access: None,
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

    /// The tag that was resolved to the digest; absent if spec.image gives the digest. It distinguishes a moved tag from an edited
    /// reference.
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

/// The source of a registry's listings.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum SupportedMode {
    /// By the referrers API.
    #[serde(rename = "API")]
    Api,
    /// By the fallback tag of OCI 1.1.
    TagSchema,
}

/// The registry's answer to the question whether a resource may push.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum PushAccess {
    /// The registry opened an upload for the resource's credential.
    Accepted,
    /// The registry refused it.
    Refused,
}

/// One manifest of the image.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Index is an index, which may be nested; Platform is the manifest of one platform.
    pub kind: TargetKind,

    /// The platform as os/arch, with its variant and os.version if it has them; absent if the manifest has no platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub platform: Option<String>,

    /// Further platforms for which the index lists the same digest; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub other_platforms: Vec<String>,

    /// The digest of the manifest.
    #[schemars(length(max = 135))]
    pub digest: String,

    /// Attached: the registry lists the attachment. Pending: not yet. Planned: it would be attached. Failed: it is retried.
    /// Skipped: the manifest is not one of the targets.
    pub state: TargetState,

    /// The reason of this state, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// The explanation of this state, with the registry's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// The digest of the attachment's manifest; with formats, of the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub attachment: Option<String>,

    /// Made: this resource made the attachment. Adopted: an equal one existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,

    /// The creation time in the attachment's manifest, fixed before the first push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,

    /// The hash of the attachment's content without its subject and its time. It changes with the desired content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub content: Option<String>,

    /// The generation of the spec that outranked a newer foreign mark here, once for each generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_for: Option<i64>,

    /// The earliest creation time of a foreign end-of-life mark on this manifest that is dated in the future. The mark is ignored until
    /// then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub future_mark: Option<Time>,

    /// The attachments of this target, where there can be several: the formats of a cosign signature, or signed statements. The target
    /// is Attached when all of them are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub formats: Vec<FormatStatus>,
}

/// One of several attachments of a target: a cosign signature in one format, or a signed statement.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FormatStatus {
    /// Bundle is a referrer; Tag is a layer of the manifest under the signature tag.
    pub format: SignatureFormat,

    /// The type of the predicate of a signed statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub predicate_type: Option<String>,

    /// A hash of the predicate of a signed statement. It does not change with the layout of the JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub predicate: Option<String>,

    /// The digest of the bundle's manifest, or the signature tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub reference: Option<String>,

    /// The state of this attachment, as of a target.
    pub state: TargetState,

    /// Made: this resource made the attachment. Adopted: an equal one existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,

    /// The signature in the tag: a hash of its text's digest and of the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub attachment: Option<String>,

    /// The time at which the attachment was made or adopted; of the first one it is that of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,

    /// The hash of the content of the attachment; of the first one it is that of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 135))]
    pub content: Option<String>,
}

impl FormatStatus {
    /// Returns the attachment: the digest of its manifest, or the signature in the tag.
    #[must_use]
    pub fn attachment(&self) -> Option<&str> {
        match self.format {
            SignatureFormat::Bundle => self.reference.as_deref(),
            SignatureFormat::Tag => self.attachment.as_deref(),
        }
    }
}

/// The kind of a target: an index or the manifest of one platform.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum TargetKind {
    /// An index, which may be nested.
    Index,
    /// The manifest of one platform.
    Platform,
}

/// The state of a target.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum TargetState {
    /// The registry lists the attachment.
    Attached,
    /// The registry does not list the attachment yet.
    Pending,
    /// The attachment would be made without `dryRun`.
    Planned,
    /// The attachment could not be made and is retried.
    Failed,
    /// The manifest is not one of the targets.
    Skipped,
}

/// The state of a superseded image.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum SupersededState {
    /// The move settles, or the marks are not made yet.
    Pending,
    /// The marks would be made without `dryRun`.
    Planned,
    /// Every selected manifest that is not in use has its mark, and at least one mark exists.
    Attached,
    /// Tags or a settling move still reach every selected manifest, so no mark exists.
    StillInUse,
    /// A mark could not be made and is retried.
    Failed,
    /// The image is gone from the registry, or `targets` selects nothing of it.
    Withdrawn,
}

/// The origin of an attachment.
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[schemars(inline, description = "")]
pub enum Origin {
    /// This resource made it.
    Made,
    /// An equal one existed.
    Adopted,
}

/// A superseded image, which the tag has left.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Superseded {
    /// The digest of the image that the tag named before.
    #[schemars(length(max = 135))]
    pub digest: String,

    /// The time at which affix saw that the tag had moved.
    pub moved_at: Time,

    /// The end-of-life date that was fixed for this image; absent while the move settles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub date: Option<String>,

    /// Attached once every manifest that is not in use has its mark; Pending while the move settles; StillInUse while tags reach
    /// the whole image.
    pub state: SupersededState,

    /// A tag that still reaches the image in the state StillInUse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub tag: Option<String>,

    /// The reason of this state, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// The explanation of this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// An attachment that this resource owns and no longer wants.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// The digest of the manifest that it is attached to.
    #[schemars(length(max = 135))]
    pub subject: String,

    /// The digest of the attachment's manifest; for a signature of the format Tag, a hash of it.
    #[schemars(length(max = 135))]
    pub attachment: String,

    /// Tag for a signature under the signature tag; absent for a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<SignatureFormat>,

    /// The reason for which it is not removed, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// The explanation, with the registry's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
