//! The local runner: the engine for resources from files, without a cluster.
//!
//! It works on several resources at once and uses the user's own logins. Registries on loopback and private addresses are allowed, because
//! the user can reach them anyway. Uploads to another host than the registry follow the rules of the cluster, because the registry names
//! that host.

mod credential_helper;
mod keyless;
mod login;
mod progress;
pub(in crate::cli) mod sets;
mod wait;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::{ImageAttachmentSpec, Provider, Reason, TargetStatus};
use crate::attachment::Problem;
use crate::cli::documents::{Attachment, Documents};
use crate::cli::exit::{Error, message};
use crate::cli::interrupt::interrupted;
use crate::cli::output::text::Clean;
use crate::engine::{
    Claim, Claims, Draft, Engine, EngineOptions, Failure, Journal, Mode, Outcome, Request, lists,
    request,
};
use crate::service::cluster_networks;
use affix_registry::oci::{Digest, Host, Reference};
use affix_registry::{HostPattern, Keychain, Options, Registries, RetryPolicy};

use progress::Progress;
use wait::announced_by;

pub(in crate::cli) use login::user_logins;
pub(in crate::cli) use wait::announced;

/// The number of resources in work at once. The registry client limits the requests to one registry.
const MAX_CONCURRENT: usize = 8;

/// The time after which an unknown host or a refused connection is an error. A user sees a typo at once.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// The error for `previous`. The date of such a mark counts from when affix saw the move, and only a status keeps that time: every local run
/// would make one more mark with a later date.
const PREVIOUS_NEEDS_STATUS: &str = "spec.endOfLife.whenSuperseded.previous: the dates of these marks are kept in the status of a cluster, which a \
                                     local run does not have: give the digest in spec.image and a date in spec.endOfLife.date";

/// The error for the removal of marks whose dates only a status has.
const REMOVAL_NEEDS_STATUS: &str = "spec.endOfLife.whenSuperseded: the dates of these marks are kept in the status of a cluster, which a local run \
                                    does not have: give the digest in spec.image and the date in spec.endOfLife.date";

/// A resource, and the request for the engine.
pub(in crate::cli) struct Job<'a> {
    /// The resource.
    pub attachment: &'a Attachment,
    /// The request, or the reason for which nothing is done.
    request: Result<Request, Failure>,
    /// True if the plan is made without the key of the signatures.
    is_keyless: bool,
}

/// A resource, and the outcome of its job.
pub(in crate::cli) struct Finished<'a> {
    /// The resource.
    pub attachment: &'a Attachment,
    /// The outcome, or `None` if the user interrupted the command.
    pub outcome: Option<Outcome>,
}

/// Returns a registry client for local use, whose uploads need a public address on another host than the registry.
pub(in crate::cli) fn registries() -> Registries {
    registries_with(Vec::new())
}

/// Returns a registry client for local use, with hosts that a registry may name for uploads.
fn registries_with(upload_hosts: Vec<HostPattern>) -> Registries {
    Registries::new(Options {
        upload_hosts,
        cluster_networks: cluster_networks(),
        allow_loopback: true,
        retry: RetryPolicy {
            connect_total: Some(CONNECT_TIME),
            ..RetryPolicy::default()
        },
        ..Options::default()
    })
}

/// Returns an engine for local use, with hosts that a registry may name for uploads.
pub(in crate::cli) fn engine(upload_hosts: Vec<HostPattern>) -> Engine {
    let options = EngineOptions {
        wait_until_listed: true,
        ..EngineOptions::default()
    };
    Engine::new(registries_with(upload_hosts), options)
}

