//! Removing what this resource made and does not want any more; what somebody else made is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::api::{
    ImageAttachmentStatus, Leftover, Origin, Reason, TargetState, TargetStatus, cut_message,
};
use crate::attachment::{Entry, TargetPlan};
use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{Deletion, FallbackChange, ListingSource, Session};

use super::claims::{Claim, Claims};
use super::failure::Failure;
use super::memory::Memory;
use super::outcome::{Note, Severity};

/// On how many subjects of images that the tag has left attachments are remembered.
const MOST_SUBJECTS: usize = 64;

/// What this resource made, sorted into what goes and what is only remembered.
pub(super) struct Unwanted {
    /// To be removed now.
    pub remove: Vec<(Descriptor, Digest)>,
    /// Not listed although their subject was: never pushed, or lost, or pushed and not listed.
    pub unlisted: Vec<(Descriptor, Digest)>,
    /// Not to be removed now, and not to be forgotten.
    pub kept: Vec<Leftover>,
}

impl Unwanted {
    /// Whether nothing is to be done about it now.
    pub(super) const fn is_at_rest(&self) -> bool {
        self.remove.is_empty() && self.unlisted.is_empty()
    }
}

/// Sorts what `memory` says that this resource made. On the same image it goes once the target has what is wanted; on an image
/// that the tag has left it stays and is remembered.
pub(super) fn unwanted<'a>(
    memory: &Memory,
    table: &[TargetStatus],
    plans: impl Iterator<Item = ((&'a Descriptor, usize), &'a TargetPlan)>,
    entries: &[Entry],
) -> Unwanted {
    let mut unwanted = Unwanted {
        remove: Vec::new(),
        unlisted: Vec::new(),
        kept: Vec::new(),
    };
    let settled: Vec<(&Descriptor, &TargetPlan, Option<&TargetStatus>)> = plans
        .map(|((subject, row), plan)| (subject, plan, table.get(row)))
        .collect();
    for (subject, made) in memory.made() {
        let Some(entry) = entries.iter().find(|entry| entry.subject.digest == subject) else {
            // A row that stayed although its image could not be read accounts for its attachment itself.
            let made = made.iter().filter(|attachment| !is_in(table, attachment));
            unwanted.kept.extend(
                made.map(|attachment| leftover(&subject, attachment, Reason::TagMoved, None)),
            );
            continue;
        };
        let target = settled
            .iter()
            .find(|(descriptor, ..)| descriptor.digest == subject);
        for attachment in made {
            match target {
                Some((_, plan, Some(row))) => {
                    let stays = row.origin == Some(Origin::Made)
                        && row.attachment.as_deref() == Some(attachment.to_string().as_str());
                    if stays {
                        continue;
                    }
                    if row.state != TargetState::Attached {
                        unwanted.kept.push(leftover(
                            &subject,
                            &attachment,
                            Reason::Progressing,
                            None,
                        ));
                    } else if plan.remove.contains(&attachment) {
                        unwanted.remove.push((entry.subject.clone(), attachment));
                    } else {
                        unwanted.unlisted.push((entry.subject.clone(), attachment));
                    }
                }
                // No target any more: it goes once all others are settled.
                _ if table.iter().all(|row| {
                    matches!(row.state, TargetState::Attached | TargetState::Skipped)
                }) =>
                {
                    unwanted.remove.push((entry.subject.clone(), attachment));
                }
                _ => unwanted
                    .kept
                    .push(leftover(&subject, &attachment, Reason::Progressing, None)),
            }
        }
    }
    unwanted
}

/// Whether a row names the attachment as made by this resource.
fn is_in(table: &[TargetStatus], attachment: &Digest) -> bool {
    let text = attachment.to_string();
    table
        .iter()
        .any(|row| row.origin == Some(Origin::Made) && row.attachment.as_ref() == Some(&text))
}

/// Whatever happens in a pass, nothing that this resource made is forgotten: what neither the rows nor `gone` account for
/// joins the leftovers, as status has it where it does. Only what is bounded by contract goes: see [`bound`].
pub(super) fn remember(
    memory: &Memory,
    table: &[TargetStatus],
    leftovers: &mut Vec<Leftover>,
    gone: &[Digest],
) {
    for (subject, made) in memory.made() {
        for attachment in made
            .into_iter()
            .filter(|attachment| !gone.contains(attachment))
        {
            let text = attachment.to_string();
            let known = is_in(table, &attachment)
                || leftovers.iter().any(|leftover| leftover.attachment == text);
            if !known {
                let before = memory
                    .leftovers
                    .iter()
                    .find(|before| before.attachment == text)
                    .cloned();
                leftovers.push(
                    before.unwrap_or_else(|| {
                        leftover(&subject, &attachment, Reason::Progressing, None)
                    }),
                );
            }
        }
    }
    bound(memory, leftovers);
}

/// Orders leftovers by age and forgets the oldest beyond what status takes: of images that the tag has left first, since nothing
/// there is to be removed.
fn bound(memory: &Memory, leftovers: &mut Vec<Leftover>) {
    let is_resting =
        |leftover: &Leftover| leftover.reason.as_deref() == Some(Reason::TagMoved.as_str());
    leftovers.sort_by_key(|leftover| {
        memory
            .leftovers
            .iter()
            .position(|before| before.attachment == leftover.attachment)
            .unwrap_or(usize::MAX)
    });
    let mut subjects = BTreeSet::new();
    let mut kept: Vec<Leftover> = Vec::new();
    for leftover in leftovers.drain(..).rev() {
        if is_resting(&leftover)
            && subjects.len() >= MOST_SUBJECTS
            && !subjects.contains(&leftover.subject)
        {
            continue;
        }
        if is_resting(&leftover) {
            subjects.insert(leftover.subject.clone());
        }
        kept.push(leftover);
    }
    while kept.len() > ImageAttachmentStatus::MOST_LEFTOVERS {
        let oldest = kept.iter().rposition(is_resting).unwrap_or(kept.len() - 1);
        kept.remove(oldest);
    }
    leftovers.extend(kept.into_iter().rev());
}

