//! Operations on the records of all targets: their bounds in status and their tally.

use crate::api::{ImageAttachmentStatus, Leftover, TargetKind, TargetState, TargetStatus};

use super::leftover::LeftoverRecord;
use super::target::TargetRecord;

/// Maximum number of skipped entries in status; the rest is counted.
const MAX_SKIPPED: usize = ImageAttachmentStatus::MAX_SKIPPED;
/// Maximum number of targets in status of a selection that is too large.
const MAX_SELECTED: usize = 100;
/// Maximum number of entries of `status.targets`.
const MAX_TARGETS: usize = 256;

/// Parses the entries of status. An entry without a valid digest is dropped.
pub(in crate::engine) fn parse_targets(targets: &[TargetStatus]) -> Vec<TargetRecord> {
    targets
        .iter()
        .filter_map(|target| target.try_into().ok())
        .collect()
}

/// Prints the records as entries of status.
pub(in crate::engine) fn print_targets(records: &[TargetRecord]) -> Vec<TargetStatus> {
    records.iter().map(Into::into).collect()
}

/// Parses the leftovers of status. An entry without valid digests is dropped.
pub(in crate::engine) fn parse_leftovers(leftovers: &[Leftover]) -> Vec<LeftoverRecord> {
    leftovers
        .iter()
        .filter_map(|leftover| leftover.try_into().ok())
        .collect()
}

/// Prints the leftovers as entries of status.
pub(in crate::engine) fn print_leftovers(records: &[LeftoverRecord]) -> Vec<Leftover> {
    records.iter().map(Into::into).collect()
}

/// Sets the message of pending targets.
pub(in crate::engine) fn explain_pending(records: &mut [TargetRecord], message: &str) {
    for record in records
        .iter_mut()
        .filter(|record| record.state == TargetState::Pending)
    {
        record.message = Some(message.to_owned());
    }
}

/// Truncates records of earlier passes to the space beside `current`, which [`bound`] truncates. Manifests in use are kept longest. An
/// index is dropped before its entries: the next pass reads again the tags that use an image without a record of its root.
pub(in crate::engine) fn fit_earlier(earlier: &mut Vec<TargetRecord>, current: &[TargetRecord]) {
    let kept = current
        .iter()
        .filter(|record| record.is_selected() || record.is_in_use())
        .count();
    let room = MAX_TARGETS.saturating_sub(MAX_SKIPPED + kept);
    if earlier.len() > room {
        earlier.sort_by_key(|record| (!record.is_in_use(), record.kind == TargetKind::Index));
        earlier.truncate(room);
    }
}

/// Truncates the skipped records and returns the number of dropped ones. Manifests in use are kept first: the next pass needs them.
pub(in crate::engine) fn bound(records: &mut Vec<TargetRecord>) -> usize {
    let in_use = records.iter().filter(|record| record.is_in_use()).count();
    keep_first(records, MAX_SKIPPED.saturating_sub(in_use), |record| {
        !record.is_selected() && !record.is_in_use()
    })
}

/// Truncates the records of a selection that is too large and returns the number of dropped ones.
pub(in crate::engine) fn bound_selected(records: &mut Vec<TargetRecord>) -> usize {
    keep_first(records, MAX_SELECTED, TargetRecord::is_selected)
}

/// Keeps the first `room` records that `counts` holds for, and all others. Returns the number of dropped ones.
fn keep_first(
    records: &mut Vec<TargetRecord>,
    mut room: usize,
    counts: impl Fn(&TargetRecord) -> bool,
) -> usize {
    let before = records.len();
    records.retain(|record| {
        let is_kept = !counts(record) || room > 0;
        room -= usize::from(counts(record) && is_kept);
        is_kept
    });
    before - records.len()
}

/// Returns `attached/selected` for `status.attached`. `unlisted` targets are selected and have no record.
pub(in crate::engine) fn tally(
    states: impl Iterator<Item = TargetState>,
    unlisted: usize,
) -> String {
    let (mut attached, mut selected) = (0, unlisted);
    for state in states.filter(|state| *state != TargetState::Skipped) {
        selected += 1;
        attached += usize::from(state == TargetState::Attached);
    }
    format!("{attached}/{selected}")
}

/// Changes one record.
pub(in crate::engine) fn update(
    records: &mut [TargetRecord],
    position: usize,
    change: impl FnOnce(&mut TargetRecord),
) {
    if let Some(record) = records.get_mut(position) {
        change(record);
    }
}
