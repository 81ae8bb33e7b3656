//! The end of a pass: what is no longer wanted goes, nothing that was made is forgotten, and the outcome is judged.

use std::time::Duration;

use tokio::time::timeout_at;

use crate::api::{Leftover, Reason, TargetState, TargetStatus};
use crate::attachment::{Created, Entry, Listed, TargetPlan};
use crate::oci::{Descriptor, Digest, RawEntry};
use crate::signing::Signer;

use super::apply::Push;
use super::claims::Claims;
use super::failure::Failure;
use super::listing::{Extent, Target};
use super::outcome::{Note, Outcome, Severity, Verdict};
use super::pass::{Pass, Request};
use super::remove::{self, Removed};
use super::rows;

impl Pass<'_> {
    /// What was attached before and had to be pushed again, or signed again for the same content, was lost in between.
    pub(super) fn note_restored(&self, outcome: &mut Outcome, target: &Target, push: &Push) {
        let subject = &target.observed.subject.digest;
        let Some(before) = self.request.memory.row(subject).filter(|row| row.state == TargetState::Attached) else { return };
        let Some(attachment) = before.attachment.as_deref() else { return };
        let listed =
            |entries: &Vec<RawEntry>| entries.iter().any(|entry| entry.digest().is_some_and(|digest| digest.to_string() == attachment));
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
        outcome.notes.push(Note { severity: Severity::Warning, reason: Reason::Restored, message });
    }

    pub(super) fn warn_of_many(&self, outcome: &mut Outcome, subject: &Descriptor, extent: &Extent) {
        let Ok(words) = &mut outcome.resolved else { return };
        let Extent { referrers, filtered, unread } = extent;
        if *referrers >= self.engine.options.warn_referrers {
            let of = if *filtered { " of this type alone" } else { "" };
            words.push(format!("{} has {referrers} referrers{of}; admission controllers stop reading at 50", subject.digest));
        }
        if *unread > 0 {
            words.push(format!("{} has {unread} more referrers of this type that were not read", subject.digest));
        }
    }

    /// Takes away what this resource made on this image and does not want any more, once what it wants is there.
    pub(super) async fn clean_up(
        &self,
        outcome: &mut Outcome,
        table: &[TargetStatus],
        targets: &[Target],
        plans: &[TargetPlan],
        claims: &impl Claims,
        entries: &[Entry],
    ) -> (Vec<Leftover>, Vec<Digest>) {
        let unwanted = remove::unwanted(
            &self.request.memory,
            table,
            targets.iter().map(|target| (&target.observed.subject, target.row)).zip(plans),
            entries,
        );
        let mut leftovers = unwanted.kept;
        let mut gone = Vec::new();
        let mut remove = unwanted.remove;
        for (subject, attachment) in unwanted.unlisted {
            // Most often it was never pushed; what the registry has all the same must not turn up in a listing later.
            match self.in_time(self.is_there(&attachment)).await.and_then(std::convert::identity) {
                Ok(true) => remove.push((subject, attachment)),
                Ok(false) => gone.push(attachment),
                Err(_) => {}
            }
        }
        for (subject, attachment) in remove {
            let removal = remove::remove(self.session, &subject, &attachment, claims);
            let (removed, note) = match timeout_at(self.deadline, removal).await {
                Ok(answer) => answer,
                Err(_) => remove::left(&subject, &attachment, &self.timed_out()),
            };
            let known =
                self.request.memory.leftovers.iter().any(|before| before.attachment == attachment.to_string() && before.message.is_some());
            match removed {
                Removed::Gone => {
                    gone.push(attachment);
                    outcome.notes.extend(note);
                }
                Removed::Left(leftover) => {
                    outcome.notes.extend(note.filter(|_| !known));
                    leftovers.push(leftover);
                }
            }
        }
        (leftovers, gone)
    }

    /// A pass that cannot make rows; what earlier passes made is not forgotten, and of the same image the rows still hold.
    pub(super) fn refuse(&self, outcome: Outcome, failure: &Failure) -> Outcome {
        let digest = outcome.image.as_ref().map(|image| image.digest.as_str());
        if self.request.memory.image.as_ref().map(ToString::to_string).as_deref() == digest {
            return Outcome { verdict: Verdict::failed(failure), ..outcome };
        }
        Outcome { verdict: Verdict::failed(failure), ..self.finish(outcome, Vec::new(), Vec::new(), &[], None) }
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
        outcome.verdict = Verdict::over(&table, retry_after);
        let refused = leftovers.iter().find(|leftover| leftover.message.is_some());
        if let (true, Some(refused), true) = (outcome.verdict.ready, refused, self.request.intent.desired.speaks()) {
            let message = refused.message.clone().unwrap_or_default();
            outcome.verdict = Verdict { ready: false, reason: Reason::RemovalRefused, message, retry_after };
        }
        outcome.skipped_not_listed = rows::bound(&mut table);
        outcome.rows = Some(table);
        outcome.leftovers = Some(leftovers);
        outcome
    }
}

/// What is said of a key whose signatures, without a timestamp of somebody else's clock, end with its certificates.
pub(super) fn end_of_signatures(signer: &dyn Signer) -> Option<String> {
    Some(format!("signatures end with their certificates at {}", Created::at(signer.ends()?)))
}

/// What is said of a `tag@digest` whose tag names another digest by now.
pub(super) fn tag_note(request: &Request, digest: &Digest, tag_names: &Digest) -> Vec<String> {
    let tag = request.intent.reference.tag.as_ref().filter(|_| tag_names != digest);
    tag.map(|tag| format!("the tag {tag} names {tag_names} by now; the digest in image decides")).into_iter().collect()
}

/// An event for each word that Resolved did not say before.
pub(super) fn news<'a>(request: &'a Request, words: &'a [String]) -> impl Iterator<Item = Note> + 'a {
    words.iter().filter(|word| !request.memory.resolved.contains(*word)).map(|word| Note {
        severity: Severity::Normal,
        reason: Reason::TagMoved,
        message: word.clone(),
    })
}
