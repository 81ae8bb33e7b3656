//! Apply: blobs first, then the manifests, then the proof that the registry lists them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all, try_join_all};
use tokio::time::{Instant, timeout_at};

use crate::api::{Reason, TargetState, TargetStatus};
use crate::attachment::{
    Action, Attachment, Created, Entry, Existing, FutureMark, Listed, Problem, TargetPlan,
};
use affix_registry::oci::{Descriptor, Digest, annotation, media_type};
use affix_registry::{FallbackChange, ListingSource, Locator, RegistryError, Session};

use super::claims::Claims;
use super::dry_run;
use super::failure::Failure;
use super::finish::CleanedUp;
use super::listing::Target;
use super::outcome::{Note, Outcome, Severity};
use super::pass::{Draft, Journal, Mode, Pass};
use super::remove;
use super::rows::{self, set};

/// One attachment to push.
#[derive(Debug, Clone)]
pub(super) struct Push {
    /// What it is attached to.
    pub subject: Descriptor,
    /// The manifest.
    pub attachment: Attachment,
    /// Its blobs beside the empty one.
    pub blobs: Vec<Bytes>,
    /// How this subject's referrers are listed.
    pub source: ListingSource,
    /// Whether an earlier read in this pass, or status, saw entries in the fallback tag.
    pub seen_before: bool,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The registry lists it.
    Listed,
    /// The registry took it and does not list it yet.
    NotListedYet,
}

/// The answer to an upload that goes on beside other work.
pub(super) type Provided<'a> = Shared<BoxFuture<'a, Result<(), Failure>>>;

/// What a pass has planned, on the way into the registry.
pub(super) struct Work<'a, 'b> {
    /// Every manifest that this pass looked at.
    pub entries: &'a [Entry],
    /// The rows so far.
    pub table: Vec<TargetStatus>,
    /// The targets, and the plan of each.
    pub targets: &'a [Target],
    pub plans: &'a [TargetPlan],
    /// Sees to it that the registry has the empty blob; begun already.
    pub empty: Provided<'b>,
}

