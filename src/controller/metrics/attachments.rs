//! What became of attachments.

use std::collections::HashSet;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::api::{Origin, Reason, TargetState, TargetStatus};
use crate::engine::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    outcome: &'static str,
}

/// Counts of attachments by what became of them.
#[derive(Debug)]
pub(crate) struct Attachments(Family<Became, Counter>);

/// What one pass changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    made: u64,
    adopted: u64,
    restored: u64,
    removed: u64,
    failed: u64,
}

impl Tally {
    /// What a pass with this outcome changed over the rows that status had before. What was there already counts as nothing.
    pub(crate) fn of(before: &[TargetStatus], outcome: &Outcome) -> Self {
        let noted = |reason| {
            outcome
                .notes
                .iter()
                .filter(|note| note.reason == reason)
                .count() as u64
        };
        let mut tally = Self {
            restored: noted(Reason::Restored),
            removed: noted(Reason::Removed),
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
        let all = Self(Family::default());
        registry.register(
            "affix_attachments",
            "Attachments by what became of them",
            all.0.clone(),
        );
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
            self.0.get_or_create(&Became { outcome }).inc_by(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TargetKind;
    use crate::engine::{Failure, Note, Severity};

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
    fn only_what_a_pass_has_changed_counts_and_a_failure_each_time() {
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
        let note = |reason| Note {
            severity: Severity::Normal,
            reason,
            message: String::new(),
        };
        outcome.notes = vec![
            note(Reason::Restored),
            note(Reason::Removed),
            note(Reason::Removed),
            note(Reason::TagMoved),
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
            "nothing was looked at"
        );
    }
}
