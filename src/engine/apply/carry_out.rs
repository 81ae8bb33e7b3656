//! Carries out the plan of all targets: save the intent, push, clean up.

use std::collections::BTreeSet;

use futures::FutureExt as _;

use crate::api::{Reason, TargetState};
use crate::attachment::{
    Action, Created, DesiredContent, Entry, Existing, FetchedReferrer, FutureMark, TargetPlan,
};
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::journal::{Draft, Journal};
use crate::engine::observe::older_signatures;
use crate::engine::observe::referrers::Target;
use crate::engine::records::table::update;
use crate::engine::records::target::TargetRecord;
use crate::engine::report::change::{AttachmentChange, ChangeKind, new_attachments};
use crate::engine::report::event::PassEvent;
use crate::engine::report::outcome::Report;
use crate::engine::report::{leftovers, remarks};
use crate::engine::request::build::Mode;
use affix_registry::oci::{Descriptor, Digest};

use super::build::{build, check};
use super::cleanup::{CleanedUp, clean_up};
use super::conclude::conclude;
use super::dry_run;
use super::push::{Push, Pushed, Upload, push_all};
use super::unwanted;

/// The planned work of a pass.
pub(in crate::engine) struct Work<'a, 'b> {
    /// Every manifest that this pass has read.
    pub(in crate::engine) entries: &'a [Entry],
    pub(in crate::engine) records: Vec<TargetRecord>,
    pub(in crate::engine) targets: &'a [Target],
    /// The plan of each target.
    pub(in crate::engine) plans: &'a [TargetPlan],
    /// The upload of the empty blob, which has started.
    pub(in crate::engine) empty: Upload<'b>,
}

/// A push of a target. `supersedes`: it outranks a newer foreign mark.
struct PlannedPush<'a> {
    target: &'a Target,
    push: Push,
    supersedes: bool,
}

/// Carries out the plan and concludes the report.
pub(in crate::engine) async fn carry_out(
    context: &Context<'_>,
    mut report: Report,
    work: Work<'_, '_>,
    journal: &impl Journal,
    claims: &impl Claims,
) -> Result<Report, Failure> {
    let Work {
        entries,
        mut records,
        targets,
        plans,
        empty,
    } = work;
    let previous = &context.request.previous;
    // Attachments that an earlier pass saved and never pushed.
    let absent: Vec<Digest> = targets
        .iter()
        .flat_map(|target| target.unlisted.absent.iter().cloned())
        .collect();
    report.remarks.extend(remarks_of(context, targets, plans));
    let older = older_signatures::find(context, targets, plans).await;
    let warning: Vec<String> = older.remark().into_iter().collect();
    report.remarks.extend(warning.iter().cloned());
    let decided = decide(context, &mut records, targets, plans);
    if context.request.mode == Mode::Plan {
        set_planned(context, &mut records, &decided);
        let leftovers =
            dry_run::planned_removals(previous, &records, targets, plans, claims, entries).await;
        let report = conclude(context, report, records, leftovers, &absent, None);
        let verdict =
            dry_run::verdict(report.verdict.clone(), report.targets(), report.leftovers());
        return Ok(Report { verdict, ..report });
    }
    let planned = prepare(context, &mut records, decided).await;
    report.events.extend(logged_event(context, &planned));
    if !planned.is_empty() {
        let draft = Saved {
            step: "attaching",
            remarks: if warning.is_empty() {
                &[]
            } else {
                &report.remarks
            },
        };
        save(context, journal, draft, &report, &records, &absent).await?;
    }
    let listing_delay = targets.iter().filter_map(|target| target.retry_after).max();
    let push_delay = push_planned(context, &mut report, &mut records, &planned, empty).await;
    let is_done = |subject: &Digest| {
        let record = records.iter().find(|record| record.digest == *subject);
        record.is_some_and(TargetRecord::has_referrer)
    };
    let hidden = older.event(is_done);
    report
        .events
        .extend(hidden.map(|message| PassEvent::warning(Reason::OlderSignaturesHidden, message)));
    for target in targets {
        if let Some(record) = records.get(target.position) {
            journal.progress(&record.into());
        }
    }
    let new = new_attachments(context, &records, targets, &report.changes);
    report.changes.extend(new);
    let unwanted = unwanted::select(
        previous,
        &records,
        unwanted::planned(targets, plans),
        entries,
    );
    // The new attachments are saved before the old ones are removed: a removal may be slow or interrupted.
    if !planned.is_empty() && !unwanted.is_idle() {
        let draft = Saved {
            step: "removing what is no longer wanted",
            remarks: &[],
        };
        save(context, journal, draft, &report, &records, &absent).await?;
    }
    let CleanedUp {
        mut leftovers,
        mut gone,
        retry_after,
    } = clean_up(context, &mut report, unwanted, claims).await;
    report.outranked = outranked(&records, targets);
    gone.extend(absent);
    leftovers.retain(|leftover| !gone.contains(&leftover.attachment));
    let retry_after = listing_delay.max(push_delay).max(retry_after);
    Ok(conclude(
        context,
        report,
        records,
        leftovers,
        &gone,
        retry_after,
    ))
}