/// Returns the user's logins for the images of all resources that name no login of their own.
pub(in crate::cli) async fn logins(documents: &Documents, mode: Mode) -> Keychain {
    let needs_login = |spec: &ImageAttachmentSpec| {
        spec.secret_ref.is_none() && spec.service_account_name.is_none()
    };
    let mut hosts: BTreeSet<Host> = documents
        .attachments
        .iter()
        .map(|attachment| readable_spec(documents, attachment, mode))
        .filter(|spec| needs_login(spec))
        .filter_map(|spec| Some(spec.image.parse::<Reference>().ok()?.host))
        .collect();
    for set in &documents.sets {
        let spec = set.object.spec.template.spec.shared();
        if needs_login(&readable(documents, &set.namespace, spec, mode)) {
            let hosts_of_set = set.object.spec.repositories.iter();
            hosts.extend(hosts_of_set.filter_map(|name| name.split('/').next()?.parse().ok()));
        }
    }
    if hosts.is_empty() {
        Keychain::anonymous()
    } else {
        user_logins(&hosts.iter().collect()).await
    }
}

/// Returns the spec for a mode. To read, no Secret is needed: without the pull secret, the user's own login is used. Without the Secrets for
/// certificates and proxy, those of the system are used. Only a cluster issues tokens of ServiceAccounts, so the user's own login takes the
/// place of a cloud's.
pub(in crate::cli) fn readable_spec<'a>(
    documents: &Documents,
    attachment: &'a Attachment,
    mode: Mode,
) -> Cow<'a, ImageAttachmentSpec> {
    readable(
        documents,
        &attachment.namespace,
        &attachment.object.spec,
        mode,
    )
}

fn readable<'a>(
    documents: &Documents,
    namespace: &str,
    spec: &'a ImageAttachmentSpec,
    mode: Mode,
) -> Cow<'a, ImageAttachmentSpec> {
    let is_absent = |kind, name: &str| !documents.contains(kind, namespace, name);
    let secret = (spec.secret_ref.as_ref()).is_some_and(|secret| is_absent("Secret", &secret.name));
    let account =
        (spec.service_account_name.as_ref()).is_some_and(|name| is_absent("ServiceAccount", name));
    let certificates =
        (spec.cert_secret_ref.as_ref()).is_some_and(|secret| is_absent("Secret", &secret.name));
    let proxy =
        (spec.proxy_secret_ref.as_ref()).is_some_and(|secret| is_absent("Secret", &secret.name));
    let is_cloud = spec.provider() != Provider::Generic;
    let is_kms = spec.signing_account().is_some();
    let is_plan = mode == Mode::Plan && (secret || account || certificates || proxy || is_kms);
    if !is_cloud && !is_plan {
        return Cow::Borrowed(spec);
    }
    let mut spec = spec.clone();
    if is_cloud {
        spec.provider = None;
        spec.service_account_name = None;
    }
    if !is_plan {
        return Cow::Owned(spec);
    }
    keyless::without_service(&mut spec);
    spec.secret_ref = spec.secret_ref.filter(|_| !secret);
    spec.service_account_name = spec.service_account_name.filter(|_| !account);
    spec.cert_secret_ref = spec.cert_secret_ref.filter(|_| !certificates);
    spec.proxy_secret_ref = spec.proxy_secret_ref.filter(|_| !proxy);
    Cow::Owned(spec)
}

