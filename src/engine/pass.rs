//! The pass itself: which of the registry's calls come in which order, and what is saved between them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::api::{ImageStatus, Leftover, OnConflict, Reason, SupportedMode, TargetStatus};
use crate::attachment::{
    Action, Desired, EntryKind, Image, Intent, Listed, MOST_CANDIDATES, Observed, Problem, TargetPlan, plan, proven, to_fetch,
};
use crate::oci::{Descriptor, Digest, ImageManifest, Manifest, RawEntry};
use crate::registry::{Access, ErrorKind, ListingSource, Locator, Registries, Session};

use super::apply::{Push, Pushed, push_all};
use super::failure::Failure;
use super::memory::Memory;
use super::observe::{self, Resolved};
use super::outcome::{Note, Outcome, Severity, Verdict};
use super::remove::{self, Claims, Removed};
use super::rows;

/// Whether a pass writes to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Attach what is missing.
    #[default]
    Attach,
    /// Only say what would be done.
    Plan,
}

/// One pass for one resource.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is wanted.
    pub intent: Intent,
    /// How the registry is reached.
    pub access: Access,
    /// What a newer mark of somebody else means.
    pub on_conflict: OnConflict,
    /// What earlier passes left in status.
    pub memory: Memory,
    /// Whether to write.
    pub mode: Mode,
    /// Look at the registry's listings even where status says that all is done.
    pub verify: bool,
    /// Bound of the whole pass.
    pub timeout: Duration,
}

/// Where a pass writes down what it is about to do, before it does it.
pub trait Journal: Sync {
    /// Saves the rows: which attachments will be pushed, with their times. Nothing is pushed if this fails.
    fn save(&self, image: &ImageStatus, rows: &[TargetStatus]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// One target is done, well or not.
    fn progress(&self, row: &TargetStatus) {
        let _ = row;
    }
}

/// Limits of a pass that are not the protocol's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most targets that one resource may select. Default 100.
    pub most_targets: usize,
    /// Referrers of one subject from which on status warns: admission controllers stop reading at 50. Default 40.
    pub warn_referrers: usize,
    /// Referrers of one subject at which affix adds no more. Default: no limit of its own.
    pub most_referrers: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { most_targets: 100, warn_referrers: 40, most_referrers: None }
    }
}

/// Carries out passes. Shared by all resources of a process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    registries: Registries,
    options: EngineOptions,
}

/// One selected target on its way through a pass.
struct Target {
    observed: Observed,
    source: ListingSource,
    /// Where its row stands.
    row: usize,
    content: Digest,
}

impl Engine {
    /// An engine over the process's registries.
    #[must_use]
    pub const fn new(registries: Registries, options: EngineOptions) -> Self {
        Self { registries, options }
    }

    /// The registries that the engine works with.
    #[must_use]
    pub const fn registries(&self) -> &Registries {
        &self.registries
    }

    /// One pass. Every failure is in the outcome; the pass ends within the request's time-out, but for what `journal` takes.
    pub async fn run(&self, request: &Request, journal: &impl Journal, claims: &impl Claims, now: Timestamp) -> Outcome {
        let deadline = Instant::now() + request.timeout;
        let reference = &request.intent.reference;
        let session = match self.registries.open(&reference.host, &reference.repository, request.access.clone()) {
            Ok(session) => session.until(deadline),
            Err(error) => return Outcome::failed(&error.into()),
        };
        let pass = Pass { engine: self, request, session: &session, deadline, now };
        let outcome = pass.run(journal, claims).await.unwrap_or_else(|failure| Outcome::failed(&failure));
        Outcome { requests: session.requests(), ..outcome }
    }
}

struct Pass<'a> {
    engine: &'a Engine,
    request: &'a Request,
    session: &'a Session,
    deadline: Instant,
    now: Timestamp,
}

