//! The status of an ImageAttachmentSet: the repositories, the table of the lifecycle, and the records for later passes
//! (docs/decisions/0114).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed generation of an object before its first pass.
const UNOBSERVED: i64 = -1;

fn unobserved() -> i64 {
    UNOBSERVED
}

/// The state that affix found in the repositories, and the state of the children.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ImageAttachmentSetStatus {
    /// The generation of the spec that this status describes; -1 before the first pass.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,

    /// Ready is present after the first pass. Resolved is True if every repository was read. Reconciling and Stalled are present only while
    /// True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// The repositories of the spec, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub repositories: Vec<RepositoryStatus>,

    /// The release cycles (major and minor) of each repository with their state, the newest first; at most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub cycles: Vec<CycleStatus>,

    /// The number of images that would be newly marked, while they are more than maxNewMarks and not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_marks: Option<i64>,

    /// The number of ImageAttachments of this set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<i64>,

    /// Ready of all ImageAttachments of this set, such as 70/72.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ready: Option<String>,

    /// The value of the annotation reconcile.fluxcd.io/requestedAt that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
}

impl ImageAttachmentSetStatus {
    /// Maximum number of cycles in status.
    pub const MAX_CYCLES: usize = 200;
}

impl Default for ImageAttachmentSetStatus {
    fn default() -> Self {
        Self {
            observed_generation: UNOBSERVED,
            conditions: Vec::new(),
            repositories: Vec::new(),
            cycles: Vec::new(),
            new_marks: None,
            children: None,
            ready: None,
            last_handled_reconcile_at: None,
        }
    }
}

/// One repository of a set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The repository, as in the spec.
    #[schemars(length(max = 512))]
    pub name: String,

    /// The number of its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<i64>,

    /// The number of selected tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<i64>,

    /// The number of its ImageAttachments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<i64>,

    /// The number of its ImageAttachments that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i64>,

    /// The reason for which the repository could not be read, in one word. Nothing changes there until it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// The explanation, with the registry's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// The digest of each selected tag, to notice a tag that was moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<String, String>,

    /// The digest of each tag that is not selected and keeps its image in use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub in_use: BTreeMap<String, String>,

    /// The time at which each tag fell out of lifecycle.keep.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub out_of_life: BTreeMap<String, Time>,

    /// The time at which each tag vanished from the list of tags. It counts as present until lifecycle.settle is over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vanished: BTreeMap<String, Time>,

    /// The images that a selected tag has left, the newest last; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub left: Vec<LeftImage>,
}

/// An image that a tag has left.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LeftImage {
    /// The digest of the image.
    #[schemars(length(max = 135))]
    pub digest: String,

    /// The tag that named it.
    #[schemars(length(max = 128))]
    pub tag: String,

    /// The time at which affix saw that the tag names another image.
    pub since: Time,
}

/// The state of a release cycle.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(inline, description = "")]
pub enum CycleState {
    /// At least one of its tags is alive.
    Alive,
    /// All of its tags are out of life, and lifecycle.settle is not over.
    Settling,
    /// All of its tags are out of life.
    EndOfLife,
}

/// One release cycle of a repository: the tags of one major and minor.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CycleStatus {
    /// The repository, as in the spec.
    #[schemars(length(max = 512))]
    pub repository: String,

    /// Major and minor, such as 1.8.
    #[schemars(length(max = 64))]
    pub cycle: String,

    /// The newest of its tags.
    #[schemars(length(max = 128))]
    pub newest: String,

    /// The number of its tags.
    pub tags: i64,

    /// Alive: at least one of its tags is alive. Settling: all are out of life, and lifecycle.settle is not over. EndOfLife: all are out
    /// of life.
    pub state: CycleState,

    /// The end-of-life date; of an Alive cycle, the date of lifecycle.cycles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub date: Option<String>,
}