/// Turns every resource into a job, before the first request to a registry.
///
/// # Errors
/// Bad input: all errors at once. A resource that cannot be planned ends only its own plan, unless all resources are such.
pub(in crate::cli) async fn prepare(
    documents: &Documents,
    mode: Mode,
) -> Result<Vec<Job<'_>>, Error> {
    let logins = logins(documents, mode).await;
    let mut jobs = Vec::new();
    let mut errors = Vec::new();
    for attachment in &documents.attachments {
        let spec = &attachment.object.spec;
        if let Some(error) = needs_status(spec, mode).or_else(|| needs_cluster(spec, mode)) {
            errors.push(format!("{}: {error}", attachment.location));
            continue;
        }
        let spec = readable_spec(documents, attachment, mode);
        // Only `plan` reads the status of the documents.
        let generation = attachment.object.metadata.generation.unwrap_or_default();
        let mut sources = documents.sources(attachment, logins.clone());
        let absent_key = keyless::key_secret(&spec)
            .filter(|name| mode == Mode::Plan && !sources.secrets.contains_key(*name));
        if let Some(name) = absent_key {
            let substitute =
                keyless::substitute().map_err(|error| Error::Failed(error.to_string()))?;
            sources.secrets.insert(name.to_owned(), substitute);
        }
        let status = attachment.object.status.as_ref();
        let built = request(&spec, status, generation, &sources, true);
        match built {
            Ok(request) => {
                let mode = if mode == Mode::Attach {
                    request.mode
                } else {
                    mode
                };
                let request = if spec.suspend() {
                    let why = "spec.suspend is set, so nothing was done";
                    Err(Failure::new(Reason::Suspended, why))
                } else {
                    let accepts_leftovers = attachment.object.accepts_leftovers();
                    Ok(Request {
                        mode,
                        accepts_leftovers,
                        ..request
                    })
                };
                jobs.push(Job {
                    attachment,
                    request,
                    is_keyless: absent_key.is_some(),
                });
            }
            Err(problem) => {
                let explained = explain(&problem);
                errors.push(format!("{}: {explained}", attachment.location));
                jobs.push(Job {
                    attachment,
                    request: Err(Failure::new(problem.reason, explained)),
                    is_keyless: false,
                });
            }
        }
    }
    // The children of a set share their errors.
    errors.dedup();
    if errors.is_empty() || (mode == Mode::Plan && errors.len() < jobs.len()) {
        Ok(jobs)
    } else {
        Err(Error::BadInput(errors))
    }
}

/// Returns an error for a key that only the token of a ServiceAccount opens.
fn needs_cluster(spec: &ImageAttachmentSpec, mode: Mode) -> Option<String> {
    let kms = spec.kms().map(|(field, _)| field);
    let field = kms.or(spec.keyless().map(|(field, _)| field));
    let field = field.filter(|_| mode != Mode::Plan)?;
    Some(format!(
        "{field}: the token of a ServiceAccount logs in to the service, and only a cluster issues one: apply the resource in a cluster, or \
         use keySecretRef"
    ))
}

/// Returns an error for marks whose dates only the status of a cluster has.
fn needs_status(spec: &ImageAttachmentSpec, mode: Mode) -> Option<String> {
    let when = spec.end_of_life.as_ref()?.when_superseded.as_ref()?;
    match mode {
        Mode::Detach => Some(REMOVAL_NEEDS_STATUS.to_owned()),
        Mode::Attach if !when.previous.is_empty() => Some(PREVIOUS_NEEDS_STATUS.to_owned()),
        _ => None,
    }
}

/// Returns the message of a problem for local use, where objects come from files.
pub(in crate::cli) fn explain(problem: &Problem) -> String {
    let hint = match problem.reason {
        Reason::SecretNotFound | Reason::FileMissing => " (here: in a file given with -f)",
        _ => "",
    };
    format!("{}{hint}", Clean(&problem.message))
}

/// Runs the jobs until all are done or the user interrupts. Returns the results in the order of `jobs`, and whether the user interrupted.
pub(in crate::cli) async fn run<'a>(
    engine: &Engine,
    jobs: &[Job<'a>],
    activity: &'static str,
) -> (Vec<Finished<'a>>, bool) {
    let mut finished: Vec<Finished<'a>> = jobs
        .iter()
        .map(|job| Finished {
            attachment: job.attachment,
            outcome: None,
        })
        .collect();
    let progress = Progress::new(activity, jobs.len());
    let progress = &progress;
    let mut work = futures::stream::iter(jobs.iter().enumerate())
        .map(|(index, job)| async move { (index, run_job(engine, job, jobs, progress).await) })
        .buffer_unordered(MAX_CONCURRENT);
    let mut stop = std::pin::pin!(interrupted());
    let was_interrupted = loop {
        tokio::select! {
            // The signal handlers must be in place before the work begins.
            biased;
            () = &mut stop => break true,
            next = work.next() => match next {
                Some((index, outcome)) => {
                    progress.resource_done();
                    if let Some(finished) = finished.get_mut(index) {
                        finished.outcome = Some(outcome);
                    }
                }
                None => break false,
            },
        }
    };
    progress.clear();
    (finished, was_interrupted)
}

