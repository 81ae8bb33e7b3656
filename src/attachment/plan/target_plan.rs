//! The plan of one target.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::OnConflict;
use affix_registry::oci::{Descriptor, Digest};

use super::adoption::{self, Existing};
use super::observed::{DesiredContent, Observed, equal};
use super::ranking::{Outranked, Ranking, rank};
use crate::attachment::future_mark::FutureMark;
use crate::attachment::problem::Problem;
use crate::attachment::time::Created;

/// The action on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep an attachment that the registry has.
    Keep {
        /// The attachment.
        existing: Existing,
        /// True if this resource made it. Otherwise it is adopted.
        made: bool,
    },
    /// Push the content.
    Attach {
        /// The creation time of the attachment.
        created: Created,
        /// True if the attachment supersedes a newer foreign mark.
        supersedes: bool,
    },
    /// Attach nothing because of a problem.
    Refuse(Problem),
}

/// The plan of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlan {
    /// The action.
    pub action: Action,
    /// The resource's own attachments to remove after the action.
    pub remove: Vec<Digest>,
    /// The resource's own previous signatures that stay until the overlap is over.
    pub keep: Vec<Digest>,
    /// Foreign marks that are dated after the pass and do not count yet, the earliest first.
    pub notes: Vec<FutureMark>,
}

/// The plans of all targets, in the order of the image.
pub type Plan = Vec<TargetPlan>;

/// Plans one target. `now` is the time of the pass.
#[must_use]
pub fn plan(observed: &Observed, on_conflict: OnConflict, now: Timestamp) -> TargetPlan {
    let entries = match &observed.listing {
        Ok(entries) => entries,
        Err(problem) => {
            return TargetPlan {
                action: Action::Refuse(problem.clone()),
                remove: Vec::new(),
                keep: Vec::new(),
                notes: Vec::new(),
            };
        }
    };
    let equals = equal(observed);
    let content_hash = match &observed.wanted {
        DesiredContent::Content { content, .. } => content.hash(),
        DesiredContent::Signature { content, .. } => content.clone(),
    };
    let same_content = observed.known.content.as_ref() == Some(&content_hash);
    let mut ranking = match &observed.wanted {
        DesiredContent::Content {
            mark: Some(keys),
            content,
        } => rank(observed, entries, content, keys, &equals, same_content, now),
        _ => Ranking::unranked(),
    };
    let notes = std::mem::take(&mut ranking.notes);
    let fresh = newest_created(observed, entries, now);
    let action = choose_action(
        observed,
        on_conflict,
        &equals,
        ranking,
        same_content,
        fresh,
        now,
    );
    let obsolete = obsolete(observed, entries, &action);
    let (keep, remove) = match overlaps(observed, &action, now) {
        true => (obsolete, Vec::new()),
        false => (Vec::new(), obsolete),
    };
    TargetPlan {
        remove,
        keep,
        action,
        notes,
    }
}

/// Returns the time of a new attachment: `now`, or a second after the newest attachment of the type.
///
/// A time in the future counts only for an attachment of this resource, which a clock that was ahead has made.
fn newest_created(observed: &Observed, entries: &[Descriptor], now: Timestamp) -> Created {
    let artifact_type = match &observed.wanted {
        DesiredContent::Content { content, .. } => content.artifact_type.as_str(),
        DesiredContent::Signature { artifact_type, .. } => artifact_type.as_str(),
    };
    let newest = adoption::of_type(entries, &observed.fetched, artifact_type)
        .filter_map(|entry| Some((adoption::created(entry, &observed.fetched)?, &entry.digest)))
        .filter(|(created, digest)| created.instant() <= now || observed.ours.contains(*digest))
        .map(|(created, _)| created)
        .max();
    newest.map_or(Created::at(now), |newest| {
        Created::at(now).max(newest.next())
    })
}

