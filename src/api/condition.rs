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

/// The most conditions that status takes.
const MOST_CONDITIONS: usize = 16;

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
    /// Every type.
    pub const ALL: [Self; 5] = [
        Self::Ready,
        Self::Resolved,
        Self::Attached,
        Self::Reconciling,
        Self::Stalled,
    ];

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
        Self {
            list: previous.to_vec(),
            generation,
            now: whole_seconds(now),
        }
    }

    /// Sets a condition. Its `lastTransitionTime` moves only when its status flips. `Reconciling` and `Stalled` that are not
    /// True are removed.
    pub fn set(
        &mut self,
        kind: ConditionType,
        status: bool,
        reason: Reason,
        message: &str,
    ) -> &mut Self {
        self.set_status(kind, if status { "True" } else { "False" }, reason, message)
    }

    /// Ends a pass: Ready from the reason, and what follows from it. Ready is True for [`Reason::READY`] only; a reason that only
    /// the user can mend is Stalled, one that is retried or still in progress is Reconciling, any other is neither.
    pub fn conclude(&mut self, reason: Reason, message: &str) -> &mut Self {
        self.conclude_for(reason, &[reason], message)
    }

    /// The same where Ready has several `causes`: it is Reconciling while one of them is retried or in progress, and else Stalled where
    /// one of them is.
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

    /// Sets a condition whose truth is not known.
    pub fn set_unknown(&mut self, kind: ConditionType, reason: Reason, message: &str) -> &mut Self {
        self.set_status(kind, "Unknown", reason, message)
    }

    /// Removes a condition.
    pub fn remove(&mut self, kind: ConditionType) -> &mut Self {
        self.list
            .retain(|condition| condition.type_ != kind.as_str());
        self
    }

    /// The list, sorted, and as long as status takes it: of unknown types the last ones go.
    #[must_use]
    pub fn into_list(mut self) -> Vec<Condition> {
        self.list
            .sort_by(|a, b| (rank(&a.type_), &a.type_).cmp(&(rank(&b.type_), &b.type_)));
        self.list.truncate(MOST_CONDITIONS);
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

/// The condition of a type, where the list has it.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
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
    fn the_time_of_the_last_transition_moves_only_when_the_status_flips() {
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
    fn reconciling_and_stalled_are_there_only_while_true() {
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
    fn conditions_of_others_stay_and_the_order_is_always_the_same() {
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
    fn a_time_is_kept_in_whole_seconds_so_that_it_reads_back_equal() {
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
    fn of_several_causes_one_that_is_tried_again_is_reconciling_and_else_one_that_only_the_user_can_mend_is_stalled()
     {
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

    /// The reasons that a pass can end with.
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
        fn the_rules_of_status_hold_after_any_sequence_of_passes(
            passes in prop::collection::vec((conclusion(), any::<bool>(), "\\PC{1,1500}", 0_i64..3), 1..12)
        ) {
            let (mut list, mut generation) = (Vec::new(), 1);
            for (now, (reason, resolved, message, newer)) in passes.into_iter().enumerate() {
                generation += newer;
                let mut conditions = Conditions::from_previous(&list, generation, at(i64::try_from(now).unwrap()));
                let why = if resolved { Reason::Resolved } else { reason };
                conditions.set(ConditionType::Resolved, resolved, why, &message);
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
