//! The conditions of the status.
//!
//! A list of conditions is built from the previous list, because the time of the last transition depends on it. Reconciling and Stalled are
//! present only while they are True: kstatus and other readers wait for their absence.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::reason::Reason;

/// The maximum length of a message, in bytes. It keeps the status far below the limit of etcd.
pub const MESSAGE_MAX_BYTES: usize = 1024;

/// The maximum number of conditions of a status.
const MAX_CONDITIONS: usize = 16;

/// The types of conditions that affix writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Every selected target has its attachment.
    Ready,
    /// The image exists, and its manifests were read.
    Resolved,
    /// The attachments exist in the registry.
    Attached,
    /// Work is in progress or will be retried. It is present only while True.
    Reconciling,
    /// Only the user can fix the problem. It is present only while True.
    Stalled,
}

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Resolved,
        Self::Attached,
        Self::Reconciling,
        Self::Stalled,
    ];

    /// Returns the name of the type.
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

    /// Returns whether the condition is present only while it is True.
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

/// Builds a list of conditions from the previous list.
///
/// Unknown types are kept unchanged. The list is sorted, so that equal content is equal bytes: first the types of [`ConditionType`] in their
/// order, then unknown types.
#[derive(Clone, Debug)]
pub struct Conditions {
    list: Vec<Condition>,
    generation: i64,
    now: Timestamp,
}

impl Conditions {
    /// Starts with the conditions of the status. Times are kept in whole seconds.
    #[must_use]
    pub fn from_previous(previous: &[Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            list: previous.to_vec(),
            generation,
            now: whole_seconds(now),
        }
    }

    /// Sets a condition. Its `lastTransitionTime` changes only with its status. `Reconciling` and `Stalled` are removed unless they are
    /// True.
    pub fn set(
        &mut self,
        kind: ConditionType,
        status: bool,
        reason: Reason,
        message: &str,
    ) -> &mut Self {
        self.set_status(kind, if status { "True" } else { "False" }, reason, message)
    }

    /// Sets Ready, Stalled and Reconciling at the end of a pass. Ready is True for the reasons of [`Reason::READY`] only. A reason that only
    /// the user can fix sets Stalled. A reason that is retried or in progress sets Reconciling.
    pub fn conclude(&mut self, reason: Reason, message: &str) -> &mut Self {
        self.conclude_for(reason, &[reason], message)
    }

    /// Does the same for several `causes`. Reconciling is set if one of them is retried or in progress. Otherwise Stalled is set if one of
    /// them needs the user.
    pub fn conclude_for(&mut self, reason: Reason, causes: &[Reason], message: &str) -> &mut Self {
        let hurried = causes.iter().any(|cause| cause.is_hurried());
        let stalled = causes
            .iter()
            .find(|cause| cause.is_stalled())
            .filter(|_| !hurried);
        let reconciling = if causes.iter().any(|cause| cause.is_retried()) {
            Reason::ProgressingWithRetry
        } else {
            Reason::Progressing
        };
        self.set(
            ConditionType::Ready,
            Reason::READY.contains(&reason),
            reason,
            message,
        );
        self.set(
            ConditionType::Stalled,
            stalled.is_some(),
            stalled.copied().unwrap_or(reason),
            message,
        );
        self.set(ConditionType::Reconciling, hurried, reconciling, message)
    }

    /// Keeps the conditions for the generation of a suspended resource. Ready stays as the last pass set it. Without such a pass it is
    /// Unknown. Reconciling is removed, because nothing is retried.
    pub fn suspend(&mut self, message: &str) -> &mut Self {
        self.remove(ConditionType::Reconciling);
        for condition in &mut self.list {
            if ConditionType::ALL
                .iter()
                .any(|kind| kind.as_str() == condition.type_)
            {
                condition.observed_generation = Some(self.generation);
            }
        }
        let is_concluded = find(&self.list, ConditionType::Ready).is_some_and(|ready| {
            ready.status != "Unknown" && ready.reason != Reason::Progressing.as_str()
        });
        if is_concluded {
            self
        } else {
            self.set_unknown(ConditionType::Ready, Reason::Suspended, message)
        }
    }

    /// Sets a condition to Unknown.
    pub fn set_unknown(&mut self, kind: ConditionType, reason: Reason, message: &str) -> &mut Self {
        self.set_status(kind, "Unknown", reason, message)
    }

    /// Removes a condition.
    pub fn remove(&mut self, kind: ConditionType) -> &mut Self {
        self.list
            .retain(|condition| condition.type_ != kind.as_str());
        self
    }

