//! The rows of `status.targets`: one per entry of the image, with what became of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{Origin, Reason, TargetKind, TargetState, TargetStatus, cut_message};
use crate::attachment::{Created, Entry, EntryKind, Existing};
use affix_registry::oci::{Digest, cut};

use super::failure::Failure;

/// How many skipped entries status lists; the rest is counted.
const MOST_SKIPPED: usize = 100;
/// How many targets of a selection that is too large status lists.
const MOST_SELECTED: usize = 100;
/// How many rows status takes.
const MOST_ROWS: usize = 256;
/// How many more platforms of one digest status lists.
const MOST_PLATFORMS: usize = 16;

/// The row of an entry about which nothing has been done yet.
pub(super) fn pending(entry: &Entry) -> TargetStatus {
    TargetStatus {
        kind: match entry.kind {
            EntryKind::Index | EntryKind::Unreadable(_) => TargetKind::Index,
            EntryKind::Platform(_) | EntryKind::Attestation | EntryKind::Unsupported => {
                TargetKind::Platform
            }
        },
        platform: entry.platform().map(|platform| cut(&platform)),
        other_platforms: entry
            .platforms()
            .skip(1)
            .take(MOST_PLATFORMS)
            .map(|platform| cut(&platform.to_string()))
            .collect(),
        digest: entry.subject.digest.to_string(),
        state: TargetState::Pending,
        reason: None,
        message: None,
        attachment: None,
        origin: None,
        created: None,
        content: None,
        superseded_for: None,
        future_mark: None,
    }
}

/// The same row with what status knows of the target's attachment: it stays known whatever happens to this pass.
pub(super) fn known(row: TargetStatus, before: Option<&TargetStatus>) -> TargetStatus {
    match before {
        Some(before) => TargetStatus {
            attachment: before.attachment.clone(),
            origin: before.origin,
            created: before.created.clone(),
            content: before.content.clone(),
            superseded_for: before.superseded_for,
            ..row
        },
        None => row,
    }
}

/// The row of an entry that is no target.
pub(super) fn skipped(entry: &Entry, reason: Reason) -> TargetStatus {
    TargetStatus {
        state: TargetState::Skipped,
        reason: Some(reason.as_str().to_owned()),
        ..pending(entry)
    }
}

/// The row says that its target failed; what it knows of an attachment stays.
pub(super) fn fail(row: &mut TargetStatus, failure: &Failure) {
    row.state = TargetState::Failed;
    row.reason = Some(failure.problem.reason.as_str().to_owned());
    row.message = Some(cut_message(&failure.problem.message));
}

/// The rows of targets that nothing is wrong with say what they wait for.
pub(super) fn wait(rows: &mut [TargetStatus], what: &str) {
    for row in rows
        .iter_mut()
        .filter(|row| row.state == TargetState::Pending)
    {
        row.message = Some(what.to_owned());
    }
}

/// The row says that an attachment is there.
pub(super) fn attached(row: &mut TargetStatus, existing: &Existing, made: bool, content: &Digest) {
    row.state = TargetState::Attached;
    row.reason = None;
    row.message = None;
    row.attachment = Some(existing.digest.to_string());
    row.origin = Some(if made { Origin::Made } else { Origin::Adopted });
    row.created = existing.created.map(time);
    row.content = Some(content.to_string());
}

/// The row says which attachment is about to be pushed, so that a crash cannot make a second one.
pub(super) fn intended(
    row: &mut TargetStatus,
    attachment: &Digest,
    created: Created,
    content: &Digest,
) {
    row.state = TargetState::Pending;
    row.attachment = Some(attachment.to_string());
    row.origin = Some(Origin::Made);
    row.created = Some(time(created));
    row.content = Some(content.to_string());
}

fn time(created: Created) -> Time {
    Time(created.instant())
}

/// Cuts rows of earlier passes to what status takes beside `rows`, which [`bound`] will cut. What is in use stays longest, and an index
/// goes before what it lists: of an image without a row of its own it is asked again what is in use.
pub(super) fn fit(earlier: &mut Vec<TargetStatus>, rows: &[TargetStatus]) {
    let stay = rows
        .iter()
        .filter(|row| row.state != TargetState::Skipped || is_in_use(row))
        .count();
    let room = MOST_ROWS.saturating_sub(MOST_SKIPPED + stay);
    if earlier.len() > room {
        earlier.sort_by_key(|row| (!is_in_use(row), row.kind == TargetKind::Index));
        earlier.truncate(room);
    }
}

fn is_in_use(row: &TargetStatus) -> bool {
    row.reason.as_deref() == Some(Reason::StillInUse.as_str())
}

/// Cuts the skipped rows to what status takes; answers with how many were cut. What is still in use is listed before all else: the
/// next pass must know it.
pub(super) fn bound(rows: &mut Vec<TargetStatus>) -> usize {
    let is_other = |row: &TargetStatus| row.state == TargetState::Skipped && !is_in_use(row);
    let mut room = MOST_SKIPPED.saturating_sub(rows.iter().filter(|row| is_in_use(row)).count());
    let before = rows.len();
    rows.retain(|row| {
        let stays = !is_other(row) || room > 0;
        room -= usize::from(is_other(row) && stays);
        stays
    });
    before - rows.len()
}

/// Cuts the rows of a selection that is too large to what status takes; answers with how many were cut.
pub(super) fn bound_selected(rows: &mut Vec<TargetStatus>) -> usize {
    let before = rows.len();
    let mut room = MOST_SELECTED;
    rows.retain(|row| {
        let is_selected = row.state != TargetState::Skipped;
        let stays = !is_selected || room > 0;
        room -= usize::from(is_selected && stays);
        stays
    });
    before - rows.len()
}

/// `attached/selected`, as `status.attached` shows it, with `more` that are selected and have no row.
pub(super) fn tally(rows: &[TargetStatus], more: usize) -> String {
    let selected = rows.iter().filter(|row| row.state != TargetState::Skipped);
    let attached = selected
        .clone()
        .filter(|row| row.state == TargetState::Attached)
        .count();
    format!("{attached}/{}", selected.count() + more)
}

/// How a message names a row's target.
pub(super) fn name(row: &TargetStatus) -> &str {
    match (&row.platform, row.kind) {
        (Some(platform), _) => platform,
        (None, TargetKind::Index) => "index",
        (None, TargetKind::Platform) => &row.digest,
    }
}

/// Changes one row.
pub(super) fn set(table: &mut [TargetStatus], row: usize, change: impl FnOnce(&mut TargetStatus)) {
    if let Some(row) = table.get_mut(row) {
        change(row);
    }
}
