//! Selects the owned attachments that are no longer wanted. Pure.

use crate::api::{Reason, SignatureFormat, TargetState};
use crate::attachment::{Entry, TargetPlan};
use crate::engine::observe::referrers::Target;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::owned::Owned;
use crate::engine::records::target::TargetRecord;
use crate::engine::request::previous::PreviousState;
use affix_registry::oci::{Descriptor, Digest};

/// The owned attachments that no target wants.
pub(in crate::engine) struct Unwanted {
    /// Attachments to remove now.
    pub(in crate::engine) remove: Vec<(Descriptor, Owned)>,
    /// Attachments that the listing of their subject does not show: never pushed, lost, or not listed.
    pub(in crate::engine) unlisted: Vec<(Descriptor, Owned)>,
    /// Attachments that stay for now.
    pub(in crate::engine) kept: Vec<LeftoverRecord>,
}

impl Unwanted {
    /// Returns whether no request is necessary.
    pub(in crate::engine) const fn is_idle(&self) -> bool {
        self.remove.is_empty() && self.unlisted.is_empty()
    }
}

/// A target with a plan.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Planned<'a> {
    pub(in crate::engine) subject: &'a Digest,
    /// The position of its record.
    pub(in crate::engine) position: usize,
    pub(in crate::engine) format: SignatureFormat,
}

/// Returns the targets with their plans.
pub(in crate::engine) fn planned<'a>(
    targets: &'a [Target],
    plans: &'a [TargetPlan],
) -> impl Iterator<Item = (Planned<'a>, &'a TargetPlan)> {
    let planned = targets.iter().map(|target| Planned {
        subject: &target.observed.subject.digest,
        position: target.position,
        format: target.slot.format(),
    });
    planned.zip(plans)
}

/// Sorts the owned attachments of `previous` that no target wants. On the current image an attachment is removed once its target has the
/// desired one. On an image that the tag has left it stays as a leftover. `plans` are pairs of a target and its plan.
pub(in crate::engine) fn select<'a>(
    previous: &PreviousState,
    targets: &[TargetRecord],
    plans: impl Iterator<Item = (Planned<'a>, &'a TargetPlan)>,
    entries: &[Entry],
) -> Unwanted {
    let mut unwanted = Unwanted {
        remove: Vec::new(),
        unlisted: Vec::new(),
        kept: Vec::new(),
    };
    let planned: Vec<(Planned<'_>, &TargetPlan, &TargetRecord)> = plans
        .filter_map(|(target, plan)| Some((target, plan, targets.get(target.position)?)))
        .collect();
    let all_done = targets.iter().all(TargetRecord::is_done);
    for (subject, owned) in previous.owned() {
        let Some(entry) = entries.iter().find(|entry| entry.subject.digest == subject) else {
            // The record of an unreadable image holds its attachment itself.
            let owned = owned
                .iter()
                .filter(|attachment| !targets.iter().any(|target| target.owns(attachment)));
            unwanted.kept.extend(
                owned.map(|attachment| LeftoverRecord::of(&subject, attachment, Reason::TagMoved)),
            );
            continue;
        };
        let on_subject: Vec<_> = planned
            .iter()
            .filter(|(target, ..)| *target.subject == subject)
            .collect();
        for attachment in owned {
            let removal = (entry.subject.clone(), attachment.clone());
            // Without a plan, it is of a format that the spec does not want anymore.
            let plans = || {
                let plans = on_subject.iter();
                let plans = plans.filter(|(target, ..)| target.format == attachment.format);
                plans.map(|(_, plan, _)| *plan)
            };
            match on_subject.first() {
                Some((_, _, record)) if record.owns(&attachment) => {}
                Some((_, _, record))
                    if record.state == TargetState::Attached
                        && plans().any(|plan| plan.keep.contains(&attachment.attachment)) =>
                {
                    let leftover = LeftoverRecord::of(&subject, &attachment, Reason::Overlap);
                    unwanted.kept.push(leftover);
                }
                Some((_, _, record)) if record.state == TargetState::Attached => {
                    let is_listed = match plans().next() {
                        Some(_) => plans().any(|plan| plan.remove.contains(&attachment.attachment)),
                        None => attachment.format == SignatureFormat::Tag,
                    };
                    if is_listed {
                        unwanted.remove.push(removal);
                    } else {
                        unwanted.unlisted.push(removal);
                    }
                }
                // The manifest is not a target anymore.
                None if all_done => unwanted.remove.push(removal),
                Some(_) | None => unwanted.kept.push(LeftoverRecord::of(
                    &subject,
                    &attachment,
                    Reason::Progressing,
                )),
            }
        }
    }
    unwanted
}