/// Returns the event for signatures that are in a transparency log now.
fn logged_event(context: &Context<'_>, planned: &[PlannedPush<'_>]) -> Option<PassEvent> {
    let trust = context.request.key.as_ref()?.trust()?;
    let is_new = |push: &&PlannedPush<'_>| {
        let observed = &push.target.observed;
        matches!(observed.wanted, DesiredContent::Signature { .. })
            && push.target.unlisted.own.is_none()
    };
    let count = planned.iter().filter(is_new).count();
    let message = format!(
        "{count} new signatures are in the transparency log {}, which is a publication: no entry can be removed",
        trust.log_hosts(context.now).join(", ")
    );
    (count > 0).then(|| PassEvent::normal(Reason::SignaturesLogged, message))
}

/// Returns the listed marks that the attached one outranks: those of its type with a date in the same annotation.
fn outranked(records: &[TargetRecord], targets: &[Target]) -> BTreeSet<Digest> {
    let mut outranked = BTreeSet::new();
    for target in targets {
        let record = records.get(target.position);
        let attached = record.filter(|record| record.state == TargetState::Attached);
        let (
            Some(record),
            Ok(entries),
            DesiredContent::Content {
                content,
                mark: Some(keys),
            },
        ) = (attached, &target.observed.listing, &target.observed.wanted)
        else {
            continue;
        };
        let is_mark = |entry: &&Descriptor| {
            let fetched = target.observed.fetched.get(&entry.digest);
            let has_date = fetched.map_or_else(
                || entry.annotations.contains_key(&keys.annotation),
                FetchedReferrer::has_date,
            );
            entry.artifact_type == content.artifact_type.as_str()
                && has_date
                && record.attachment.as_ref() != Some(&entry.digest)
        };
        outranked.extend(
            entries
                .iter()
                .filter(is_mark)
                .map(|mark| mark.digest.clone()),
        );
    }
    outranked
}

/// Returns the remarks on future marks, the earliest first, and on subjects with many referrers.
fn remarks_of(context: &Context<'_>, targets: &[Target], plans: &[TargetPlan]) -> Vec<String> {
    let mut marks: Vec<&FutureMark> = plans.iter().flat_map(|plan| &plan.notes).collect();
    marks.sort();
    let sizes = targets.iter().flat_map(|target| {
        let subject = &target.observed.subject.digest;
        remarks::on_size(subject, &target.size, context.options.warn_referrers)
    });
    let mut remarks: Vec<String> = marks.into_iter().map(ToString::to_string).collect();
    remarks.extend(sizes);
    // The attachments of one target share a listing.
    remarks.dedup();
    remarks
}

/// An attachment that is to be made.
struct Decided<'a> {
    target: &'a Target,
    created: Created,
    supersedes: bool,
}

/// Updates the records by their plans and returns the attachments to make.
fn decide<'a>(
    context: &Context<'_>,
    records: &mut [TargetRecord],
    targets: &'a [Target],
    plans: &[TargetPlan],
) -> Vec<Decided<'a>> {
    let generation = context.request.previous.generation;
    let mut decided = Vec::new();
    for (target, plan) in targets.iter().zip(plans) {
        let (position, slot) = (target.position, &target.slot);
        update(records, position, |record| {
            record.note_future_marks(&plan.notes);
        });
        match &plan.action {
            Action::Refuse(problem) => {
                update(records, position, |record| {
                    record.fail_in(slot, &problem.clone().into());
                });
            }
            Action::Keep { existing, made } => {
                update(records, position, |record| {
                    set_attached(record, target, existing, *made, generation);
                });
            }
            Action::Attach {
                created,
                supersedes,
            } => decided.push(Decided {
                target,
                created: *created,
                supersedes: *supersedes,
            }),
        }
    }
    decided
}

/// Marks the attachments that a pass would make.
fn set_planned(context: &Context<'_>, records: &mut [TargetRecord], decided: &[Decided<'_>]) {
    for Decided {
        target, created, ..
    } in decided
    {
        let result = check(context, target, *created);
        update(records, target.position, |record| match result {
            Ok(()) => record.change(&target.slot, |record| record.state = TargetState::Planned),
            Err(problem) => record.fail_in(&target.slot, &problem.into()),
        });
    }
}

/// Builds the attachments, updates the records and returns the pushes.
async fn prepare<'a>(
    context: &Context<'_>,
    records: &mut [TargetRecord],
    decided: Vec<Decided<'a>>,
) -> Vec<PlannedPush<'a>> {
    let wanted: Vec<(&Target, Created)> = decided
        .iter()
        .map(|decided| (decided.target, decided.created))
        .collect();
    let contents = build(context, &wanted).await;
    let mut planned = Vec::new();
    for (decided, content) in decided.into_iter().zip(contents) {
        let Decided {
            target, supersedes, ..
        } = decided;
        let (position, slot) = (target.position, &target.slot);
        let content = match content {
            Ok(content) => content,
            Err(problem) => {
                update(records, position, |record| {
                    record.fail_in(slot, &problem.into());
                });
                continue;
            }
        };
        let created = content.created().unwrap_or(decided.created);
        update(records, position, |record| {
            record.intend(slot, &content.id(), created, &target.content);
            if supersedes {
                record.superseded_for = Some(context.request.previous.generation);
            }
        });
        let push = Push {
            subject: target.observed.subject.clone(),
            created,
            content,
            seen_before: was_written(context, target)
                || target.size.referrers > 0
                || target
                    .observed
                    .listing
                    .as_ref()
                    .is_ok_and(|listed| !listed.is_empty()),
        };
        planned.push(PlannedPush {
            target,
            push,
            supersedes,
        });
    }
    planned
}

