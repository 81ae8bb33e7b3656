//! Detach: removes attachments that equal the desired ones, by any owner. It corrects mistakes and removes attachments that the policy
//! `Retain` left.
//!
//! Finding and removing are two calls, so that nothing is removed that was not shown before.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::api::{Reason, TargetState, truncate_message};
use crate::attachment::equal;
use crate::engine::apply::remove::remove_all;
use crate::engine::claims::NoClaims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::observe::referrers::Target;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::table::{
    bound, parse_leftovers, parse_targets, print_leftovers, print_targets, update,
};
use crate::engine::records::target::TargetRecord;
use crate::engine::report::outcome::{Outcome, Report};
use crate::engine::report::remarks;
use crate::engine::report::verdict::Verdict;
use affix_registry::Session;
use affix_registry::oci::{Descriptor, Digest};

/// Reports the equal attachments as leftovers with the reason `Planned`.
pub(in crate::engine) fn find(
    context: &Context<'_>,
    mut report: Report,
    mut records: Vec<TargetRecord>,
    targets: &[Target],
) -> Report {
    let mut leftovers = Vec::new();
    for target in targets {
        let observed = &target.observed;
        let subject = &observed.subject.digest;
        let limit = context.options.warn_referrers;
        report
            .remarks
            .extend(remarks::on_size(subject, &target.size, limit));
        if let Err(problem) = &observed.listing {
            update(&mut records, target.position, |record| {
                record.fail_in(&target.slot, &problem.clone().into());
            });
            continue;
        }
        let equal = equal(observed);
        update(&mut records, target.position, |record| {
            if let Some(first) = equal.first() {
                record.attach(&target.slot, first, false, &target.content);
            }
            record.change(&target.slot, |record| match equal.len() {
                0 => record.message = Some("no equal one is there".to_owned()),
                1 => {}
                many => record.message = Some(format!("{many} equal ones are there")),
            });
        });
        let planned = equal.iter().map(|found| LeftoverRecord {
            format: target.slot.format(),
            ..LeftoverRecord::new(subject, &found.digest, Reason::Planned)
        });
        leftovers.extend(planned);
    }
    report.verdict = verdict(&records, Reason::Planned, || match leftovers.len() {
        0 => "nothing to remove: no equal attachment is there".to_owned(),
        1 => "1 attachment would be removed".to_owned(),
        more => format!("{more} attachments would be removed"),
    });
    report.skipped_not_listed = bound(&mut records);
    report.records = Some((records, leftovers));
    report
}

/// Removes the attachments in `found`.
pub(in crate::engine) async fn remove(
    session: &Session,
    found: Outcome,
    deadline: Instant,
) -> Outcome {
    let planned = parse_leftovers(found.leftovers.as_deref().unwrap_or_default());
    let attachments = planned.into_iter().map(|leftover| {
        let owned = leftover.owned();
        (Descriptor::plain("", leftover.subject, 0), owned)
    });
    let removals = remove_all(session, attachments.collect(), &NoClaims, deadline).await;
    let count = removals.len();
    let mut subjects: BTreeMap<Digest, Detached> = BTreeMap::new();
    for removal in removals {
        let detached = subjects.entry(removal.subject).or_default();
        match removal.leftover {
            None => detached
                .messages
                .extend(removal.event.map(|event| event.message)),
            Some(leftover) => detached.leftovers.push(leftover),
        }
    }
    let mut records = parse_targets(found.rows.as_deref().unwrap_or_default());
    let mut leftovers = Vec::new();
    for (subject, detached) in subjects {
        if let Some(record) = records.iter_mut().find(|record| record.digest == subject) {
            detached.update(record);
        }
        leftovers.extend(detached.leftovers);
    }
    let verdict = verdict(&records, Reason::Removed, || {
        format!(
            "{count} attachment{} removed",
            if count == 1 { "" } else { "s" }
        )
    });
    Outcome {
        rows: Some(print_targets(&records)),
        leftovers: Some(print_leftovers(&leftovers)),
        verdict,
        requests: found.requests + session.requests(),
        ..found
    }
}

/// The result of the removals from one subject.
#[derive(Default)]
struct Detached {
    messages: Vec<String>,
    leftovers: Vec<LeftoverRecord>,
}

impl Detached {
    fn update(&self, record: &mut TargetRecord) {
        if let Some(leftover) = self.leftovers.first() {
            let reason = leftover.reason.unwrap_or(Reason::RegistryUnavailable);
            let message = leftover.message.as_deref().unwrap_or_default();
            record.fail(&Failure::new(reason, message));
            return;
        }
        record.clear_attachment();
        record.message = Some(truncate_message(&self.messages.join("; ")));
    }
}

/// Returns the first failure of a target, or a message under `reason`.
fn verdict(records: &[TargetRecord], reason: Reason, message: impl FnOnce() -> String) -> Verdict {
    match records
        .iter()
        .find(|record| record.state == TargetState::Failed)
    {
        Some(record) => {
            let message = format!("{}: {}", record.name(), record.text());
            Verdict::not_ready(record.cause(), message, None)
        }
        None => Verdict::not_ready(reason, message(), None),
    }
}
