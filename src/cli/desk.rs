//! The engine on a desk: resources from files instead of a cluster, several side by side, with the user's own logins, and with
//! loopback and private addresses allowed, since the user may reach them anyway.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;

use super::documents::{Attachment, Documents};
use super::exit::{Error, tell};
use super::interrupt::interrupted;
use super::login;
use super::text::{Clean, line};
use crate::api::{Reason, TargetStatus};
use crate::attachment::Problem;
use crate::engine::{
    Claim, Claims, Draft, Engine, EngineOptions, Failure, Journal, Mode, Outcome, Request, lists,
    request,
};
use affix_registry::oci::{Digest, Host, Reference};
use affix_registry::{Keychain, Options, Registries};

/// How many resources are worked on at once; requests to one registry are limited by the registry room.
const SIDE_BY_SIDE: usize = 8;

/// Why a desk marks nothing by `previous`: the date of such a mark counts from when affix saw the move, and only a status keeps it, so
/// that every run would make one more mark with a later date.
const NO_MEMORY: &str = "spec.endOfLife.whenSuperseded.previous: the dates of these marks are kept in the status of a cluster, which a desk has \
                         not: give the digest in spec.image and a date in spec.endOfLife.date";

/// Why a desk takes none of these marks away.
const NO_DATE: &str = "spec.endOfLife.whenSuperseded: the dates of these marks are kept in the status of a cluster, which a desk has not: give the \
                       digest in spec.image and the date in spec.endOfLife.date";

/// A resource, and what is to be done for it.
pub(super) struct Job<'a> {
    /// The resource.
    pub attachment: &'a Attachment,
    /// `None`: the resource is suspended.
    request: Option<Request>,
}

/// A resource, and what came of it.
pub(super) struct Done<'a> {
    /// The resource.
    pub attachment: &'a Attachment,
    /// `None`: the user ended the command before.
    pub outcome: Option<Outcome>,
}

/// The registries as a desk reaches them.
pub(super) fn registries() -> Registries {
    Registries::new(Options {
        allow_loopback: true,
        ..Options::default()
    })
}

/// The user's logins for the images of all resources.
pub(super) fn logins(documents: &Documents) -> Keychain {
    let own = documents.attachments.iter().filter(|attachment| {
        let spec = &attachment.object.spec;
        spec.secret_ref.is_none() && spec.service_account_name.is_none()
    });
    let hosts: BTreeSet<Host> = own
        .filter_map(|own| Some(own.object.spec.image.parse::<Reference>().ok()?.host))
        .collect();
    if hosts.is_empty() {
        Keychain::anonymous()
    } else {
        login::of_user(&hosts.iter().collect())
    }
}

/// Turns every resource into a request, before anything is asked of a registry.
///
/// # Errors
/// Bad input: all that is wrong at once.
pub(super) fn prepare(documents: &Documents, mode: Mode) -> Result<Vec<Job<'_>>, Error> {
    let logins = logins(documents);
    let mut jobs = Vec::new();
    let mut errors = Vec::new();
    for attachment in &documents.attachments {
        let spec = &attachment.object.spec;
        if mode == Mode::Detach
            && spec
                .end_of_life
                .as_ref()
                .is_some_and(|mark| mark.when_superseded.is_some())
        {
            errors.push(format!("{}: {NO_DATE}", attachment.place));
            continue;
        }
        if mode == Mode::Attach
            && spec
                .end_of_life
                .as_ref()
                .and_then(|mark| mark.when_superseded.as_ref())
                .is_some_and(|when| !when.previous.is_empty())
        {
            errors.push(format!("{}: {NO_MEMORY}", attachment.place));
            continue;
        }
        // Without a status but in a plan: see [`Documents::read_status`].
        let generation = attachment.object.metadata.generation.unwrap_or_default();
        match request(
            spec,
            attachment.object.status.as_ref(),
            generation,
            &documents.sources(attachment, logins.clone()),
            true,
        ) {
            Ok(request) => {
                let mode = if mode == Mode::Attach {
                    request.mode
                } else {
                    mode
                };
                let request = (!spec.suspend()).then_some(Request { mode, ..request });
                jobs.push(Job {
                    attachment,
                    request,
                });
            }
            Err(problem) => errors.push(format!("{}: {}", attachment.place, explained(&problem))),
        }
    }
    if errors.is_empty() {
        Ok(jobs)
    } else {
        Err(Error::BadInput(errors))
    }
}

/// A problem in the words of a desk, where "create it" means to hand over one more file.
pub(super) fn explained(problem: &Problem) -> String {
    let hint = match problem.reason {
        Reason::SecretNotFound | Reason::FileMissing => " (here: in a file given with -f)",
        _ => "",
    };
    format!("{}{hint}", Clean(&problem.message))
}