pub(super) fn leftover(
    subject: &Digest,
    attachment: &Digest,
    reason: Reason,
    message: Option<String>,
) -> Leftover {
    Leftover {
        subject: subject.to_string(),
        attachment: attachment.to_string(),
        reason: Some(reason.as_str().to_owned()),
        message,
    }
}

/// What became of an attachment that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    /// What it is, or was, attached to.
    pub subject: Digest,
    /// The attachment.
    pub attachment: Digest,
    /// What stays, and why; `None`: the registry does not list it any more, or it is another resource's by now.
    pub left: Option<Leftover>,
    /// What is to be told of it.
    pub note: Option<Note>,
    /// How long the registry asked to wait.
    pub retry_after: Option<Duration>,
}

impl Removal {
    fn of(subject: &Digest, attachment: &Digest, left: Option<Leftover>) -> Self {
        Self {
            subject: subject.clone(),
            attachment: attachment.clone(),
            left,
            note: None,
            retry_after: None,
        }
    }

    /// A removal that failed.
    fn failed(subject: &Digest, attachment: &Digest, failure: &Failure) -> Self {
        let (reason, message) = (
            failure.problem.reason,
            cut_message(&failure.problem.message),
        );
        let left = leftover(subject, attachment, reason, Some(message.clone()));
        let note = Some(Note {
            severity: Severity::Warning,
            reason,
            message,
        });
        Self {
            note,
            retry_after: failure.retry_after,
            ..Self::of(subject, attachment, Some(left))
        }
    }
}

/// Takes attachments away unless somebody else wants them: all subjects side by side, those of one subject one after the other, since
/// they may share a fallback tag.
pub(super) async fn remove_all(
    session: &Session,
    unwanted: Vec<(Descriptor, Digest)>,
    claims: &impl Claims,
    deadline: Instant,
) -> Vec<Removal> {
    let mut subjects: BTreeMap<Digest, (Descriptor, Vec<Digest>)> = BTreeMap::new();
    for (subject, attachment) in unwanted {
        subjects
            .entry(subject.digest.clone())
            .or_insert_with(|| (subject, Vec::new()))
            .1
            .push(attachment);
    }
    let work = subjects.values().map(|(subject, attachments)| async move {
        let mut removals = Vec::new();
        for attachment in attachments {
            // A future is polled once whatever the time is.
            let removal = match deadline > Instant::now() {
                true => timeout_at(deadline, remove(session, subject, attachment, claims))
                    .await
                    .ok(),
                false => None,
            };
            removals.push(removal.unwrap_or_else(|| {
                let message = format_args!(
                    "spec.timeout was over before {attachment} was removed from {}",
                    subject.digest
                );
                Removal::failed(
                    &subject.digest,
                    attachment,
                    &Failure::new(Reason::RegistryUnavailable, message),
                )
            }));
        }
        removals
    });
    join_all(work).await.into_iter().flatten().collect()
}

/// Takes one attachment away, unless somebody else wants it. On a fallback tag the entry goes first, since a tag that lists what is gone
/// cannot be verified by notation nor written by anybody.
async fn remove(
    session: &Session,
    subject: &Descriptor,
    attachment: &Digest,
    claims: &impl Claims,
) -> Removal {
    let on = &subject.digest;
    let stays = |reason, message| {
        Removal::of(
            on,
            attachment,
            Some(leftover(on, attachment, reason, message)),
        )
    };
    match claims.claim(on, attachment).await {
        Claim::Nobody => {}
        Claim::HandedOver => return Removal::of(on, attachment, None),
        Claim::Elsewhere => return stays(Reason::StillInUse, None),
        Claim::Unknown(why) => {
            tracing::warn!(%attachment, subject = %on, why, "not removed yet: who else wants it cannot be told");
            let message = format!(
                "{attachment} is not removed from {on} yet: whether another resource wants it cannot be told"
            );
            return stays(Reason::Progressing, Some(message));
        }
    }
    match take_away(session, subject, attachment).await {
        Ok(how) => {
            let message = format!("removed {attachment} from {on}{how}");
            Removal {
                note: Some(Note {
                    severity: Severity::Normal,
                    reason: Reason::Removed,
                    message,
                }),
                ..Removal::of(on, attachment, None)
            }
        }
        Err(failure) => Removal::failed(on, attachment, &failure),
    }
}

async fn take_away(
    session: &Session,
    subject: &Descriptor,
    attachment: &Digest,
) -> Result<&'static str, Failure> {
    let source = match session.referrers_mode() {
        Some(source) => source,
        None => session.referrers(&subject.digest, None).await?.source,
    };
    if source == ListingSource::FallbackTag {
        let change = FallbackChange {
            add: Vec::new(),
            remove: vec![attachment.clone()],
        };
        session.rewrite_fallback(subject, change, true).await?;
    }
    match session.delete_manifest(attachment).await? {
        Deletion::Done | Deletion::Gone => Ok(""),
        Deletion::Refused(_) if source == ListingSource::FallbackTag => Ok(
            ": it is not listed any more; the registry does not delete manifests, so its bytes remain",
        ),
        Deletion::Refused(answer) => Err(Failure::new(
            Reason::RemovalRefused,
            format_args!(
                "the registry refuses to delete {attachment} from {}: {answer}",
                subject.digest
            ),
        )),
    }
}