fn choose_action(
    observed: &Observed,
    on_conflict: OnConflict,
    equals: &[Existing],
    ranking: Ranking,
    same_content: bool,
    fresh: Created,
    now: Timestamp,
) -> Action {
    let attach = |created, supersedes| Action::Attach {
        created,
        supersedes,
    };
    // Readers take the newest mark, so an equal mark that is older than a rival has no effect.
    let is_newest = |created: Option<Created>| {
        ranking
            .rival
            .is_none_or(|rival| created.is_some_and(|created| created > rival))
    };
    let kept = equals.iter().find(|existing| is_newest(existing.created));
    match (ranking.outranked, kept) {
        (Outranked::Own, _) => attach(fresh, false),
        (Outranked::Foreign(conflict), _) => {
            let was_applied =
                !equals.is_empty() || (same_content && observed.known.attachment.is_some());
            match (was_applied, on_conflict, observed.known.superseded) {
                (false, ..) => attach(fresh, false),
                (true, OnConflict::Supersede, false) => attach(fresh, true),
                (true, ..) => Action::Refuse(conflict),
            }
        }
        (Outranked::No, Some(existing)) => Action::Keep {
            made: observed.ours.contains(&existing.digest)
                || is_last_applied(observed, existing, same_content),
            existing: existing.clone(),
        },
        // The creation time of a signature is the time of signing.
        (Outranked::No, None) if matches!(observed.wanted, DesiredContent::Signature { .. }) => {
            attach(Created::at(now), false)
        }
        // After a crash between the status update and the push, or after a loss, the same bytes are pushed.
        (Outranked::No, None) => {
            let last_applied = observed
                .known
                .created
                .filter(|created| same_content && is_newest(Some(*created)));
            attach(last_applied.unwrap_or(fresh), false)
        }
    }
}

/// Returns whether previous signatures still overlap with the one that the action keeps or makes.
fn overlaps(observed: &Observed, action: &Action, now: Timestamp) -> bool {
    let DesiredContent::Signature { overlap, .. } = &observed.wanted else {
        return false;
    };
    let created = match action {
        Action::Keep { existing, .. } => existing.created,
        Action::Attach { created, .. } => Some(*created),
        Action::Refuse(_) => None,
    };
    overlap_end(created, *overlap).is_some_and(|end| now < end)
}

/// Returns the time until which previous signatures stay beside a signature that was made at `created`.
#[must_use]
pub fn overlap_end(created: Option<Created>, overlap: Duration) -> Option<Timestamp> {
    let overlap = SignedDuration::try_from(overlap).ok()?;
    let end = created?.instant().checked_add(overlap);
    Some(end.unwrap_or(Timestamp::MAX))
}

/// Returns the resource's own listed attachments that the action makes obsolete.
fn obsolete(observed: &Observed, entries: &[Descriptor], action: &Action) -> Vec<Digest> {
    let kept = match (action, &observed.wanted) {
        (Action::Refuse(_), _) => return Vec::new(),
        (Action::Keep { existing, .. }, _) => Some(existing.digest.clone()),
        (Action::Attach { created, .. }, DesiredContent::Content { content, .. }) => Some(
            content
                .attach_to(&observed.subject, *created)
                .digest()
                .clone(),
        ),
        (Action::Attach { .. }, DesiredContent::Signature { .. }) => None,
    };
    observed
        .ours
        .iter()
        .filter(|own| Some(*own) != kept.as_ref())
        .filter(|own| entries.iter().any(|entry| entry.digest == **own))
        .cloned()
        .collect()
}

/// Returns true if an equal manifest is the one that the status announced before the push.
fn is_last_applied(observed: &Observed, existing: &Existing, same_content: bool) -> bool {
    let DesiredContent::Content { content, .. } = &observed.wanted else {
        return false;
    };
    same_content
        && observed.known.made
        && observed.known.created.is_some_and(|created| {
            content.attach_to(&observed.subject, created).digest() == &existing.digest
        })
}
