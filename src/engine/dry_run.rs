//! What a dry run tells beside its rows: what would be removed, and a verdict that is never Ready.

use crate::api::{Leftover, Reason, TargetState, TargetStatus};
use crate::attachment::{Entry, TargetPlan};

use super::claims::{Claim, Claims};
use super::listing::Target;
use super::outcome::Verdict;
use super::pass::Pass;
use super::remove;

impl Pass<'_> {
    /// What this resource made and would not keep, as leftovers of the reason `Planned`.
    pub(super) async fn would_remove(
        &self,
        table: &[TargetStatus],
        targets: &[Target],
        plans: &[TargetPlan],
        claims: &impl Claims,
        entries: &[Entry],
    ) -> Vec<Leftover> {
        let mut future = table.to_vec();
        for row in future
            .iter_mut()
            .filter(|row| row.state == TargetState::Planned)
        {
            *row = TargetStatus {
                state: TargetState::Attached,
                attachment: None,
                origin: None,
                ..row.clone()
            };
        }
        let plans = targets
            .iter()
            .map(|target| (&target.observed.subject, target.row))
            .zip(plans);
        let unwanted = remove::unwanted(&self.request.memory, &future, plans, entries);
        let mut leftovers = unwanted.kept;
        for (subject, attachment) in unwanted.remove {
            if claims.would_claim(&subject.digest, &attachment).await == Claim::Nobody {
                leftovers.push(remove::leftover(
                    &subject.digest,
                    &attachment,
                    Reason::Planned,
                    None,
                ));
            }
        }
        leftovers
    }
}

/// The verdict over a plan: what cannot be planned is said as it is, all else is Planned.
pub(super) fn verdict(over: Verdict, rows: &[TargetStatus], leftovers: &[Leftover]) -> Verdict {
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    let (planned, attached) = (count(TargetState::Planned), count(TargetState::Attached));
    if count(TargetState::Failed) > 0 {
        return over;
    }
    let removed = leftovers
        .iter()
        .filter(|leftover| leftover.reason.as_deref() == Some(Reason::Planned.as_str()))
        .count();
    let targets = |count: usize| format!("{count} target{}", if count == 1 { "" } else { "s" });
    let mut parts = Vec::new();
    if planned > 0 {
        parts.push(format!(
            "{planned} of {} would be attached",
            targets(planned + attached)
        ));
    } else if removed == 0 {
        parts.push(format!("nothing to do: {} attached", targets(attached)));
    }
    if removed > 0 {
        parts.push(format!(
            "{removed} attachment{} would be removed",
            if removed == 1 { "" } else { "s" }
        ));
    }
    Verdict {
        ready: false,
        reason: Reason::Planned,
        message: format!("dry run: {}", parts.join("; ")),
        retry_after: None,
    }
}
