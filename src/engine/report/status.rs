//! The status after a pass. Pure functions, so that the controller and the command line print the same status.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ConditionType, Conditions, ImageAttachmentSpec, ImageAttachmentStatus, Reason, SupersededState,
    TargetState, find_condition,
};
use crate::attachment::supersession;
use crate::engine::journal::Draft;
use crate::engine::records::table::{
    bound, parse_leftovers, parse_targets, print_leftovers, print_targets, tally,
};

use super::outcome::Outcome;
use super::verdict::Verdict;

/// Returns the status after a pass over `generation`. Fields that the outcome does not set keep their values.
#[must_use]
pub fn status(
    previous: &ImageAttachmentStatus,
    outcome: &Outcome,
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentStatus {
    let mut next = previous.clone();
    observe(&mut next, generation);
    if let Some(image) = &outcome.image {
        next.image = Some(image.clone());
    }
    if let Some(mode) = outcome.referrers_mode {
        next.referrers_mode = Some(mode);
    }
    next.push_access = outcome.push_access.or(next.push_access);
    if let Some(rows) = &outcome.rows {
        next.targets.clone_from(rows);
        next.attached = outcome.attached();
        next.skipped_not_listed = count(outcome.skipped_not_listed);
    }
    if let Some(leftovers) = &outcome.leftovers {
        next.leftovers.clone_from(leftovers);
    }
    if let Some(superseded) = &outcome.superseded {
        next.superseded.clone_from(superseded);
    }
    // A pass that found nothing changed reports the verdict over the targets in status.
    let verdict = match outcome.is_unchanged() {
        true if is_watching(&next) => Verdict::watching(&next.superseded),
        true => Verdict::over(&parse_targets(&next.targets), None),
        false => outcome.verdict.clone(),
    };
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    set_resolved(&mut conditions, previous, &next, outcome);
    conditions.set(
        ConditionType::Attached,
        verdict.ready,
        verdict.reason,
        &verdict.message,
    );
    conditions.conclude_for(verdict.reason, &verdict.causes, &verdict.message);
    next.conditions = conditions.into_list();
    next
}

/// Sets the generation. Another generation may have another credential or registry.
fn observe(status: &mut ImageAttachmentStatus, generation: i64) {
    if status.observed_generation != generation {
        status.push_access = None;
    }
    status.observed_generation = generation;
}

/// Returns whether a resource that follows a tag has no target: the tag has left nothing, or images that are still in use.
fn is_watching(status: &ImageAttachmentStatus) -> bool {
    let mut selected = status
        .targets
        .iter()
        .filter(|target| target.state != TargetState::Skipped);
    status.targets.is_empty() || (!status.superseded.is_empty() && selected.next().is_none())
}

/// Sets the condition Resolved. A pass that found nothing changed keeps its message.
fn set_resolved(
    conditions: &mut Conditions,
    previous: &ImageAttachmentStatus,
    next: &ImageAttachmentStatus,
    outcome: &Outcome,
) {
    let kept = find_condition(&previous.conditions, ConditionType::Resolved)
        .filter(|resolved| outcome.is_unchanged() && resolved.status == "True");
    let message = match (&outcome.resolved, kept) {
        (Err(problem), _) => {
            conditions.set(
                ConditionType::Resolved,
                false,
                problem.reason,
                &problem.message,
            );
            return;
        }
        (Ok(_), Some(kept)) => kept.message.clone(),
        (Ok(remarks), None) => resolved_message(next, remarks),
    };
    conditions.set(ConditionType::Resolved, true, Reason::Resolved, &message);
}

/// Returns the message of the condition Resolved: the image and the remarks.
fn resolved_message(status: &ImageAttachmentStatus, remarks: &[String]) -> String {
    let image = status
        .image
        .as_ref()
        .map_or("the image", |image| image.reference.as_str());
    let parts: Vec<&str> = std::iter::once(image)
        .chain(remarks.iter().map(String::as_str))
        .collect();
    parts.join("; ")
}

/// Returns the time until a resource is due without a change in the registry: a move settles, a future mark begins to count, or
/// the overlap of a previous signature is over.
#[must_use]
pub fn due_in(
    spec: &ImageAttachmentSpec,
    status: &ImageAttachmentStatus,
    now: Timestamp,
) -> Option<Duration> {
    if let Some(signature) = &spec.signature {
        let targets = parse_targets(&status.targets);
        let overlap = signature.overlap();
        let ends = parse_leftovers(&status.leftovers)
            .into_iter()
            .filter_map(|leftover| leftover.overlap_end(&targets, overlap));
        return ends.min().map(|end| until(end, now));
    }
    let end_of_life = spec.end_of_life.as_ref()?;
    let marks = status
        .targets
        .iter()
        .filter_map(|target| Some(target.future_mark.as_ref()?.0));
    let moves = end_of_life.when_superseded.iter().flat_map(|when| {
        let settling = status
            .superseded
            .iter()
            .filter(|image| image.state == SupersededState::Pending);
        settling.map(|image| supersession::settles_at(image, when.settle()))
    });
    let first = moves.chain(marks).min()?;
    Some(until(first, now))
}

fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default()
}

/// Returns the status while a pass is in progress.
#[must_use]
pub fn status_in_progress(
    previous: &ImageAttachmentStatus,
    draft: &Draft<'_>,
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentStatus {
    let mut next = previous.clone();
    observe(&mut next, generation);
    next.image = Some(draft.image.clone());
    let mut targets = draft.targets.to_vec();
    next.skipped_not_listed = count(bound(&mut targets));
    next.attached = Some(tally(targets.iter().map(|target| target.state), 0));
    next.targets = print_targets(&targets);
    next.leftovers = print_leftovers(draft.leftovers);
    if let Some(superseded) = draft.superseded {
        next.superseded = superseded.to_vec();
    }
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    if !draft.remarks.is_empty() {
        let message = resolved_message(&next, draft.remarks);
        conditions.set(ConditionType::Resolved, true, Reason::Resolved, &message);
    }
    if is_retried(previous, generation) {
        // Ready keeps the failure, so that alerts on it do not start anew with each retry.
        let reason = Reason::ProgressingWithRetry;
        conditions.set(ConditionType::Reconciling, true, reason, draft.step);
    } else {
        conditions.conclude(Reason::Progressing, draft.step);
    }
    next.conditions = conditions.into_list();
    next
}

/// Returns whether the previous pass over this generation failed for a reason that is retried.
fn is_retried(previous: &ImageAttachmentStatus, generation: i64) -> bool {
    let is = |kind, status| {
        find_condition(&previous.conditions, kind).filter(|found| found.status == status)
    };
    previous.observed_generation == generation
        && is(ConditionType::Reconciling, "True").is_some()
        && is(ConditionType::Ready, "False")
            .is_some_and(|ready| ready.reason != Reason::Progressing.as_str())
}

/// Returns the status of a resource whose first pass still waits for the registry.
#[must_use]
pub fn status_started(
    previous: &ImageAttachmentStatus,
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentStatus {
    let message = "waiting for the registry of spec.image";
    let mut next = previous.clone();
    observe(&mut next, generation);
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    conditions
        .set_unknown(ConditionType::Ready, Reason::Progressing, message)
        .set(
            ConditionType::Reconciling,
            true,
            Reason::Progressing,
            message,
        );
    next.conditions = conditions.into_list();
    next
}

/// Returns a count for status, which leaves out zero.
fn count(count: usize) -> Option<i64> {
    i64::try_from(count).ok().filter(|count| *count > 0)
}
