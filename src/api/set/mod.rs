//! The spec of an ImageAttachmentSet: the repositories, the selection of their tags, the lifecycle policy, and the template of the children.
//!
//! As for ImageAttachment, the schema has no defaults: accessors apply them.

mod status;
mod template;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;

pub use status::{CycleState, CycleStatus, ImageAttachmentSetStatus, LeftImage, RepositoryStatus};
pub(in crate::api) use template::{SET_FIELDS, SET_TARGETS_FIELDS};
pub use template::{SetTemplate, TemplateMetadata, TemplateSpec};

/// The label of a child, whose value is the name of its set.
pub const SET_LABEL: &str = "affix.dev/set";
/// The annotation of a child, whose value lists the tags that name the digest, separated by commas.
pub const TAGS_ANNOTATION: &str = "affix.dev/tags";
/// The annotation of a set, whose value is the number of new marks that the user accepts.
pub const CONFIRM_ANNOTATION: &str = "affix.dev/confirm";

/// The repositories and tags, and the attachments that their images get.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "affix.dev",
    version = "v1alpha1",
    kind = "ImageAttachmentSet",
    plural = "imageattachmentsets",
    shortname = "ias",
    category = "affix",
    namespaced,
    status = "ImageAttachmentSetStatus",
    derive = "PartialEq",
    doc = "ImageAttachmentSet makes one ImageAttachment for each image that the selected tags of its repositories name, for example to sign every release, or to mark the releases that a lifecycle policy puts out of life.",
    printcolumn(
        name = "Images",
        type_ = "integer",
        json_path = ".status.children",
        description = "The number of ImageAttachments of this set."
    ),
    printcolumn(
        name = "Attached",
        type_ = "string",
        json_path = ".status.ready",
        description = "Ready of all ImageAttachments of this set."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether every repository was read and every ImageAttachment is ready."
    ),
    printcolumn(
        name = "Suspended",
        type_ = "boolean",
        json_path = ".spec.suspend",
        description = "Whether reconciliation is suspended; Ready is then that of the last pass."
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "The reason of the Ready condition."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the set was created."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1,
        description = "The message of the Ready condition."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ImageAttachmentSetSpec {
    /// The repositories, without tag and digest. The registry must be named. Required. At least 1, at most 64. Example:
    /// registry.example.com/team/app.
    #[schemars(length(max = 64), inner(length(max = 512)))]
    pub repositories: Vec<String>,

    /// The tags to select; all given conditions must hold. Tags that hold referrers or signatures are never selected. Default: every tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagSelection>,

    /// Tags of these repositories never move: each tag is resolved once, and later only the list of tags is read. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,

    /// Interval at which the tags are read again, with jitter. A duration of at least 1s. Default: 10m. Examples: 30s, 1h30m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,

    /// Suspend the reconciliation of this set; its ImageAttachments stay and go on. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// The policy that puts tags out of life. With it, only images out of life get an ImageAttachment, and template.spec is an endOfLife
    /// without a date. Default: none, so that each selected image gets an ImageAttachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,

    /// The ImageAttachments of this set. Required.
    pub template: SetTemplate,
}

/// The selection of tags.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TagSelection {
    /// A range of semantic versions, as in ImagePolicy of Flux: the tag is a version of three numbers, with or without a leading v, in
    /// this range. A prerelease needs a range with a prerelease, such as >=1.0.0-0. Default: any tag, a version or not. Examples:
    /// >=1.0.0, 1.8.x, ^2.1.0, >=1.0.0-0 <2.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub semver: Option<String>,

    /// The tag matches one of these patterns, where * stands for any text and ? for one character. Default: every tag. At most 64. Example:
    /// v1.*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub include: Option<Vec<String>>,

    /// The tag matches none of these patterns, written as in include. Default: none. At most 64. Examples: *-rc.*, latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub exclude: Option<Vec<String>>,

    /// Maximum number of selected tags of a repository. If a repository has more, nothing changes there, and status says LimitExceeded.
    /// Default: 500. At least 1, at most 4000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4000))]
    pub limit: Option<i64>,
}