impl Pass<'_> {
    async fn run(&self, journal: &impl Journal, claims: &impl Claims) -> Result<Outcome, Failure> {
        let request = self.request;
        if request.mode == Mode::Attach
            && !request.verify
            && request.memory.is_settled(&request.intent)
            && let Some(notes) = self.in_time(self.look()).await??
        {
            let news = news(request, &notes).collect();
            return Ok(Outcome { notes: news, ..Outcome::unchanged(notes) });
        }
        let limits = &self.engine.registries.options().limits;
        // The empty blob is needed by every attachment, so it is asked for beside the image.
        let check_empty = async {
            match request.mode {
                Mode::Attach => self.session.has_blob(&Descriptor::empty().digest).await.unwrap_or(false),
                Mode::Plan => true,
            }
        };
        let resolve = async { tokio::join!(observe::resolve(self.session, &request.intent.reference, limits), check_empty) };
        let (resolved, empty_is_there) = self.in_time(resolve).await?;
        self.attach(&resolved?, empty_is_there, journal, claims).await
    }

    /// A look at a settled image: `Some` where it is as status says.
    async fn look(&self) -> Result<Option<Vec<String>>, Failure> {
        let reference = &self.request.intent.reference;
        let head = match self.session.head(&observe::locator(reference)?).await {
            Ok(head) => head,
            // The digest decides; that its tag is gone is no move.
            Err(error) if error.kind() == ErrorKind::NotFound && reference.tag.is_some() && reference.digest.is_some() => {
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(error.into()),
        };
        match &reference.digest {
            Some(digest) => Ok(Some(tag_note(self.request, digest, &head.digest))),
            None => Ok((self.request.memory.image.as_ref() == Some(&head.digest)).then(Vec::new)),
        }
    }

    async fn attach(
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
                let failure = Failure::new(Reason::NoMatchingPlatform, format_args!("spec.{error}"));
                return Ok(self.refuse(outcome, &failure));
            }
        };
        if let Ok(words) = &mut outcome.resolved {
            words.extend(notes);
        }
        let selected = chosen.iter().filter(|chosen| chosen.skip.is_none()).count();
        let most = self.engine.options.most_targets;
        if selected > most {
            let message =
                format!("spec.targets selects {selected} manifests of the image, more than {most}: narrow platforms, or name fewer");
            return Ok(self.refuse(outcome, &Failure::new(Reason::LimitExceeded, message)));
        }
        let mut table: Vec<TargetStatus> = chosen
            .iter()
            .map(|chosen| chosen.skip.map_or_else(|| rows::pending(chosen.entry), |reason| rows::skipped(chosen.entry, reason)))
            .collect();
        let mut wanted: Vec<(usize, Listed)> = Vec::new();
        for (row, chosen) in chosen.iter().enumerate().filter(|(_, chosen)| chosen.skip.is_none()) {
            let problem = match (&chosen.entry.kind, &request.intent.desired) {
                (EntryKind::Unreadable(problem), _) => Err(problem.clone()),
                (_, Desired::Content { content, mark }) => content
                    .for_target(chosen.entry, row == 0)
                    .map(|content| Listed::Content { content, mark: mark.clone() })
                    .map_err(crate::attachment::file_problem),
            };
            match problem {
                Ok(listed) => wanted.push((row, listed)),
                Err(problem) => set(&mut table, row, |status| rows::fail(status, &problem.into())),
            }
        }
        if self.is_invalid(&table) {
            return Ok(self.finish(outcome, table, Vec::new(), &[], None));
        }
        let targets = self.observe(&resolved.image, wanted).await;
        outcome.referrers_mode = self.session.referrers_mode().or_else(|| targets.first().map(|target| target.source)).map(mode);
        let plans: Vec<TargetPlan> = targets.iter().map(|target| plan(&target.observed, request.on_conflict, self.now)).collect();
        self.apply(outcome, table, &targets, &plans, empty_is_there, journal, claims, resolved).await
    }

    /// Bad input, as opposed to what a registry does: then nothing is pushed at all, so that nothing half-done is left.
    fn is_invalid(&self, table: &[TargetStatus]) -> bool {
        let bad = [Reason::FileMissing, Reason::InvalidSpec, Reason::SubjectMismatch].map(Reason::as_str);
        table
            .iter()
            .any(|row| row.reason.as_deref().is_some_and(|reason| bad.contains(&reason)) && row.state == crate::api::TargetState::Failed)
    }

    fn begin(&self, resolved: &Resolved) -> Outcome {
        let request = self.request;
        let reference = &request.intent.reference;
        let digest = &resolved.root.digest;
        let mut outcome = Outcome::unchanged(Vec::new());
        outcome.image = Some(ImageStatus {
            reference: reference.at(digest).to_string(),
            digest: digest.to_string(),
            media_type: Some(resolved.root.media_type.clone()),
        });
        let Desired::Content { content, .. } = &request.intent.desired;
        outcome.artifact_type = Some(content.artifact_type.to_string());
        let words = resolved.tag_moved.as_ref().map(|moved| tag_note(request, digest, moved)).unwrap_or_default();
        outcome.notes.extend(news(request, &words));
        let before = request.memory.image.as_ref().filter(|before| *before != digest && reference.digest.is_none());
        if let Some(before) = before {
            outcome.notes.push(Note {
                severity: Severity::Normal,
                reason: Reason::TagMoved,
                message: format!("{reference} moved from {before} to {digest}"),
            });
        }
        outcome.resolved = Ok(words);
        outcome
    }

    /// Lists the referrers of every target and reads what the listings leave open. Failures are the target's own.
    async fn observe(&self, image: &Image, wanted: Vec<(usize, Listed)>) -> Vec<Target> {
        let made = self.request.memory.made();
        let made = &made;
        join_all(wanted.into_iter().filter_map(|(row, wanted)| {
            let subject = image.entries.get(row)?.subject.clone();
            Some(async move {
                let known = self.request.memory.known(&subject.digest);
                let ours = made.get(&subject.digest).cloned().unwrap_or_default();
                let mut observed = Observed { subject, wanted, listing: Ok(Vec::new()), fetched: BTreeMap::new(), known, ours };
                let source = match self.in_time(self.list(&mut observed)).await.and_then(std::convert::identity) {
                    Ok(source) => source,
                    Err(failure) => {
                        observed.listing = Err(failure.problem);
                        ListingSource::Api
                    }
                };
                let content = match &observed.wanted {
                    Listed::Content { content, .. } => content.hash(),
                    Listed::Signature { content, .. } => content.clone(),
                };
                Target { observed, source, row, content }
            })
        }))
        .await
    }

    async fn list(&self, observed: &mut Observed) -> Result<ListingSource, Failure> {
        let Listed::Content { content, mark } = &observed.wanted else { return Ok(ListingSource::Api) };
        // What this resource made earlier may be of another type: then the filter would hide it.
        let hides = observed.ours.iter().any(|ours| observed.known.attachment.as_ref() != Some(ours))
            || (!observed.ours.is_empty() && observed.known.content.as_ref() != Some(&content.hash()));
        let filter = (!hides).then_some(&content.artifact_type);
        let listing = self.session.referrers(&observed.subject.digest, filter).await?;
        let mut entries = listing.entries;
        if let Some(most) = self.engine.options.most_referrers.filter(|most| entries.len() >= *most) {
            return Err(Failure::new(
                Reason::LimitExceeded,
                format_args!("{} has {} referrers, and the operator allows {most}: remove some", observed.subject.digest, entries.len()),
            ));
        }
        let open = to_fetch(content, mark.is_some(), &observed.subject, &entries);
        if open.len() > MOST_CANDIDATES {
            return Err(Failure::new(
                Reason::LimitExceeded,
                format_args!(
                    "{} has {} referrers of the type {} that might be equal, more than {MOST_CANDIDATES} to read: remove some",
                    observed.subject.digest,
                    open.len(),
                    content.artifact_type
                ),
            ));
        }
        let mut gone = Vec::new();
        for (descriptor, manifest) in self.read(&open).await? {
            match manifest {
                Some(manifest) => {
                    observed.fetched.insert(descriptor.digest, manifest);
                }
                None => gone.push(descriptor.digest),
            }
        }
        if listing.source == ListingSource::FallbackTag {
            let listed = proven(content, &observed.subject, &entries);
            let heads =
                join_all(listed.iter().cloned().map(|digest| async move { self.session.head(&Locator::Digest(digest)).await })).await;
            for (digest, head) in listed.into_iter().zip(heads) {
                match head {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => gone.push(digest),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        entries.retain(|entry: &RawEntry| !entry.digest().is_some_and(|digest| gone.contains(digest)));
        observed.listing = Ok(entries);
        Ok(listing.source)
    }

    /// Reads candidates; one that is listed and gone is `None`, one that is no image manifest is left out.
    async fn read(&self, open: &[Descriptor]) -> Result<Vec<(Descriptor, Option<ImageManifest>)>, Failure> {
        let answers = observe::manifests(self.session, open.iter().map(|descriptor| &descriptor.digest)).await;
        let mut read = Vec::new();
        for (descriptor, answer) in open.iter().zip(answers) {
            match answer {
                Ok(fetched) => match fetched.manifest {
                    Manifest::Image(manifest) => read.push((descriptor.clone(), Some(manifest))),
                    Manifest::Index(_) => {}
                },
                Err(error) if error.kind() == ErrorKind::NotFound => read.push((descriptor.clone(), None)),
                Err(error) if error.kind() == ErrorKind::UnsupportedMediaType => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one pass, handed on once")]
    async fn apply(
        &self,
        mut outcome: Outcome,
        mut table: Vec<TargetStatus>,
        targets: &[Target],
        plans: &[TargetPlan],
        empty_is_there: bool,
        journal: &impl Journal,
        claims: &impl Claims,
        resolved: &Resolved,
    ) -> Result<Outcome, Failure> {
        let mut pushes: Vec<(&Target, Push, bool)> = Vec::new();
        let mut retry_after = None;
        for (target, plan) in targets.iter().zip(plans) {
            if let (Ok(words), false) = (&mut outcome.resolved, plan.notes.is_empty()) {
                words.extend(plan.notes.iter().cloned());
            }
            if let Ok(entries) = &target.observed.listing {
                self.warn_of_many(&mut outcome, &target.observed.subject, entries.len());
            }
            match &plan.action {
                Action::Refuse(problem) => set(&mut table, target.row, |row| rows::fail(row, &problem.clone().into())),
                Action::Keep { existing, made } => {
                    set(&mut table, target.row, |row| rows::attached(row, existing, *made, &target.content));
                }
                Action::Attach { created, supersedes } => {
                    let Listed::Content { content, .. } = &target.observed.wanted else { continue };
                    let attachment = content.attach_to(&target.observed.subject, *created);
                    set(&mut table, target.row, |row| rows::intended(row, attachment.digest(), *created, &target.content));
                    let seen_before = target.observed.known.attachment.is_some()
                        || target.observed.listing.as_ref().is_ok_and(|entries| !entries.is_empty());
                    let push = Push {
                        subject: target.observed.subject.clone(),
                        attachment,
                        blobs: content.blobs.clone(),
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
                    row.state = crate::api::TargetState::Planned;
                    row.attachment = None;
                    row.origin = None;
                    row.created = None;
                });
            }
            return Ok(self.finish(outcome, table, Vec::new(), &[], None));
        }
        if let (Some(image), false) = (&outcome.image, pushes.is_empty()) {
            journal.save(image, &table).await?;
        }
        let timed_out = self.timed_out();
        let work: Vec<Push> = pushes.iter().map(|(_, push, _)| push.clone()).collect();
        let results = push_all(self.session, &work, empty_is_there, self.deadline, &timed_out).await;
        for ((target, push, supersedes), (result, notes)) in pushes.iter().zip(results) {
            outcome.notes.extend(notes);
            match result {
                Ok(Pushed::Listed) => {
                    let existing = crate::attachment::Existing {
                        digest: push.attachment.digest().clone(),
                        created: push.attachment.listed.annotations.get(crate::oci::annotation::CREATED).and_then(|text| text.parse().ok()),
                    };
                    set(&mut table, target.row, |row| {
                        rows::attached(row, &existing, true, &target.content);
                        row.reason = supersedes.then(|| Reason::Superseded.as_str().to_owned());
                    });
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
        let (leftovers, gone) = self.clean_up(&mut outcome, &table, targets, plans, claims, resolved).await;
        Ok(self.finish(outcome, table, leftovers, &gone, retry_after))
    }

    /// What was attached before under the same digest and had to be pushed again was lost in between.
    fn note_restored(&self, outcome: &mut Outcome, target: &Target, push: &Push) {
        let before = self.request.memory.row(&target.observed.subject.digest);
        let lost = before.is_some_and(|row| {
            row.state == crate::api::TargetState::Attached
                && row.attachment.as_deref() == Some(push.attachment.digest().to_string().as_str())
        });
        if lost {
            outcome.notes.push(Note {
                severity: Severity::Warning,
                reason: Reason::Restored,
                message: format!(
                    "{} was no longer attached to {}; it was put back",
                    push.attachment.digest(),
                    target.observed.subject.digest
                ),
            });
        }
    }

    fn warn_of_many(&self, outcome: &mut Outcome, subject: &Descriptor, count: usize) {
        if count >= self.engine.options.warn_referrers
            && let Ok(words) = &mut outcome.resolved
        {
            words.push(format!("{} has {count} referrers; admission controllers stop reading at 50", subject.digest));
        }
    }

    /// Takes away what this resource made on this image and does not want any more, once what it wants is there.
    async fn clean_up(
        &self,
        outcome: &mut Outcome,
        table: &[TargetStatus],
        targets: &[Target],
        plans: &[TargetPlan],
        claims: &impl Claims,
        resolved: &Resolved,
    ) -> (Vec<Leftover>, Vec<Digest>) {
        let unwanted = remove::unwanted(
            &self.request.memory,
            table,
            targets.iter().map(|target| (&target.observed.subject, target.row)).zip(plans),
            resolved,
        );
        let mut leftovers = unwanted.kept;
        let mut gone = Vec::new();
        for (subject, attachment) in unwanted.remove {
            // What another resource wants is its own from now on.
            if claims.is_wanted(&subject.digest, &attachment).await {
                gone.push(attachment);
                continue;
            }
            let removal = remove::remove(self.session, &subject, &attachment);
            let (removed, note) = match timeout_at(self.deadline, removal).await {
                Ok(answer) => answer,
                Err(_) => remove::left(&subject, &attachment, &self.timed_out()),
            };
            let known =
                self.request.memory.leftovers.iter().any(|before| before.attachment == attachment.to_string() && before.message.is_some());
            match removed {
                Removed::Gone => {
                    gone.push(attachment);
                    outcome.notes.push(note);
                }
                Removed::Left(leftover) => {
                    if !known {
                        outcome.notes.push(note);
                    }
                    leftovers.push(leftover);
                }
            }
        }
        (leftovers, gone)
    }

    /// A pass that cannot make rows; what earlier passes made is not forgotten.
    fn refuse(&self, outcome: Outcome, failure: &Failure) -> Outcome {
        Outcome { verdict: Verdict::failed(failure), ..self.finish(outcome, Vec::new(), Vec::new(), &[], None) }
    }

    fn finish(
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
        if let (true, Some(refused)) = (outcome.verdict.ready, refused) {
            let marks_or_signs = matches!(&self.request.intent.desired, Desired::Content { mark: Some(_), .. });
            if marks_or_signs {
                let message = refused.message.clone().unwrap_or_default();
                outcome.verdict = Verdict { ready: false, reason: Reason::RemovalRefused, message, retry_after };
            }
        }
        outcome.skipped_not_listed = rows::bound(&mut table);
        outcome.rows = Some(table);
        outcome.leftovers = Some(leftovers);
        outcome
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        timeout_at(self.deadline, work).await.map_err(|_| self.timed_out())
    }

    fn timed_out(&self) -> Failure {
        let seconds = self.request.timeout.as_secs_f64();
        Failure::from(Problem::new(
            Reason::RegistryUnavailable,
            format_args!("{} did not answer within spec.timeout ({seconds} s)", self.request.intent.reference.host),
        ))
    }
}

fn set(table: &mut [TargetStatus], row: usize, change: impl FnOnce(&mut TargetStatus)) {
    if let Some(row) = table.get_mut(row) {
        change(row);
    }
}

const fn mode(source: ListingSource) -> SupportedMode {
    match source {
        ListingSource::Api => SupportedMode::Api,
        ListingSource::FallbackTag => SupportedMode::TagSchema,
    }
}

/// What is said of a `tag@digest` whose tag names another digest by now.
fn tag_note(request: &Request, digest: &Digest, tag_names: &Digest) -> Vec<String> {
    let tag = request.intent.reference.tag.as_ref().filter(|_| tag_names != digest);
    tag.map(|tag| format!("the tag {tag} names {tag_names} by now; the digest in image decides")).into_iter().collect()
}

/// An event for each word that Resolved did not say before.
fn news<'a>(request: &'a Request, words: &'a [String]) -> impl Iterator<Item = Note> + 'a {
    words.iter().filter(|word| !request.memory.resolved.contains(*word)).map(|word| Note {
        severity: Severity::Normal,
        reason: Reason::TagMoved,
        message: word.clone(),
    })
}
