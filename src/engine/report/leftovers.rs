//! Leftovers: the record of every attachment that this resource owns and no target names.

use std::collections::BTreeSet;

use crate::api::{ImageAttachmentStatus, Reason};
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::target::TargetRecord;
use crate::engine::request::previous::PreviousState;
use affix_registry::oci::Digest;

/// Maximum number of subjects on images that the tag has left.
const MAX_RETAINED_SUBJECTS: usize = 64;

/// Completes `leftovers`, so that a pass loses no record of an owned attachment: each one that neither the targets nor `gone` account for
/// is added, with the previous record if there is one. [`bound`] drops only records beyond the documented limits.
pub(in crate::engine) fn complete(
    previous: &PreviousState,
    targets: &[TargetRecord],
    leftovers: &mut Vec<LeftoverRecord>,
    gone: &[Digest],
) {
    for (subject, owned) in previous.owned() {
        for owned in owned
            .into_iter()
            .filter(|owned| !gone.contains(&owned.attachment))
        {
            let is_recorded = targets.iter().any(|target| target.owns(&owned))
                || leftovers.iter().any(|leftover| leftover.owned() == owned);
            if !is_recorded {
                let before = previous
                    .leftovers
                    .iter()
                    .find(|before| before.owned() == owned);
                leftovers.push(
                    before.cloned().unwrap_or_else(|| {
                        LeftoverRecord::of(&subject, &owned, Reason::Progressing)
                    }),
                );
            }
        }
    }
    bound(previous, leftovers);
}

/// Sorts leftovers by age and drops the oldest ones beyond the limits of status. Those on images that the tag has left are dropped first,
/// since they are not removed.
fn bound(previous: &PreviousState, leftovers: &mut Vec<LeftoverRecord>) {
    leftovers.sort_by_key(|leftover| {
        let mut before = previous.leftovers.iter();
        before
            .position(|before| before.attachment == leftover.attachment)
            .unwrap_or(usize::MAX)
    });
    let mut subjects = BTreeSet::new();
    let mut kept: Vec<LeftoverRecord> = Vec::new();
    for leftover in leftovers.drain(..).rev() {
        if leftover.is_retained() {
            if subjects.len() >= MAX_RETAINED_SUBJECTS && !subjects.contains(&leftover.subject) {
                continue;
            }
            subjects.insert(leftover.subject.clone());
        }
        kept.push(leftover);
    }
    while kept.len() > ImageAttachmentStatus::MAX_LEFTOVERS {
        let oldest = kept
            .iter()
            .rposition(LeftoverRecord::is_retained)
            .unwrap_or(kept.len() - 1);
        kept.remove(oldest);
    }
    leftovers.extend(kept.into_iter().rev());
}
