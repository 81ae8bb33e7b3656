//! The end of a pass: what is no longer wanted goes, nothing that was made is forgotten, and the outcome is judged.

use std::convert::identity;
use std::time::Duration;

use futures::future::join_all;

use crate::api::{Leftover, Reason, TargetState, TargetStatus, cut_message};
use crate::attachment::{Created, Listed, Problem};
use crate::signing::Signer;
use affix_registry::oci::{Descriptor, Digest};

use super::apply::Push;
use super::claims::Claims;
use super::failure::Failure;
use super::listing::{Extent, Target};
use super::outcome::{Note, Outcome, Severity, Verdict};
use super::pass::Pass;
use super::remove::{self, Unwanted};
use super::rows;

/// What came of what was not wanted any more.
pub(super) struct CleanedUp {
    /// What stays, and why.
    pub leftovers: Vec<Leftover>,
    /// What the registry does not have any more.
    pub gone: Vec<Digest>,
    /// How long the registry asked to wait.
    pub retry_after: Option<Duration>,
}

impl Pass<'_> {
    /// What was attached before and had to be pushed again, or signed again for the same content, was lost in between.
    pub(super) fn note_restored(&self, outcome: &mut Outcome, target: &Target, push: &Push) {
        let subject = &target.observed.subject.digest;
        let Some(before) = self
            .request
            .memory
            .row(subject)
            .filter(|row| row.state == TargetState::Attached)
        else {
            return;
        };
        let Some(attachment) = before.attachment.as_deref() else {
            return;
        };
        let listed = |entries: &Vec<Descriptor>| {
            entries
                .iter()
                .any(|entry| entry.digest.to_string() == attachment)
        };
        let what = if attachment == push.attachment.digest().to_string() {
            "it was put back"
        } else if matches!(target.observed.wanted, Listed::Signature { .. })
            && before.content.as_deref() == Some(target.content.to_string().as_str())
            && !target.observed.listing.as_ref().is_ok_and(listed)
        {
            "the target was signed anew"
        } else {
            return;
        };
        let message = format!("{attachment} was no longer attached to {subject}; {what}");
        outcome.notes.push(Note {
            severity: Severity::Warning,
            reason: Reason::Restored,
            message,
        });
    }

    pub(super) fn warn_of_many(
        &self,
        outcome: &mut Outcome,
        subject: &Descriptor,
        extent: &Extent,
    ) {
        let Ok(words) = &mut outcome.resolved else {
            return;
        };
        let Extent {
            referrers,
            filtered,
            unread,
        } = extent;
        if *referrers >= self.engine.options.warn_referrers {
            let of = if *filtered { " of this type alone" } else { "" };
            words.push(format!(
                "{} has {referrers} referrers{of}; admission controllers stop reading at 50",
                subject.digest
            ));
        }
        if *unread > 0 {
            words.push(format!(
                "{} has {unread} more referrers of this type that were not read",
                subject.digest
            ));
        }
    }

    /// Takes away what this resource made on this image and does not want any more, once what it wants is there.
    pub(super) async fn clean_up(
        &self,
        outcome: &mut Outcome,
        unwanted: Unwanted,
        claims: &impl Claims,
    ) -> CleanedUp {
        let Unwanted {
            mut remove,
            unlisted,
            kept,
        } = unwanted;
        let mut done = CleanedUp {
            leftovers: kept,
            gone: Vec::new(),
            retry_after: None,
        };
        // Most often it was never pushed; what the registry has all the same must not turn up in a listing later.
        let looks = unlisted.iter().map(|(_, attachment)| async {
            self.in_time(self.is_there(attachment))
                .await
                .and_then(identity)
        });
        for ((subject, attachment), is_there) in unlisted.iter().zip(join_all(looks).await) {
            match is_there {
                Ok(true) => remove.push((subject.clone(), attachment.clone())),
                Ok(false) => done.gone.push(attachment.clone()),
                Err(failure) => {
                    done.retry_after = done.retry_after.max(failure.retry_after);
                    let Problem { reason, message } = failure.problem;
                    done.leftovers.push(remove::leftover(
                        &subject.digest,
                        attachment,
                        reason,
                        Some(cut_message(&message)),
                    ));
                }
            }
        }
        for removal in remove::remove_all(self.session, remove, claims, self.deadline).await {
            let text = removal.attachment.to_string();
            let is_known = || {
                self.request
                    .memory
                    .leftovers
                    .iter()
                    .any(|before| before.attachment == text && before.message.is_some())
            };
            outcome.notes.extend(
                removal
                    .note
                    .filter(|_| removal.left.is_none() || !is_known()),
            );
            done.retry_after = done.retry_after.max(removal.retry_after);
            match removal.left {
                None => done.gone.push(removal.attachment),
                Some(left) => done.leftovers.push(left),
            }
        }
        done
    }

    /// A pass that begins nothing, since what is selected forbids it. What `table` does not say of what earlier passes made is not
    /// forgotten. While a passing cause keeps the image from being read, the rows of the same image and spec still hold.
    pub(super) fn refuse(
        &self,
        outcome: Outcome,
        mut table: Vec<TargetStatus>,
        failure: &Failure,
    ) -> Outcome {
        let memory = &self.request.memory;
        let digest = outcome.image.as_ref().map(|image| image.digest.as_str());
        let is_same =
            memory.current && memory.image.as_ref().map(ToString::to_string).as_deref() == digest;
        if is_same && failure.problem.reason.is_retried() {
            return Outcome {
                verdict: Verdict::failed(failure),
                ..outcome
            };
        }
        let selected_not_listed = rows::bound_selected(&mut table);
        let verdict = Verdict::failed(failure);
        Outcome {
            verdict,
            selected_not_listed,
            ..self.finish(outcome, table, Vec::new(), &[], None)
        }
    }

    pub(super) fn finish(
        &self,
        mut outcome: Outcome,
        mut table: Vec<TargetStatus>,
        mut leftovers: Vec<Leftover>,
        gone: &[Digest],
        retry_after: Option<Duration>,
    ) -> Outcome {
        remove::remember(&self.request.memory, &table, &mut leftovers, gone);
        outcome.verdict = Verdict::over(&table, retry_after)
            .but_for(&leftovers, self.request.intent.desired.speaks());
        outcome.skipped_not_listed = rows::bound(&mut table);
        outcome.rows = Some(table);
        outcome.leftovers = Some(leftovers);
        outcome
    }
}

/// What is said of a key whose signatures, without a timestamp of somebody else's clock, end with its certificates.
pub(super) fn end_of_signatures(signer: &dyn Signer) -> Option<String> {
    Some(format!(
        "signatures end with their certificates at {}",
        Created::at(signer.ends()?)
    ))
}