async fn run_job(engine: &Engine, job: &Job<'_>, jobs: &[Job<'_>], progress: &Progress) -> Outcome {
    progress.resource_started(job.attachment);
    let journal = LocalJournal {
        progress,
        label: job.attachment.label(),
    };
    let claims = LocalClaims {
        own: job.attachment,
        jobs,
    };
    match &job.request {
        Ok(request) => {
            let work = engine.run(request, &journal, &claims, Timestamp::now());
            let mut outcome = announced_by(|| progress.waiting(job.attachment), work).await;
            if job.is_keyless {
                let is_of_service = job.attachment.object.spec.signing_account().is_some();
                keyless::qualify(&mut outcome, is_of_service);
            }
            outcome
        }
        Err(failure) => Outcome::failed(failure),
    }
}

/// Returns the number of attachments that `detach` would remove.
pub(in crate::cli) fn removable(all: &[Finished<'_>]) -> usize {
    all.iter()
        .filter(|finished| !finished.attachment.object.spec.dry_run())
        .filter_map(|finished| finished.outcome.as_ref()?.leftovers.as_ref())
        .map(Vec::len)
        .sum()
}

/// Removes the attachments that were found. Resources with `dryRun` are left out. Returns whether the user interrupted.
pub(in crate::cli) async fn detach<'a>(
    engine: &Engine,
    jobs: &[Job<'a>],
    all: &mut [Finished<'a>],
) -> bool {
    let work = jobs
        .iter()
        .zip(all.iter_mut())
        .map(|(job, finished)| async move {
            let request = job
                .request
                .as_ref()
                .ok()
                .filter(|_| !job.attachment.object.spec.dry_run());
            if let (Some(request), Some(found)) = (
                request,
                finished.outcome.take_if(|found| {
                    found
                        .leftovers
                        .as_ref()
                        .is_some_and(|left| !left.is_empty())
                }),
            ) {
                finished.outcome = Some(engine.detach(request, found).await);
            }
        });
    let work = futures::stream::iter(work)
        .buffer_unordered(MAX_CONCURRENT)
        .collect::<Vec<()>>();
    tokio::select! {
        biased;
        () = interrupted() => true,
        _ = work => false,
    }
}

/// Reports the notices of documents.
pub(in crate::cli) fn show_notices(documents: &Documents) {
    for notice in &documents.notices {
        message(&format!("notice: {notice}"));
    }
}

/// A journal without a status. After an interruption, the next run adopts the attachments that were pushed.
struct LocalJournal<'a> {
    progress: &'a Progress,
    label: String,
}

impl Journal for LocalJournal<'_> {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn progress(&self, row: &TargetStatus) {
        self.progress.target_done(&self.label, row);
    }
}

/// The claims of the other resources of the run, taken from their status.
struct LocalClaims<'a> {
    own: &'a Attachment,
    jobs: &'a [Job<'a>],
}

impl Claims for LocalClaims<'_> {
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
        let (local, remote): (Vec<_>, Vec<_>) =
            others.partition(|other| other.namespace == self.own.namespace);
        match (local.is_empty(), remote.first()) {
            (false, _) => Claim::Transferred,
            (true, Some(other)) => {
                Claim::Elsewhere(format!("{}/{}", other.namespace, other.object.name_any()))
            }
            (true, None) => Claim::Unclaimed,
        }
    }
}
