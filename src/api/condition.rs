//! Conditions: how one list follows from the last one.
//!
//! Owns: the five types, the time of the last transition, the generation that each condition speaks of, and the length of
//! messages. Refuses: to keep Reconciling or Stalled when they are not True; their absence is what readers wait for.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::reason::Reason;

/// The longest message that a condition carries, in bytes: status stays far below what etcd takes.
pub const MESSAGE_MAX_BYTES: usize = 1024;

/// The types of conditions that affix writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Every selected target has its attachment.
    Ready,
    /// The image was found, and its manifests were read.
    Resolved,
    /// The attachments are in place.
    Attached,
    /// Work is under way or will be tried again; present only while True.
    Reconciling,
    /// Only the user can mend what is wrong; present only while True.
    Stalled,
}

impl ConditionType {
    /// The name as it stands in the list.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Resolved => "Resolved",
            Self::Attached => "Attached",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }

    /// Whether the condition is kept only while it is True.
    #[must_use]
    pub const fn only_while_true(self) -> bool {
        matches!(self, Self::Reconciling | Self::Stalled)
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Builds the next list of conditions from the last one.
///
/// Types that affix does not know are kept as they are. The list is sorted: Ready first, then the others in the order of
/// [`ConditionType`], then the unknown ones, so that equal content is equal bytes.
#[derive(Clone, Debug)]
pub struct Conditions {
    list: Vec<Condition>,
    generation: i64,
    now: Timestamp,
}

impl Conditions {
    /// Starts from the conditions in status, for a pass over `generation` at `now` (kept in whole seconds).
    #[must_use]
    pub fn from_previous(previous: &[Condition], generation: i64, now: Timestamp) -> Self {
        Self { list: previous.to_vec(), generation, now: whole_seconds(now) }
    }

    /// Sets a condition. Its `lastTransitionTime` moves only when its status flips. `Reconciling` and `Stalled` that are not
    /// True are removed.
    pub fn set(&mut self, kind: ConditionType, status: bool, reason: Reason, message: &str) -> &mut Self {
        self.set_status(kind, if status { "True" } else { "False" }, reason, message)
    }

    /// Sets a condition whose truth is not known.
    pub fn set_unknown(&mut self, kind: ConditionType, reason: Reason, message: &str) -> &mut Self {
        self.set_status(kind, "Unknown", reason, message)
    }

    /// Removes a condition.
    pub fn remove(&mut self, kind: ConditionType) -> &mut Self {
        self.list.retain(|condition| condition.type_ != kind.as_str());
        self
    }

    /// The list, sorted.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Condition> {
        self.list.sort_by(|a, b| (rank(&a.type_), &a.type_).cmp(&(rank(&b.type_), &b.type_)));
        self.list
    }

    fn set_status(&mut self, kind: ConditionType, status: &str, reason: Reason, message: &str) -> &mut Self {
        let since = find(&self.list, kind)
            .filter(|previous| previous.status == status)
            .map_or_else(|| Time(self.now), |previous| previous.last_transition_time.clone());
        self.remove(kind);
        if status == "True" || !kind.only_while_true() {
            self.list.push(Condition {
                type_: kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: reason.as_str().to_owned(),
                message: cut(message),
                observed_generation: Some(self.generation),
                last_transition_time: since,
            });
        }
        self
    }
}

/// The condition of a type, where the list has it.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Cuts a message to [`MESSAGE_MAX_BYTES`] between two characters; what was cut ends in `…`.
#[must_use]
pub fn cut(message: &str) -> String {
    const MORE: &str = "…";
    if message.len() <= MESSAGE_MAX_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MESSAGE_MAX_BYTES - MORE.len());
    let kept = message.get(..end).unwrap_or_default();
    format!("{kept}{MORE}")
}

/// The same instant without its fraction of a second, as Kubernetes writes it.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn rank(type_: &str) -> usize {
    const ORDER: [ConditionType; 5] =
        [ConditionType::Ready, ConditionType::Resolved, ConditionType::Attached, ConditionType::Reconciling, ConditionType::Stalled];
    ORDER.iter().position(|kind| kind.as_str() == type_).unwrap_or(ORDER.len())
}
