//! Selects the owned attachments that are no longer wanted. Pure.

use crate::api::{Reason, TargetState};
use crate::attachment::{Entry, TargetPlan};
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::target::TargetRecord;
use crate::engine::request::previous::PreviousState;
use affix_registry::oci::{Descriptor, Digest};

/// The owned attachments that no target wants.
pub(in crate::engine) struct Unwanted {
    /// Attachments to remove now.
    pub(in crate::engine) remove: Vec<(Descriptor, Digest)>,
    /// Attachments that the listing of their subject does not show: never pushed, lost, or not listed.
    pub(in crate::engine) unlisted: Vec<(Descriptor, Digest)>,
    /// Attachments that stay for now.
    pub(in crate::engine) kept: Vec<LeftoverRecord>,
}

impl Unwanted {
    /// Returns whether no request is necessary.
    pub(in crate::engine) const fn is_idle(&self) -> bool {
        self.remove.is_empty() && self.unlisted.is_empty()
    }
}

/// Sorts the owned attachments of `previous` that no target wants. On the current image an attachment is removed once its target has the
/// desired one. On an image that the tag has left it stays as a leftover. `plans` are pairs of a subject with the position of its record,
/// and its plan.
pub(in crate::engine) fn select<'a>(
    previous: &PreviousState,
    targets: &[TargetRecord],
    plans: impl Iterator<Item = ((&'a Descriptor, usize), &'a TargetPlan)>,
    entries: &[Entry],
) -> Unwanted {
    let mut unwanted = Unwanted {
        remove: Vec::new(),
        unlisted: Vec::new(),
        kept: Vec::new(),
    };
    let planned: Vec<(&Descriptor, &TargetPlan, &TargetRecord)> = plans
        .filter_map(|((subject, position), plan)| Some((subject, plan, targets.get(position)?)))
        .collect();
    let all_done = targets.iter().all(TargetRecord::is_done);
    for (subject, owned) in previous.owned() {
        let Some(entry) = entries.iter().find(|entry| entry.subject.digest == subject) else {
            // The record of an unreadable image holds its attachment itself.
            let owned = owned
                .iter()
                .filter(|attachment| !targets.iter().any(|target| target.owns(attachment)));
            unwanted.kept.extend(
                owned.map(|attachment| LeftoverRecord::new(&subject, attachment, Reason::TagMoved)),
            );
            continue;
        };
        let target = planned
            .iter()
            .find(|(descriptor, ..)| descriptor.digest == subject);
        for attachment in owned {
            let removal = (entry.subject.clone(), attachment.clone());
            match target {
                Some((_, _, record)) if record.owns(&attachment) => {}
                Some((_, plan, record))
                    if record.state == TargetState::Attached && plan.keep.contains(&attachment) =>
                {
                    let leftover = LeftoverRecord::new(&subject, &attachment, Reason::Overlap);
                    unwanted.kept.push(leftover);
                }
                Some((_, plan, record)) if record.state == TargetState::Attached => {
                    if plan.remove.contains(&attachment) {
                        unwanted.remove.push(removal);
                    } else {
                        unwanted.unlisted.push(removal);
                    }
                }
                // The manifest is not a target anymore.
                None if all_done => unwanted.remove.push(removal),
                Some(_) | None => unwanted.kept.push(LeftoverRecord::new(
                    &subject,
                    &attachment,
                    Reason::Progressing,
                )),
            }
        }
    }
    unwanted
}
