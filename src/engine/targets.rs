//! From the image to its targets: what is selected, what each one is to get, and what forbids to begin at all.

use std::pin::pin;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{Either, select};

use crate::api::{ImageStatus, Reason, TargetState, TargetStatus};
use crate::attachment::{
    Action, Chosen, Desired, Entry, EntryKind, Listed, Problem, TargetPlan, file_problem, plan,
};
use affix_registry::oci::Descriptor;

use super::apply::Work;
use super::claims::Claims;
use super::failure::Failure;
use super::finish::end_of_signatures;
use super::inspection::Inspection;
use super::listing::{Target, mode};
use super::observe::Resolved;
use super::outcome::{Note, Outcome, Severity};
use super::pass::{Journal, Mode, Pass};
use super::pinned::known_drift;
use super::rows;

impl Pass<'_> {
    /// Chooses the targets of a resolved image, plans each one, and carries the plan out.
    pub(super) async fn attach(
        &self,
        resolved: &Resolved,
        empty_is_there: bool,
        journal: &impl Journal,
        claims: &impl Claims,
    ) -> Result<Outcome, Failure> {
        let request = self.request;
        let mut outcome = self.begin(resolved);
        let (chosen, notes) = match request.intent.selection.choose(&resolved.image) {
            Ok(chosen) => chosen,
            Err(error) => {
                let failure = Failure::new(error.reason(), format_args!("spec.{error}"));
                let table = self.waiting(&request.intent.selection.judge(&resolved.image));
                return Ok(self.refuse(outcome, table, &failure));
            }
        };
        if let Ok(words) = &mut outcome.resolved {
            words.extend(notes);
            if let Desired::Content { content, .. } = &request.intent.desired {
                words.extend(content.idle_files(&chosen));
            }
        }
        let selected = chosen.iter().filter(|chosen| chosen.skip.is_none()).count();
        let most = self.engine.options.most_targets;
        if selected > most {
            let message = format!(
                "spec.targets selects {selected} manifests of the image, more than {most}: narrow platforms, or name fewer"
            );
            return Ok(self.refuse(
                outcome,
                self.waiting(&chosen),
                &Failure::new(Reason::LimitExceeded, message),
            ));
        }
        let mut table = self.table(&chosen);
        let mut inspection = Inspection::default();
        let mut wanted: Vec<(usize, Listed)> = Vec::new();
        for (row, chosen) in chosen
            .iter()
            .enumerate()
            .filter(|(_, chosen)| chosen.skip.is_none())
        {
            let problem = match (&chosen.entry.kind, &request.intent.desired) {
                (EntryKind::Unreadable(problem), _) => Err(problem.clone()),
                (_, Desired::Content { content, mark }) => content
                    .for_target(chosen.entry)
                    .map_err(file_problem)
                    .and_then(|content| inspection.check(&content, chosen.entry).map(|()| content))
                    .map(|content| Listed::Content {
                        content,
                        mark: mark.clone(),
                    }),
                (_, Desired::Signature { artifact_type }) => match self.signer {
                    Some(Ok(signer)) => Ok(Listed::Signature {
                        content: signer.fingerprint(),
                        artifact_type: artifact_type.to_string(),
                        verified: Vec::new(),
                    }),
                    Some(Err(problem)) => Err(problem.clone()),
                    None => Err(Problem::new(
                        Reason::SecretNotFound,
                        "the resource signs, and no key was given to sign with",
                    )),
                },
                // Marks of moves have a pass of their own.
                (_, Desired::WhenSuperseded(_)) => continue,
            };
            match problem {
                Ok(listed) => wanted.push((row, listed)),
                Err(problem) => rows::set(&mut table, row, |status| {
                    rows::fail(status, &problem.into())
                }),
            }
        }
        if self.is_invalid(&table) {
            rows::wait(
                &mut table,
                "nothing is attached before the input for every target is right",
            );
            return Ok(self.finish(outcome, table, Vec::new(), &[], None));
        }
        let wanted = wanted.into_iter().filter_map(|(row, listed)| {
            Some((
                row,
                resolved.image.entries.get(row)?.subject.clone(),
                listed,
            ))
        });
        self.settle(
            outcome,
            table,
            wanted.collect(),
            &resolved.image.entries,
            empty_is_there,
            journal,
            claims,
        )
        .await
    }

    /// A row for each entry, before anything is done about it.
    fn table(&self, chosen: &[Chosen<'_>]) -> Vec<TargetStatus> {
        let row = |chosen: &Chosen<'_>| match chosen.skip {
            Some(reason) => rows::skipped(chosen.entry, reason),
            None => rows::known(
                rows::pending(chosen.entry),
                self.request.memory.row(&chosen.entry.subject.digest),
            ),
        };
        chosen.iter().map(row).collect()
    }

    /// The rows of a selection that nothing is attached to.
    fn waiting(&self, chosen: &[Chosen<'_>]) -> Vec<TargetStatus> {
        let mut table = self.table(chosen);
        for (row, chosen) in table.iter_mut().zip(chosen) {
            if let EntryKind::Unreadable(problem) = &chosen.entry.kind {
                rows::fail(row, &problem.clone().into());
            }
        }
        rows::wait(
            &mut table,
            "nothing is attached before spec.targets fits the image",
        );
        table
    }

    /// Observes what is wanted on which subjects, plans it, and carries the plan out.
    #[allow(
        clippy::too_many_arguments,
        reason = "the state of one pass, handed on once"
    )]
    pub(super) async fn settle(
        &self,
        mut outcome: Outcome,
        table: Vec<TargetStatus>,
        wanted: Vec<(usize, Descriptor, Listed)>,
        entries: &[Entry],
        empty_is_there: bool,
        journal: &impl Journal,
        claims: &impl Claims,
    ) -> Result<Outcome, Failure> {
        let is_needless = empty_is_there || wanted.is_empty();
        let empty = self.provide_empty(is_needless).boxed().shared();
        let observe = pin!(self.observe(wanted));
        let targets = match select(observe, empty.clone()).await {
            Either::Left((targets, _)) => targets,
            Either::Right((_, observe)) => observe.await,
        };
        outcome.referrers_mode = self
            .session
            .referrers_mode()
            .or_else(|| targets.first().map(|target| target.source))
            .map(mode);
        if self.request.mode == Mode::Detach {
            return Ok(self.found(outcome, table, &targets));
        }
        let plans: Vec<TargetPlan> = targets.iter().map(|target| self.plan(target)).collect();
        let work = Work {
            entries,
            table,
            targets: &targets,
            plans: &plans,
            empty,
        };
        self.apply(outcome, work, journal, claims).await
    }

    /// The plan of one target. What is there stays at any number of referrers; the operator's limit is on adding to them.
    fn plan(&self, target: &Target) -> TargetPlan {
        let plan = plan(&target.observed, self.request.on_conflict, self.now);
        let others = target.extent.referrers.saturating_sub(plan.remove.len());
        match (&plan.action, self.engine.options.most_referrers) {
            (Action::Attach { .. }, Some(most)) if others >= most => {
                let subject = &target.observed.subject.digest;
                let message = format!(
                    "{subject} has {others} referrers, and the operator allows {most}: remove some"
                );
                TargetPlan {
                    action: Action::Refuse(Problem::new(Reason::LimitExceeded, message)),
                    remove: Vec::new(),
                    notes: plan.notes,
                }
            }
            _ => plan,
        }
    }

    /// Sees to it that the registry has the empty blob, which every attachment needs. That may go on beside anything but the PUT of a
    /// manifest.
    async fn provide_empty(&self, is_there: bool) -> Result<(), Failure> {
        if is_there || self.request.mode != Mode::Attach {
            return Ok(());
        }
        self.in_time(self.session.put_blob(Bytes::from_static(b"{}")))
            .await??;
        Ok(())
    }

    /// Bad input, as opposed to what a registry does: then nothing is pushed at all, so that nothing half-done is left.
    fn is_invalid(&self, table: &[TargetStatus]) -> bool {
        let bad = [
            Reason::FileMissing,
            Reason::InvalidSpec,
            Reason::SubjectMismatch,
            Reason::KeyInvalid,
            Reason::SecretNotFound,
        ]
        .map(Reason::as_str);
        table.iter().any(|row| {
            row.reason
                .as_deref()
                .is_some_and(|reason| bad.contains(&reason))
                && row.state == TargetState::Failed
        })
    }

    /// What is known of the outcome once the image is resolved.
    pub(super) fn begin(&self, resolved: &Resolved) -> Outcome {
        let request = self.request;
        let reference = &request.intent.reference;
        let digest = &resolved.root.digest;
        let mut outcome = Outcome::unchanged(Vec::new());
        outcome.image = Some(ImageStatus {
            reference: reference.at(digest).to_string(),
            digest: digest.to_string(),
            tag: reference.followed().map(ToString::to_string),
            media_type: Some(resolved.root.media_type.clone()),
            tag_drift: known_drift(request),
        });
        if let Some(before) = request
            .memory
            .followed
            .as_ref()
            .filter(|before| *before != digest)
        {
            outcome.notes.push(Note {
                severity: Severity::Normal,
                reason: Reason::TagMoved,
                message: format!("{reference} moved from {before} to {digest}"),
            });
        }
        outcome.resolved = Ok(self
            .signer()
            .and_then(end_of_signatures)
            .into_iter()
            .collect());
        outcome
    }
}