    /// Returns the sorted list, cut to the maximum length of a status.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Condition> {
        self.list
            .sort_by(|a, b| (rank(&a.type_), &a.type_).cmp(&(rank(&b.type_), &b.type_)));
        self.list.truncate(MAX_CONDITIONS);
        self.list
    }

    fn set_status(
        &mut self,
        kind: ConditionType,
        status: &str,
        reason: Reason,
        message: &str,
    ) -> &mut Self {
        let since = find(&self.list, kind)
            .filter(|previous| previous.status == status)
            .map_or_else(
                || Time(self.now),
                |previous| previous.last_transition_time.clone(),
            );
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

/// Returns the condition of a type.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
}

/// Cuts a message to [`MESSAGE_MAX_BYTES`] between two characters. A cut message ends in `…`.
#[must_use]
pub fn cut(message: &str) -> String {
    const ELLIPSIS: &str = "…";
    if message.len() <= MESSAGE_MAX_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MESSAGE_MAX_BYTES - ELLIPSIS.len());
    let kept = message.get(..end).unwrap_or_default();
    format!("{kept}{ELLIPSIS}")
}

/// Cuts off the fraction of a second, as Kubernetes does.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn rank(type_: &str) -> usize {
    const ORDER: [ConditionType; 5] = [
        ConditionType::Ready,
        ConditionType::Resolved,
        ConditionType::Attached,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ];
    ORDER
        .iter()
        .position(|kind| kind.as_str() == type_)
        .unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use proptest::prelude::*;

    use super::*;
    use crate::api::{
        ImageAttachment, ImageAttachmentSpec, ImageAttachmentStatus, check_status_rules,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn since(list: &[Condition], kind: ConditionType) -> i64 {
        find(list, kind).unwrap().last_transition_time.0.as_second()
    }

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let mut first = Conditions::from_previous(&[], 1, at(100));
        let first = { first.conclude(Reason::RateLimited, "slow down").clone() }.into_list();
        let mut same = Conditions::from_previous(&first, 2, at(200));
        let same = { same.conclude(Reason::NotFound, "no such image").clone() }.into_list();
        assert_eq!(since(&same, ConditionType::Ready), 100);
        let ready = find(&same, ConditionType::Ready).unwrap();
        assert_eq!(
            (
                ready.reason.as_str(),
                ready.message.as_str(),
                ready.observed_generation
            ),
            ("NotFound", "no such image", Some(2))
        );

        let mut flipped = Conditions::from_previous(&same, 2, at(300));
        let flipped = { flipped.conclude(Reason::Attached, "2 of 2").clone() }.into_list();
        assert_eq!(since(&flipped, ConditionType::Ready), 300);
    }

    #[test]
    fn reconciling_and_stalled_are_present_only_while_true() {
        let mut conditions = Conditions::from_previous(&[], 1, at(1));
        let types = |conditions: &Conditions| {
            conditions
                .clone()
                .into_list()
                .into_iter()
                .map(|condition| condition.type_)
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (reason, expected) in [
            (Reason::Progressing, "Ready Reconciling"),
            (Reason::RegistryUnavailable, "Ready Reconciling"),
            (Reason::InvalidSpec, "Ready Stalled"),
            (Reason::Suspended, "Ready"),
            (Reason::Conflict, "Ready"),
            (Reason::Attached, "Ready"),
        ] {
            conditions.conclude(reason, "text");
            assert_eq!(types(&conditions), expected, "{reason}");
        }
    }

    #[test]
    fn a_suspended_resource_keeps_ready_of_its_last_pass() {
        let ready = |list: &[Condition]| {
            let ready = find(list, ConditionType::Ready).unwrap();
            format!(
                "{} {} {:?}",
                ready.status, ready.reason, ready.observed_generation
            )
        };
        for (reason, kept) in [
            (None, "Unknown Suspended Some(2)"),
            (Some(Reason::Progressing), "Unknown Suspended Some(2)"),
            (Some(Reason::Attached), "True Attached Some(2)"),
            (Some(Reason::NotFound), "False NotFound Some(2)"),
            (Some(Reason::InvalidSpec), "False InvalidSpec Some(2)"),
        ] {
            let mut before = Conditions::from_previous(&[], 1, at(1));
            if let Some(reason) = reason {
                before.set(ConditionType::Resolved, true, Reason::Resolved, "an index");
                before.conclude(reason, "text");
            }
            let mut suspended = Conditions::from_previous(&before.into_list(), 2, at(2));
            let list = suspended.suspend("spec.suspend is set").clone().into_list();
            assert_eq!(ready(&list), kept, "{reason:?}");
            assert!(find(&list, ConditionType::Reconciling).is_none());
            assert!(
                list.iter()
                    .all(|condition| condition.observed_generation == Some(2))
            );
        }
    }

    #[test]
    fn foreign_conditions_stay_and_the_order_is_stable() {
        let foreign = Condition {
            type_: "example.com/Scanned".to_owned(),
            status: "True".to_owned(),
            reason: "Scanned".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(7)),
        };
        let mut conditions = Conditions::from_previous(std::slice::from_ref(&foreign), 1, at(8));
        conditions.set(
            ConditionType::Attached,
            false,
            Reason::Progressing,
            "0 of 2",
        );
        conditions.set(
            ConditionType::Resolved,
            true,
            Reason::Resolved,
            "an index of 2",
        );
        conditions.set_unknown(ConditionType::Ready, Reason::Progressing, "first pass");
        let list = conditions.into_list();
        let types: Vec<_> = list
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect();
        assert_eq!(
            types,
            ["Ready", "Resolved", "Attached", "example.com/Scanned"]
        );
        assert_eq!(list.last(), Some(&foreign));
    }

    #[test]
    fn times_are_kept_in_whole_seconds() {
        let mut conditions = Conditions::from_previous(
            &[],
            1,
            Timestamp::from_millisecond(1_742_433_630_999).unwrap(),
        );
        conditions.conclude(Reason::Attached, "2 of 2");
        let list = conditions.into_list();
        let text = serde_json::to_string(&list).unwrap();
        assert!(
            text.contains(r#""lastTransitionTime":"2025-03-20T01:20:30Z""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Vec<Condition>>(&text).unwrap(), list);
    }

    #[test]
    fn of_several_causes_a_retried_one_sets_reconciling() {
        use Reason::{Conflict, ManifestRejected, PartiallyAttached, Progressing, RateLimited};
        for (causes, reconciling, stalled) in [
            (
                &[ManifestRejected, RateLimited][..],
                Some("ProgressingWithRetry"),
                None,
            ),
            (&[ManifestRejected, Progressing], Some("Progressing"), None),
            (
                &[Conflict, ManifestRejected],
                None,
                Some("ManifestRejected"),
            ),
            (&[Conflict], None, None),
        ] {
            let mut conditions = Conditions::from_previous(&[], 1, at(1));
            let list = {
                conditions
                    .conclude_for(PartiallyAttached, causes, "1 of 3")
                    .clone()
            }
            .into_list();
            let of = |kind| find(&list, kind).map(|condition| condition.reason.as_str());
            assert_eq!(
                (of(ConditionType::Reconciling), of(ConditionType::Stalled)),
                (reconciling, stalled),
                "{causes:?}"
            );
            assert_eq!(of(ConditionType::Ready), Some("PartiallyAttached"));
        }
    }

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(MESSAGE_MAX_BYTES)).len(), MESSAGE_MAX_BYTES);
        for message in [
            "x".repeat(MESSAGE_MAX_BYTES + 1),
            "é".repeat(MESSAGE_MAX_BYTES),
            "🦀".repeat(MESSAGE_MAX_BYTES),
        ] {
            let cut = cut(&message);
            assert!(
                cut.len() <= MESSAGE_MAX_BYTES && cut.len() > MESSAGE_MAX_BYTES - 8,
                "{} bytes",
                cut.len()
            );
            assert!(
                cut.ends_with('…') && message.starts_with(cut.trim_end_matches('…')),
                "{cut}"
            );
        }
    }

    /// Returns a strategy for the reasons that a pass can end with.
    fn conclusion() -> impl Strategy<Value = Reason> {
        let all: Vec<_> = Reason::ALL
            .iter()
            .copied()
            .filter(|reason| {
                Reason::READY.contains(reason)
                    || reason.is_stalled()
                    || reason.is_retried()
                    || [
                        Reason::Suspended,
                        Reason::Planned,
                        Reason::Conflict,
                        Reason::RemovalRefused,
                    ]
                    .contains(reason)
            })
            .collect();
        prop::sample::select(all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_status_rules_hold_after_any_sequence_of_passes(
            passes in prop::collection::vec((conclusion(), any::<bool>(), "\\PC{1,1500}", 0_i64..3), 1..12)
        ) {
            let (mut list, mut generation) = (Vec::new(), 1);
            for (now, (reason, resolved, message, newer)) in passes.into_iter().enumerate() {
                generation += newer;
                let mut conditions = Conditions::from_previous(&list, generation, at(i64::try_from(now).unwrap()));
                let reason_of_resolved = if resolved { Reason::Resolved } else { reason };
                conditions.set(ConditionType::Resolved, resolved, reason_of_resolved, &message);
                conditions.set(ConditionType::Attached, reason == Reason::Attached, reason, &message);
                conditions.conclude(reason, &message);
                list = conditions.into_list();
                let object = ImageAttachment {
                    metadata: ObjectMeta { generation: Some(generation), ..ObjectMeta::default() },
                    spec: ImageAttachmentSpec::new("registry.example.com/team/app:v1"),
                    status: Some(ImageAttachmentStatus {
                        observed_generation: generation,
                        conditions: list.clone(),
                        ..ImageAttachmentStatus::default()
                    }),
                };
                prop_assert_eq!(check_status_rules(&object), Vec::<String>::new());
            }
        }
    }
}