/// Returns whether status proves that the fallback tag, or the signature tag, existed. A signature that was only intended proves nothing
/// about the signature tag.
fn was_written(context: &Context<'_>, target: &Target) -> bool {
    let subject = &target.observed.subject.digest;
    let before = context.request.previous.target(subject);
    let before = before.and_then(|before| before.in_slot(&target.slot));
    target.observed.known.attachment.is_some()
        && (target.is_referrer()
            || before.is_some_and(|before| before.state == TargetState::Attached))
}

/// Pushes the attachments and updates the records. Returns the longest delay that the registry asked for.
async fn push_planned(
    context: &Context<'_>,
    report: &mut Report,
    records: &mut [TargetRecord],
    planned: &[PlannedPush<'_>],
    empty: Upload<'_>,
) -> Option<std::time::Duration> {
    let generation = context.request.previous.generation;
    let pushes: Vec<Push> = planned.iter().map(|planned| planned.push.clone()).collect();
    let results = push_all(context, &pushes, empty).boxed().await;
    let mut retry_after = None;
    for (
        PlannedPush {
            target,
            push,
            supersedes,
        },
        (result, events),
    ) in planned.iter().zip(results)
    {
        report.events.extend(events);
        match result {
            Ok(Pushed::DesiredContent) => {
                let existing = Existing {
                    digest: push.content.id(),
                    created: Some(push.created),
                };
                update(records, target.position, |record| {
                    set_attached(record, target, &existing, true, generation);
                });
                if *supersedes {
                    let message = format!(
                        "{} now outranks a newer mark of another owner on {}",
                        existing.digest, push.subject.digest
                    );
                    report
                        .events
                        .push(PassEvent::normal(Reason::Superseded, message));
                }
                if let Some(event) = restored_event(context, target, push) {
                    report.events.push(event);
                    report.changes.push(AttachmentChange {
                        kind: ChangeKind::Restored,
                        subject: push.subject.digest.clone(),
                        attachment: push.content.id(),
                        format: target.slot.format(),
                    });
                }
            }
            Ok(Pushed::NotListedYet) => {}
            Err(failure) => {
                retry_after = retry_after.max(failure.retry_after);
                update(records, target.position, |record| {
                    record.fail_in(&target.slot, &failure);
                });
            }
        }
    }
    retry_after
}

/// Sets the state to attached, with the reason `Superseded` if the attachment outranks a foreign one for this generation.
fn set_attached(
    record: &mut TargetRecord,
    target: &Target,
    existing: &Existing,
    made: bool,
    generation: i64,
) {
    record.attach(&target.slot, existing, made, &target.content);
    if record.superseded_for == Some(generation) {
        record.reason = Some(Reason::Superseded);
    }
}

/// The parts of a draft that users read.
struct Saved<'a> {
    step: &'static str,
    remarks: &'a [String],
}

/// Saves the progress of the pass.
async fn save(
    context: &Context<'_>,
    journal: &impl Journal,
    draft: Saved<'_>,
    report: &Report,
    records: &[TargetRecord],
    absent: &[Digest],
) -> Result<(), Failure> {
    let mut leftovers = Vec::new();
    leftovers::complete(&context.request.previous, records, &mut leftovers, absent);
    journal
        .save(&Draft {
            image: &report.image,
            targets: records,
            leftovers: &leftovers,
            superseded: report.superseded.as_deref(),
            remarks: draft.remarks,
            step: draft.step,
        })
        .await
}

/// Returns the event of an attachment that was lost: it was attached before, and was pushed again or signed again for the same content.
fn restored_event(context: &Context<'_>, target: &Target, push: &Push) -> Option<PassEvent> {
    let subject = &target.observed.subject.digest;
    let before = context.request.previous.target(subject)?;
    let before = before.in_slot(&target.slot)?;
    let attachment = before
        .attachment
        .as_ref()
        .filter(|_| before.state == TargetState::Attached)?;
    let lists = |entries: &Vec<Descriptor>| entries.iter().any(|entry| entry.digest == *attachment);
    let repair = if *attachment == push.content.id() {
        "it was put back"
    } else if matches!(target.observed.wanted, DesiredContent::Signature { .. })
        && before.content.as_ref() == Some(&target.content)
        && !target.observed.listing.as_ref().is_ok_and(lists)
    {
        "the target was signed anew"
    } else {
        return None;
    };
    let message = format!("{attachment} was no longer attached to {subject}; {repair}");
    Some(PassEvent::warning(Reason::Restored, message))
}