/// The policy that puts tags out of life.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// The versions that stay alive, counted from the newest. A tag that is no version stays alive. At least one of keep, cycles is set.
    /// Default: all versions stay alive unless cycles ends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,

    /// Tags that keep never puts out of life, as patterns where * stands for any text and ? for one character. Default: none. At most 64.
    /// Example: v1.8.*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub alive: Option<Vec<String>>,

    /// A calendar: versions that go out of life on a date. It wins over keep and alive: these versions are alive before the date and out
    /// of life from then on. The first entry that holds a version decides. At least one of keep, cycles is set. Default: none. At most
    /// 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub cycles: Option<Vec<Cycle>>,

    /// The time for which an image stays supported after its last tag fell out of keep, or after its tag has left it: the date of the mark
    /// is that time plus this duration. Required with keep. Default: 0s. At most 876000h. Example: 720h (30 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GoDuration>,

    /// The time for which an image must have been out of life by keep, or left by its tag, before it is marked. If it comes back earlier,
    /// nothing is attached. Default: 24h. At most 876000h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<GoDuration>,

    /// Tags that keep an image in use although tags does not select them. In a pattern, * stands for any text and ? for one character; ! in
    /// front excludes tags. With an empty list no other tag counts. Default: every tag (*). At most 64. Examples: latest, !nightly-*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 129)))]
    pub unless_tagged: Option<Vec<String>>,

    /// The most images that are newly marked at once. If there are more, none is marked, and Ready is False with the reason TooManyMarks,
    /// until the annotation affix.dev/confirm of the set has their number. Default: 50. At least 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_new_marks: Option<i64>,
}

/// The versions that stay alive. An absent level keeps all.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// The newest majors that stay alive. Default: all. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub majors: Option<i64>,

    /// The newest minors that stay alive in each major that does. Default: all. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub minors: Option<i64>,

    /// The newest patches that stay alive in each minor that does. Default: all. At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub patches: Option<i64>,
}

/// Versions that go out of life on a date.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Cycle {
    /// The versions, as a range of semantic versions. A prerelease belongs to the cycle of its release. Required. Examples: 1.6.x, ^1.0.0.
    #[schemars(length(max = 128))]
    pub versions: String,

    /// The date from which these versions are no longer supported, in RFC 3339: a date and time (with T and Z in upper case), or a date,
    /// which begins at 00:00 UTC. Required. Examples: 2026-06-30, 2026-06-30T12:00:00Z.
    #[schemars(length(max = 64))]
    pub date: String,
}

impl ImageAttachmentSet {
    /// Returns the number of new marks that the user accepts, if the annotation of the set has one.
    #[must_use]
    pub fn confirmed(&self) -> Option<usize> {
        let annotations: Option<&BTreeMap<String, String>> = self.metadata.annotations.as_ref();
        annotations?.get(CONFIRM_ANNOTATION)?.trim().parse().ok()
    }
}

impl ImageAttachmentSetSpec {
    /// The default of `interval`.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(600);

    /// Returns the interval at which the tags are read again.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
            .as_ref()
            .map_or(Self::DEFAULT_INTERVAL, GoDuration::get)
    }

    /// Returns whether reconciliation is suspended.
    #[must_use]
    pub fn suspend(&self) -> bool {
        self.suspend.unwrap_or_default()
    }

    /// Returns whether each tag is resolved only once.
    #[must_use]
    pub fn immutable(&self) -> bool {
        self.immutable.unwrap_or_default()
    }

    /// Returns the maximum number of selected tags of a repository.
    #[must_use]
    pub fn limit(&self) -> usize {
        let limit = self.tags.as_ref().and_then(|tags| tags.limit);
        count(limit).unwrap_or(TagSelection::DEFAULT_LIMIT)
    }
}

impl TagSelection {
    /// The default of `limit`.
    pub const DEFAULT_LIMIT: usize = 500;
}

impl Lifecycle {
    /// The default of `settle`.
    pub const DEFAULT_SETTLE: Duration = Duration::from_hours(24);
    /// The default of `maxNewMarks`.
    pub const DEFAULT_MAX_NEW_MARKS: usize = 50;

    /// Returns the time from the end of an image's life to the date of its mark.
    #[must_use]
    pub fn grace_period(&self) -> Duration {
        self.grace_period
            .as_ref()
            .map_or(Duration::ZERO, GoDuration::get)
    }

    /// Returns the time from the end of an image's life to its mark.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle
            .as_ref()
            .map_or(Self::DEFAULT_SETTLE, GoDuration::get)
    }

    /// Returns the patterns of the other tags that keep an image in use.
    pub fn unless_tagged(&self) -> impl Iterator<Item = &str> {
        let every = self.unless_tagged.is_none().then_some("*");
        let given = self.unless_tagged.iter().flatten().map(String::as_str);
        every.into_iter().chain(given)
    }

    /// Returns the maximum number of images that are newly marked at once.
    #[must_use]
    pub fn max_new_marks(&self) -> usize {
        count(self.max_new_marks).unwrap_or(Self::DEFAULT_MAX_NEW_MARKS)
    }
}

fn count(number: Option<i64>) -> Option<usize> {
    number.and_then(|number| usize::try_from(number).ok())
}
