//! From an outcome to the status that a user reads: pure, so that the same rules hold in a cluster and on a desk.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ConditionType, Conditions, ImageAttachmentSpec, ImageAttachmentStatus, Reason, TargetState,
    find_condition,
};
use crate::attachment::supersession;

use super::outcome::{Outcome, Verdict};
use super::pass::Draft;
use super::rows;

/// The status after a pass over `generation` that ended in `outcome`; what the outcome does not speak of stays.
#[must_use]
pub fn status(
    previous: &ImageAttachmentStatus,
    outcome: &Outcome,
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentStatus {
    let mut next = previous.clone();
    next.observed_generation = generation;
    if let Some(image) = &outcome.image {
        next.image = Some(image.clone());
    }
    if let Some(mode) = outcome.referrers_mode {
        next.referrers_mode = Some(mode);
    }
    if let Some(rows) = &outcome.rows {
        next.targets.clone_from(rows);
        next.attached = outcome.attached();
        next.skipped_not_listed = i64::try_from(outcome.skipped_not_listed)
            .ok()
            .filter(|count| *count > 0);
    }
    if let Some(leftovers) = &outcome.leftovers {
        next.leftovers.clone_from(leftovers);
    }
    if let Some(superseded) = &outcome.superseded {
        next.superseded.clone_from(superseded);
    }
    // A look that found nothing changed says what the rows say.
    let verdict = match outcome.is_unchanged() {
        true if next.targets.is_empty() => Verdict::watching(&next.superseded),
        true => Verdict::over(&next.targets, None),
        false => outcome.verdict.clone(),
    };
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    let kept = find_condition(&previous.conditions, ConditionType::Resolved)
        .filter(|resolved| outcome.is_unchanged() && resolved.status == "True");
    match (&outcome.resolved, kept) {
        (Ok(_), Some(kept)) => {
            conditions.set(
                ConditionType::Resolved,
                true,
                Reason::Resolved,
                &kept.message,
            );
        }
        (Ok(words), None) => {
            let image = next
                .image
                .as_ref()
                .map_or("the image", |image| image.reference.as_str());
            let words: Vec<&str> = std::iter::once(image)
                .chain(words.iter().map(String::as_str))
                .collect();
            conditions.set(
                ConditionType::Resolved,
                true,
                Reason::Resolved,
                &words.join("; "),
            );
        }
        (Err(problem), _) => {
            conditions.set(
                ConditionType::Resolved,
                false,
                problem.reason,
                &problem.message,
            );
        }
    }
    conditions.set(
        ConditionType::Attached,
        verdict.ready,
        verdict.reason,
        &verdict.message,
    );
    conditions.conclude_for(
        verdict.reason,
        &verdict.causes(&next.targets),
        &verdict.message,
    );
    next.conditions = conditions.into_list();
    next
}

/// How long until something is due for a resource at rest that no registry tells of: a move that settles, or a mark of the future that
/// begins to count.
#[must_use]
pub fn due_in(
    spec: &ImageAttachmentSpec,
    status: &ImageAttachmentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let end_of_life = spec.end_of_life.as_ref()?;
    let counts = status
        .targets
        .iter()
        .filter_map(|row| Some(row.future_mark.as_ref()?.0));
    let settles = end_of_life.when_superseded.iter().flat_map(|when| {
        let settling = status
            .superseded
            .iter()
            .filter(|left| left.state == TargetState::Pending);
        settling.map(|left| supersession::settles_at(left, when.settle()))
    });
    let first = settles.chain(counts).min()?;
    Some(Duration::try_from(first.duration_since(now)).unwrap_or_default())
}

/// The status while a pass is about to push what `draft` says.
#[must_use]
pub fn status_in_progress(
    previous: &ImageAttachmentStatus,
    draft: &Draft<'_>,
    generation: i64,
    now: Timestamp,
) -> ImageAttachmentStatus {
    let mut next = previous.clone();
    next.image = Some(draft.image.clone());
    next.targets = draft.rows.to_vec();
    next.skipped_not_listed = i64::try_from(rows::bound(&mut next.targets))
        .ok()
        .filter(|count| *count > 0);
    next.attached = Some(rows::tally(&next.targets, 0));
    next.leftovers = draft.leftovers.to_vec();
    if let Some(superseded) = draft.superseded {
        next.superseded = superseded.to_vec();
    }
    let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
    conditions.conclude(Reason::Progressing, draft.doing);
    next.conditions = conditions.into_list();
    next.observed_generation = generation;
    next
}
