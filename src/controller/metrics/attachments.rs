//! Attachments by outcome.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::api::TargetState;
use crate::engine::{ChangeKind, Outcome};

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
    /// Counts the changes of a pass, and the targets that failed in it.
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let changed = |kind| {
            let changes = outcome.changes.iter();
            changes.filter(|change| change.kind == kind).count() as u64
        };
        let rows = outcome.rows.iter().flatten();
        Self {
            made: changed(ChangeKind::Made),
            adopted: changed(ChangeKind::Adopted),
            restored: changed(ChangeKind::Restored),
            removed: changed(ChangeKind::Removed),
            failed: rows.filter(|row| row.state == TargetState::Failed).count() as u64,
        }
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
    use affix_registry::oci::Digest;
    use serde_json::json;

    use super::*;
    use crate::api::{Reason, SignatureFormat};
    use crate::engine::{AttachmentChange, Failure};

    #[test]
    fn changes_and_failed_targets_of_a_pass_are_counted() {
        let change = |kind| AttachmentChange {
            kind,
            subject: Digest::sha256(b"subject"),
            attachment: Digest::sha256(b"attachment"),
            format: SignatureFormat::Bundle,
        };
        let row = |state| {
            let row = json!({"kind": "Index", "digest": "sha256:00", "state": state});
            serde_json::from_value(row).unwrap_or_else(|error| unreachable!("{error}"))
        };
        let mut outcome = Outcome::failed(&Failure::new(Reason::NotFound, "unused"));
        outcome.changes = [
            ChangeKind::Made,
            ChangeKind::Removed,
            ChangeKind::Removed,
            ChangeKind::Restored,
        ]
        .map(change)
        .to_vec();
        outcome.rows = Some(["Attached", "Failed", "Skipped"].map(row).to_vec());
        let expected = Tally {
            made: 1,
            adopted: 0,
            restored: 1,
            removed: 2,
            failed: 1,
        };
        assert_eq!(Tally::of(&outcome), expected);
    }
}