impl Pass<'_> {
    /// Carries out the plan; answers with the outcome.
    pub(super) async fn apply(
        &self,
        mut outcome: Outcome,
        work: Work<'_, '_>,
        journal: &impl Journal,
        claims: &impl Claims,
    ) -> Result<Outcome, Failure> {
        let Work {
            entries,
            mut table,
            targets,
            plans,
            empty,
        } = work;
        let mut pushes: Vec<(&Target, Push, bool)> = Vec::new();
        let mut retry_after = targets.iter().filter_map(|target| target.retry_after).max();
        // What status says was about to be pushed, and never was.
        let absent: Vec<Digest> = targets
            .iter()
            .flat_map(|target| target.unlisted.absent.iter().cloned())
            .collect();
        if let Ok(words) = &mut outcome.resolved {
            // A message has an end, and what it tells of a mark of the future says when to look again: the first comes first.
            let mut notes: Vec<&String> = plans.iter().flat_map(|plan| &plan.notes).collect();
            notes.sort_by_cached_key(|note| FutureMark::first_in(note));
            words.extend(notes.into_iter().cloned());
        }
        for (target, plan) in targets.iter().zip(plans) {
            self.warn_of_many(&mut outcome, &target.observed.subject, &target.extent);
            match &plan.action {
                Action::Refuse(problem) => set(&mut table, target.row, |row| {
                    rows::fail(row, &problem.clone().into())
                }),
                Action::Keep { existing, made } => {
                    set(&mut table, target.row, |row| {
                        self.attached(row, existing, *made, &target.content)
                    });
                }
                Action::Attach {
                    created,
                    supersedes,
                } => {
                    let (attachment, blobs) = match self.make(target, *created).await {
                        Ok(made) => made,
                        Err(problem) => {
                            set(&mut table, target.row, |row| {
                                rows::fail(row, &problem.into())
                            });
                            continue;
                        }
                    };
                    let created = stated_created(&attachment).unwrap_or(*created);
                    if self.request.mode == Mode::Attach {
                        set(&mut table, target.row, |row| {
                            rows::intended(row, attachment.digest(), created, &target.content);
                            if *supersedes {
                                row.superseded_for = Some(self.request.memory.generation);
                            }
                        });
                    }
                    let seen_before =
                        target.observed.known.attachment.is_some() || target.extent.referrers > 0;
                    let push = Push {
                        subject: target.observed.subject.clone(),
                        attachment,
                        blobs,
                        source: target.source,
                        seen_before,
                    };
                    pushes.push((target, push, *supersedes));
                }
            }
        }
        if self.request.mode == Mode::Plan {
            for (target, ..) in &pushes {
                set(&mut table, target.row, |row| {
                    row.state = TargetState::Planned
                });
            }
            let leftovers = self
                .would_remove(&table, targets, plans, claims, entries)
                .await;
            let outcome = self.finish(outcome, table, leftovers, &absent, None);
            let (rows, leftovers) = (
                outcome.rows.as_deref().unwrap_or_default(),
                outcome.leftovers.as_deref().unwrap_or_default(),
            );
            let verdict = dry_run::verdict(outcome.verdict.clone(), rows, leftovers);
            return Ok(Outcome { verdict, ..outcome });
        }
        if !pushes.is_empty() {
            self.save(journal, "attaching", &outcome, &table, &absent)
                .await?;
        }
        let timed_out = self.timed_out();
        let parcels: Vec<Push> = pushes.iter().map(|(_, push, _)| push.clone()).collect();
        let results = push_all(self.session, &parcels, empty, self.deadline, &timed_out).await;
        for ((target, push, supersedes), (result, notes)) in pushes.iter().zip(results) {
            outcome.notes.extend(notes);
            match result {
                Ok(Pushed::Listed) => {
                    let existing = Existing {
                        digest: push.attachment.digest().clone(),
                        created: stated_created(&push.attachment),
                    };
                    set(&mut table, target.row, |row| {
                        self.attached(row, &existing, true, &target.content)
                    });
                    if *supersedes {
                        let message = format!(
                            "{} now outranks a newer mark of somebody else on {}",
                            existing.digest, push.subject.digest
                        );
                        outcome.notes.push(Note {
                            severity: Severity::Normal,
                            reason: Reason::Superseded,
                            message,
                        });
                    }
                    self.note_restored(&mut outcome, target, push);
                }
                Ok(Pushed::NotListedYet) => {}
                Err(failure) => {
                    retry_after = retry_after.max(failure.retry_after);
                    set(&mut table, target.row, |row| rows::fail(row, &failure));
                }
            }
        }
        for target in targets {
            if let Some(row) = table.get(target.row) {
                journal.progress(row);
            }
        }
        let subjects = targets
            .iter()
            .map(|target| (&target.observed.subject, target.row));
        let unwanted = remove::unwanted(&self.request.memory, &table, subjects.zip(plans), entries);
        // What was attached is said before what it replaces is taken away, which may take as long again, or be cut off.
        if !pushes.is_empty() && !unwanted.is_at_rest() {
            self.save(
                journal,
                "removing what is no longer wanted",
                &outcome,
                &table,
                &absent,
            )
            .await?;
        }
        let CleanedUp {
            mut leftovers,
            mut gone,
            retry_after: asked,
        } = self.clean_up(&mut outcome, unwanted, claims).await;
        gone.extend(absent);
        leftovers.retain(|leftover| {
            !gone
                .iter()
                .any(|gone| gone.to_string() == leftover.attachment)
        });
        Ok(self.finish(outcome, table, leftovers, &gone, retry_after.max(asked)))
    }

    /// Writes down how far the pass has come.
    async fn save(
        &self,
        journal: &impl Journal,
        doing: &'static str,
        outcome: &Outcome,
        table: &[TargetStatus],
        absent: &[Digest],
    ) -> Result<(), Failure> {
        let Some(image) = &outcome.image else {
            return Ok(());
        };
        let mut leftovers = Vec::new();
        remove::remember(&self.request.memory, table, &mut leftovers, absent);
        journal
            .save(&Draft {
                image,
                rows: table,
                leftovers: &leftovers,
                superseded: outcome.superseded.as_deref(),
                doing,
            })
            .await
    }
}

impl Pass<'_> {
    /// The row says that an attachment is there, and whether it outranks somebody else's.
    fn attached(&self, row: &mut TargetStatus, existing: &Existing, made: bool, content: &Digest) {
        rows::attached(row, existing, made, content);
        let outranks = row.superseded_for == Some(self.request.memory.generation);
        row.reason = outranks.then(|| Reason::Superseded.as_str().to_owned());
    }

    /// The attachment of what is wanted on a target, and its blobs.
    async fn make(
        &self,
        target: &Target,
        created: Created,
    ) -> Result<(Attachment, Vec<Bytes>), Problem> {
        let subject = &target.observed.subject;
        match (&target.observed.wanted, &target.unlisted.own) {
            (Listed::Content { content, .. }, _) => {
                Ok((content.attach_to(subject, created), content.blobs.clone()))
            }
            (Listed::Signature { .. }, Some(own)) => Ok((own.clone(), Vec::new())),
            (Listed::Signature { .. }, None) => {
                // A hundred RSA signatures take half a second: others get their turn in between.
                tokio::task::yield_now().await;
                let (Some(signer), Some(key)) = (self.signer(), &self.request.key) else {
                    return Err(Problem::new(Reason::KeyInvalid, "the key is not open"));
                };
                let signature = signer
                    .sign(subject, created.instant())
                    .map_err(|error| key.problem(&error))?;
                Ok((
                    Attachment::from_manifest(&signature.manifest),
                    vec![signature.layer.into()],
                ))
            }
        }
    }
}

