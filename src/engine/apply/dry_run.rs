//! Dry run: the attachments that would be removed, and a verdict that is never Ready.

use crate::api::{Reason, TargetState};
use crate::attachment::{Entry, TargetPlan};
use crate::engine::claims::{Claim, Claims};
use crate::engine::observe::referrers::Target;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::target::TargetRecord;
use crate::engine::report::verdict::{Verdict, count_targets};
use crate::engine::request::previous::PreviousState;

use super::unwanted;

/// Returns the attachments that would be removed as leftovers with the reason `Planned`.
pub(in crate::engine) async fn planned_removals(
    previous: &PreviousState,
    records: &[TargetRecord],
    targets: &[Target],
    plans: &[TargetPlan],
    claims: &impl Claims,
    entries: &[Entry],
) -> Vec<LeftoverRecord> {
    let mut future = records.to_vec();
    future.iter_mut().for_each(TargetRecord::assume_attached);
    let unwanted = unwanted::select(
        previous,
        &future,
        unwanted::planned(targets, plans),
        entries,
    );
    let mut leftovers = unwanted.kept;
    for (subject, owned) in unwanted.remove {
        let claim = claims.would_claim(&subject.digest, &owned.attachment);
        if claim.await == Claim::Unclaimed {
            leftovers.push(LeftoverRecord::of(&subject.digest, &owned, Reason::Planned));
        }
    }
    leftovers
}

/// Returns the verdict over a plan: the causes of targets that cannot be planned, or Planned.
pub(in crate::engine) fn verdict(
    over: Verdict,
    records: &[TargetRecord],
    leftovers: &[LeftoverRecord],
) -> Verdict {
    let count = |state| {
        records
            .iter()
            .filter(|record| record.state == state)
            .count()
    };
    let (planned, attached) = (count(TargetState::Planned), count(TargetState::Attached));
    if count(TargetState::Failed) > 0 {
        return over;
    }
    let removed = leftovers
        .iter()
        .filter(|leftover| leftover.reason == Some(Reason::Planned))
        .count();
    let mut parts = Vec::new();
    if planned > 0 {
        parts.push(format!(
            "{planned} of {} would be attached",
            count_targets(planned + attached)
        ));
    } else if removed == 0 {
        parts.push(format!(
            "nothing to do: {} attached",
            count_targets(attached)
        ));
    }
    if removed > 0 {
        let plural = if removed == 1 { "" } else { "s" };
        parts.push(format!("{removed} attachment{plural} would be removed"));
    }
    Verdict::not_ready(
        Reason::Planned,
        format!("dry run: {}", parts.join("; ")),
        None,
    )
}
