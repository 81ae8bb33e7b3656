//! Taking away what equals a resource's content, whoever made it: for mistakes, and for what a policy of `Retain` left.
//!
//! Owns what is found and its removal. Refuses to remove what was not shown before: finding and removing are two calls.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::api::{Leftover, Reason, TargetState, TargetStatus, cut_message};
use crate::attachment::equal;
use affix_registry::oci::{Descriptor, Digest};

use super::claims::NoClaims;
use super::failure::Failure;
use super::listing::Target;
use super::outcome::{Outcome, Verdict};
use super::pass::{Engine, Pass, Request};
use super::remove;
use super::rows;

impl Pass<'_> {
    /// What could be taken away, as leftovers of the reason `Planned`.
    pub(super) fn found(
        &self,
        mut outcome: Outcome,
        mut table: Vec<TargetStatus>,
        targets: &[Target],
    ) -> Outcome {
        let mut leftovers = Vec::new();
        for target in targets {
            let observed = &target.observed;
            self.warn_of_many(&mut outcome, &observed.subject, &target.extent);
            if let Err(problem) = &observed.listing {
                rows::set(&mut table, target.row, |row| {
                    rows::fail(row, &problem.clone().into())
                });
                continue;
            }
            let equal = equal(observed);
            rows::set(&mut table, target.row, |row| match equal.as_slice() {
                [] => row.message = Some("no equal one is there".to_owned()),
                [first, more @ ..] => {
                    rows::attached(row, first, false, &target.content);
                    row.message =
                        (!more.is_empty()).then(|| format!("{} equal ones are there", equal.len()));
                }
            });
            let planned = |digest: &Digest| {
                remove::leftover(&observed.subject.digest, digest, Reason::Planned, None)
            };
            leftovers.extend(equal.iter().map(|existing| planned(&existing.digest)));
        }
        outcome.verdict = verdict(&table, Reason::Planned, || match leftovers.len() {
            0 => "nothing to remove: no equal attachment is there".to_owned(),
            1 => "1 attachment would be removed".to_owned(),
            more => format!("{more} attachments would be removed"),
        });
        outcome.skipped_not_listed = rows::bound(&mut table);
        outcome.rows = Some(table);
        outcome.leftovers = Some(leftovers);
        outcome
    }
}

impl Engine {
    /// Removes what a pass of [`Mode::Detach`](super::Mode::Detach) has `found` for `request`. What could not be removed is a failed row and stays
    /// among the leftovers.
    pub async fn detach(&self, request: &Request, found: Outcome) -> Outcome {
        let deadline = Instant::now() + self.options.bounded(request.timeout);
        let reference = &request.intent.reference;
        let session = match self.registries().open(
            &reference.host,
            &reference.repository,
            request.access.clone(),
        ) {
            Ok(session) => session.until(deadline),
            Err(error) => {
                return Outcome {
                    verdict: Verdict::failed(&error.into()),
                    ..found
                };
            }
        };
        let equal = found.leftovers.iter().flatten().filter_map(|leftover| {
            Some((
                Descriptor::plain("", leftover.subject.parse().ok()?, 0),
                leftover.attachment.parse().ok()?,
            ))
        });
        let removals = remove::remove_all(&session, equal.collect(), &NoClaims, deadline).await;
        let count = removals.len();
        let mut subjects: BTreeMap<Digest, Cleared> = BTreeMap::new();
        for removal in removals {
            let cleared = subjects.entry(removal.subject).or_default();
            match removal.left {
                None => cleared.told.extend(removal.note.map(|note| note.message)),
                Some(left) => cleared.left.push(left),
            }
        }
        let mut table = found.rows.clone().unwrap_or_default();
        let mut leftovers = Vec::new();
        for (subject, done) in subjects {
            let subject = subject.to_string();
            if let Some(row) = table.iter_mut().find(|row| row.digest == subject) {
                done.tell(row);
            }
            leftovers.extend(done.left);
        }
        let verdict = verdict(&table, Reason::Removed, || {
            format!(
                "{count} attachment{} removed",
                if count == 1 { "" } else { "s" }
            )
        });
        let requests = found.requests + session.requests();
        Outcome {
            rows: Some(table),
            leftovers: Some(leftovers),
            verdict,
            requests,
            ..found
        }
    }
}

/// What came of one subject's removals.
#[derive(Default)]
struct Cleared {
    told: Vec<String>,
    left: Vec<Leftover>,
}

impl Cleared {
    fn tell(&self, row: &mut TargetStatus) {
        let failed = self.left.first();
        let reason = failed
            .and_then(|left| left.reason.as_deref()?.parse().ok())
            .unwrap_or(Reason::RegistryUnavailable);
        if let Some(left) = failed {
            rows::fail(
                row,
                &Failure::new(reason, left.message.as_deref().unwrap_or_default()),
            );
            return;
        }
        row.state = TargetState::Pending;
        row.message = Some(cut_message(&self.told.join("; ")));
        (row.attachment, row.origin, row.created, row.content) = (None, None, None, None);
    }
}

/// The first failure of a target, or `otherwise` under `reason`.
fn verdict(table: &[TargetStatus], reason: Reason, otherwise: impl FnOnce() -> String) -> Verdict {
    let failed = table.iter().find(|row| row.state == TargetState::Failed);
    let (reason, message) = match failed {
        Some(row) => {
            let reason = row
                .reason
                .as_deref()
                .and_then(|reason| reason.parse().ok())
                .unwrap_or(Reason::RegistryUnavailable);
            (
                reason,
                format!(
                    "{}: {}",
                    rows::name(row),
                    row.message.as_deref().unwrap_or_default()
                ),
            )
        }
        None => (reason, otherwise()),
    };
    Verdict {
        ready: false,
        reason,
        message,
        retry_after: None,
    }
}
