//! Attachments by outcome.

use std::collections::HashSet;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::api::{Origin, Reason, TargetState, TargetStatus};
use crate::engine::Outcome;

use super::registration::{Labels, register};

/// Counters of attachments by outcome.
#[derive(Debug)]
pub(crate) struct Attachments(Family<Labels<1>, Counter>);

/// The changes of one pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    made: u64,
    adopted: u64,
    restored: u64,
    removed: u64,
    failed: u64,
}

impl Tally {
    /// Counts the changes of a pass to the targets that status had before it. Unchanged targets do not count.
    pub(crate) fn of(before: &[TargetStatus], outcome: &Outcome) -> Self {
        let events = |reason| {
            outcome
                .notes
                .iter()
                .filter(|event| event.reason == reason)
                .count() as u64
        };
        let mut tally = Self {
            restored: events(Reason::Restored),
            removed: events(Reason::Removed),
            ..Self::default()
        };
        let known: HashSet<_> = before
            .iter()
            .filter(|row| row.state == TargetState::Attached)
            .filter_map(|row| row.attachment.as_deref())
            .collect();
        for row in outcome.rows.iter().flatten() {
            match (row.state, row.origin) {
                (TargetState::Failed, _) => tally.failed += 1,
                (TargetState::Attached, _)
                    if row
                        .attachment
                        .as_deref()
                        .is_some_and(|digest| known.contains(digest)) => {}
                (TargetState::Attached, Some(Origin::Adopted)) => tally.adopted += 1,
                (TargetState::Attached, _) => tally.made += 1,
                _ => {}
            }
        }
        tally
    }
}

impl Attachments {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = Self(register(
            registry,
            "affix_attachments",
            "Attachments by outcome",
            Family::default(),
        ));
        all.count(&Tally::default());
        all
    }

    pub(crate) fn count(&self, tally: &Tally) {
        let Tally {
            made,
            adopted,
            restored,
            removed,
            failed,
        } = *tally;
        for (outcome, count) in [
            ("made", made),
            ("adopted", adopted),
            ("restored", restored),
            ("removed", removed),
            ("failed", failed),
        ] {
            self.0.get_or_create(&[("outcome", outcome)]).inc_by(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TargetKind;
    use crate::engine::{Failure, PassEvent, Severity};

    fn row(
        digest: &str,
        state: TargetState,
        attachment: Option<&str>,
        origin: Option<Origin>,
    ) -> TargetStatus {
        serde_json::from_value(serde_json::json!({
            "kind": TargetKind::Platform, "digest": digest, "state": state, "attachment": attachment, "origin": origin,
        }))
        .unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn only_changes_of_a_pass_count_and_failures_count_each_time() {
        let attached = |digest, attachment, origin| {
            row(
                digest,
                TargetState::Attached,
                Some(attachment),
                Some(origin),
            )
        };
        let before = [
            attached("a", "1", Origin::Made),
            row("b", TargetState::Pending, Some("2"), Some(Origin::Made)),
        ];
        let mut outcome = Outcome::failed(&Failure::new(Reason::NotFound, "unused"));
        outcome.rows = Some(vec![
            attached("a", "1", Origin::Made),
            attached("b", "2", Origin::Made),
            attached("c", "3", Origin::Adopted),
            row("d", TargetState::Failed, None, None),
            row("e", TargetState::Skipped, None, None),
        ]);
        let event = |reason| PassEvent {
            severity: Severity::Normal,
            reason,
            message: String::new(),
        };
        outcome.notes = vec![
            event(Reason::Restored),
            event(Reason::Removed),
            event(Reason::Removed),
            event(Reason::TagMoved),
        ];
        assert_eq!(
            Tally::of(&before, &outcome),
            Tally {
                made: 1,
                adopted: 1,
                restored: 1,
                removed: 2,
                failed: 1
            }
        );
        outcome.rows = None;
        outcome.notes = Vec::new();
        assert_eq!(
            Tally::of(&before, &outcome),
            Tally::default(),
            "a pass without targets changes nothing"
        );
    }
}