/// Does the jobs, and ends early where the user asks for it; answers in the order of `jobs`, and whether it ended early.
pub(super) async fn run<'a>(
    engine: &Engine,
    jobs: &[Job<'a>],
    doing: &'static str,
) -> (Vec<Done<'a>>, bool) {
    let mut done: Vec<Done<'a>> = jobs
        .iter()
        .map(|job| Done {
            attachment: job.attachment,
            outcome: None,
        })
        .collect();
    let progress = Progress::new(doing, jobs.len());
    let progress = &progress;
    let mut work = futures::stream::iter(jobs.iter().enumerate())
        .map(|(nth, job)| async move {
            progress.begin(job.attachment);
            let journal = DeskJournal {
                progress,
                label: job.attachment.label(),
            };
            let claims = DeskClaims {
                own: job.attachment,
                jobs,
            };
            let outcome = match &job.request {
                Some(request) => {
                    engine
                        .run(request, &journal, &claims, Timestamp::now())
                        .await
                }
                None => Outcome::failed(&Failure::new(
                    Reason::Suspended,
                    "spec.suspend is set, so nothing was done",
                )),
            };
            (nth, outcome)
        })
        .buffer_unordered(SIDE_BY_SIDE);
    let mut stop = std::pin::pin!(interrupted());
    let early = loop {
        tokio::select! {
            // A signal is listened for before the first work begins.
            biased;
            () = &mut stop => break true,
            next = work.next() => match next {
                Some((nth, outcome)) => {
                    progress.resource_done();
                    if let Some(done) = done.get_mut(nth) {
                        done.outcome = Some(outcome);
                    }
                }
                None => break false,
            },
        }
    };
    progress.end();
    (done, early)
}

/// How many attachments were found to be removed.
pub(super) fn removable(done: &[Done<'_>]) -> usize {
    done.iter()
        .filter(|done| !done.attachment.object.spec.dry_run())
        .filter_map(|done| done.outcome.as_ref()?.leftovers.as_ref())
        .map(Vec::len)
        .sum()
}

/// Removes what was found, but for resources that only ask for a plan; answers whether it ended early.
pub(super) async fn detach<'a>(engine: &Engine, jobs: &[Job<'a>], done: &mut [Done<'a>]) -> bool {
    let work = jobs
        .iter()
        .zip(done.iter_mut())
        .map(|(job, done)| async move {
            let request = job
                .request
                .as_ref()
                .filter(|_| !job.attachment.object.spec.dry_run());
            if let (Some(request), Some(found)) = (
                request,
                done.outcome.take_if(|found| {
                    found
                        .leftovers
                        .as_ref()
                        .is_some_and(|left| !left.is_empty())
                }),
            ) {
                done.outcome = Some(engine.detach(request, found).await);
            }
        });
    let work = futures::stream::iter(work)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect::<Vec<()>>();
    tokio::select! {
        biased;
        () = interrupted() => true,
        _ = work => false,
    }
}

/// The engine for a desk.
pub(super) fn engine() -> Engine {
    Engine::new(registries(), EngineOptions::default())
}

/// A desk has no status to write to: a pass that is cut off adopts, the next time, what it had pushed.
struct DeskJournal<'a> {
    progress: &'a Progress,
    label: String,
}

impl Journal for DeskJournal<'_> {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn progress(&self, row: &TargetStatus) {
        self.progress.target_done(&self.label, row);
    }
}

/// Who else wants what a plan would remove, as far as the status of the other resources tells.
struct DeskClaims<'a> {
    own: &'a Attachment,
    jobs: &'a [Job<'a>],
}

impl Claims for DeskClaims<'_> {
    async fn claim(&self, subject: &Digest, attachment: &Digest) -> Claim {
        self.would_claim(subject, attachment).await
    }

    async fn would_claim(&self, subject: &Digest, attachment: &Digest) -> Claim {
        let lists = |other: &&Attachment| {
            other
                .object
                .status
                .as_ref()
                .is_some_and(|status| lists(status, subject, attachment))
        };
        let others = self
            .jobs
            .iter()
            .map(|job| job.attachment)
            .filter(|other| !std::ptr::eq(*other, self.own))
            .filter(lists);
        let here: Vec<bool> = others
            .map(|other| other.namespace == self.own.namespace)
            .collect();
        match (here.contains(&true), here.is_empty()) {
            (true, _) => Claim::HandedOver,
            (false, false) => Claim::Elsewhere,
            (false, true) => Claim::Nobody,
        }
    }
}

/// What is shown on stderr while the work is under way: one line that changes on a terminal, a line a target elsewhere.
struct Progress {
    terminal: bool,
    doing: &'static str,
    resources: usize,
    done: Mutex<(usize, usize)>,
}

impl Progress {
    fn new(doing: &'static str, resources: usize) -> Self {
        let progress = Self {
            terminal: std::io::stderr().is_terminal(),
            doing,
            resources,
            done: Mutex::new((0, 0)),
        };
        progress.show("");
        progress
    }

    fn begin(&self, attachment: &Attachment) {
        if !self.terminal {
            let image = line(&attachment.object.spec.image, 1024);
            tell(&format!("{}: {} {image}", attachment.label(), self.doing));
        }
    }

    fn resource_done(&self) {
        self.count(|(resources, _)| *resources += 1);
        self.show("");
    }

    fn target_done(&self, label: &str, row: &TargetStatus) {
        self.count(|(_, targets)| *targets += 1);
        let target = row.platform.as_deref().unwrap_or("index");
        let why = row.reason.as_deref().unwrap_or_default();
        if self.terminal {
            self.show(&format!(", {} of {label}", line(target, 40)));
        } else {
            let text = format!(
                "{label}: {} {} {:?} {why}",
                line(target, 80),
                row.digest,
                row.state
            );
            tell(text.trim_end());
        }
    }

    fn count(&self, change: impl FnOnce(&mut (usize, usize))) {
        let mut done = self
            .done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut done);
    }

    fn show(&self, latest: &str) {
        if self.terminal {
            let (resources, targets) = *self
                .done
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut stderr = std::io::stderr().lock();
            let _ = write!(
                stderr,
                "\r\x1b[2K{}: {resources} of {} resources, {targets} targets done{latest}",
                self.doing, self.resources
            );
            let _ = stderr.flush();
        }
    }

    fn end(&self) {
        if self.terminal {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[2K");
            let _ = stderr.flush();
        }
    }
}