fn stated_created(attachment: &Attachment) -> Option<Created> {
    attachment
        .listed
        .annotations
        .get(annotation::CREATED)?
        .parse()
        .ok()
}

/// Pushes everything; one failure stops nothing else. Answers in the order of `pushes`.
pub(super) async fn push_all(
    session: &Session,
    pushes: &[Push],
    empty: Provided<'_>,
    deadline: Instant,
    timed_out: &Failure,
) -> Vec<(Result<Pushed, Failure>, Vec<Note>)> {
    let wanted: BTreeMap<Digest, Bytes> = pushes
        .iter()
        .flat_map(|push| &push.blobs)
        .map(|bytes| (Digest::sha256(bytes), bytes.clone()))
        .collect();
    let uploads = wanted.into_iter().map(|(digest, bytes)| {
        let upload = async move {
            let answer = timeout_at(deadline, session.put_blob(bytes)).await;
            answer
                .map_err(|_| timed_out.clone())
                .and_then(|answer| answer.map(drop).map_err(Failure::from))
        };
        (digest, upload.boxed().shared())
    });
    // Each manifest waits for its own blobs, which it may share with others.
    let blobs: BTreeMap<Digest, Provided<'_>> = uploads
        .chain([(Descriptor::empty().digest, empty.boxed().shared())])
        .collect();
    let blobs = &blobs;
    join_all(pushes.iter().map(|push| async move {
        let mut notes = Vec::new();
        let needed = push
            .blobs
            .iter()
            .map(|bytes| Digest::sha256(bytes))
            .chain([Descriptor::empty().digest]);
        let provided = join_all(needed.filter_map(|digest| blobs.get(&digest).cloned())).await;
        if let Some(failure) = provided.into_iter().find_map(Result::err) {
            return (Err(failure), notes);
        }
        let answer = timeout_at(deadline, push_one(session, push, &mut notes)).await;
        (answer.unwrap_or_else(|_| Err(timed_out.clone())), notes)
    }))
    .await
}

/// Whether a manifest was refused for a blob: the registry said that it has it, and has it no longer, or never had it here.
fn lacks_blobs(error: &RegistryError) -> bool {
    let codes = error
        .answer()
        .map(|answer| answer.codes.as_slice())
        .unwrap_or_default();
    codes
        .iter()
        .any(|code| matches!(code.as_str(), "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN"))
}

async fn push_one(
    session: &Session,
    push: &Push,
    notes: &mut Vec<Note>,
) -> Result<Pushed, Failure> {
    let digest = push.attachment.digest();
    let at = Locator::Digest(digest.clone());
    let put_once =
        || session.put_manifest(&at, media_type::OCI_MANIFEST, push.attachment.bytes.clone());
    let put = async {
        match put_once().await {
            Err(error) if lacks_blobs(&error) => {
                let blobs = push
                    .blobs
                    .iter()
                    .cloned()
                    .chain([Bytes::from_static(b"{}")]);
                try_join_all(blobs.map(|bytes| session.put_blob(bytes))).await?;
                put_once().await
            }
            other => other,
        }
    };
    match push.source {
        ListingSource::Api => {
            if put.await?.subject_acknowledged.as_ref() == Some(&push.subject.digest) {
                return Ok(Pushed::Listed);
            }
            let listing = session.referrers(&push.subject.digest, None).await?;
            let listed = listing.entries.iter().any(|entry| entry.digest == *digest);
            Ok(if listed {
                Pushed::Listed
            } else {
                Pushed::NotListedYet
            })
        }
        ListingSource::FallbackTag => {
            let change = FallbackChange {
                add: vec![push.attachment.listed.clone()],
                remove: Vec::new(),
            };
            let put = async { put.await.map(drop) };
            let outcome = session
                .rewrite_fallback_after(put, &push.subject, change, push.seen_before)
                .await?;
            notes.extend(outcome.dropped.iter().map(|dropped| Note {
                severity: Severity::Warning,
                reason: Reason::DanglingEntryDropped,
                message: format!(
                    "the fallback tag of {} listed {dropped}, which is gone from the registry; the entry was dropped",
                    push.subject.digest
                ),
            }));
            Ok(Pushed::Listed)
        }
    }
}
