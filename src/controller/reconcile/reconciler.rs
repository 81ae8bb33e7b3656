//! One reconciliation: from the object to a pass of the engine, and from its outcome to status, events and the next visit.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::core::Status;
use kube::{Resource as _, ResourceExt as _};
use tracing::Instrument as _;

use crate::api::{
    ConditionType, Conditions, DeletionPolicy, ImageAttachment, ImageAttachmentStatus, Reason,
    find_condition,
};
use crate::attachment::{self, Problem};
use crate::engine::{self, Failure, Names, Note, Outcome, Severity};
use affix_registry::oci::Digest;

use crate::controller::context::{ClusterError, Context, StatusJournal};
use crate::controller::leader::leadership::Term;
use crate::controller::metrics;
use crate::controller::reconcile::backoff;
use crate::controller::reconcile::finalizer::is_held;
use crate::controller::reconcile::ownership::ClusterClaims;
use crate::controller::reconcile::references::Namespace;
use crate::controller::reconcile::status_writer::Ledger;
use crate::controller::watch::cache::{Stored, Summary};
use crate::controller::watch::secret_watch::{Changed, Kind};
use crate::controller::workqueue::limiter::{self, Turn};
use crate::controller::workqueue::queue::Line;

/// The annotation by which users ask for a pass now, as Flux has it.
pub(crate) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// What is due at once is looked at after this, so that nothing that is always due keeps an operator busy.
const SOONEST: Duration = Duration::from_secs(1);
/// How long a visit waits for the definition. Then the resource waits in the queue again: it may have been deleted meanwhile, and one that
/// is being deleted waits for no definition.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Reconciles one object while this process leads; answers after which time it is visited next without a change. It never fails:
/// whatever goes wrong decides when that is.
pub(crate) async fn reconcile(object: Arc<Stored>, begun: Begun, turn: Turn) -> Option<Duration> {
    let context = &begun.context;
    let Some(term) = context.leadership.term() else {
        return Some(Duration::ZERO);
    };
    if object.meta().deletion_timestamp.is_none() && !context.definition.fits() {
        let fits = tokio::time::timeout(LONGEST_WAIT, context.definition.awaited()).await;
        return fits.unwrap_or(true).then_some(Duration::ZERO);
    }
    tokio::select! {
        biased;
        () = context.leadership.ended(term) => Some(Duration::ZERO),
        next = visit(&object, context, term, turn.routine) => next,
    }
}

/// A visit that has begun, until this is dropped.
pub(crate) struct Begun {
    context: Arc<Context>,
    uid: String,
}

impl Begun {
    /// To be called when `object` is taken from the store and before the watch goes on.
    pub(crate) fn with(object: &Stored, context: Arc<Context>) -> Self {
        let uid = object.uid().unwrap_or_default();
        context.objects.visit_begins(&uid);
        Self { context, uid }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.context.objects.visit_ended(&self.uid);
    }
}

async fn visit(stored: &Stored, context: &Context, term: Term, routine: bool) -> Option<Duration> {
    let meta = stored.meta();
    let object = match stored.object() {
        Ok(object) => object,
        Err(error) => {
            tracing::error!(
                name = meta.name,
                namespace = meta.namespace,
                %error,
                "the resource cannot be read; the CRD in the cluster may be of another version"
            );
            return Box::pin(context.let_unreadable_go(meta))
                .await
                .unwrap_or(Some(context.options.max_retry_delay));
        }
    };
    let uid = stored.uid().unwrap_or_default();
    if meta.deletion_timestamp.is_some() && !is_held(meta) {
        return None;
    }
    if let (true, true, Some(wait)) = (
        context.objects.is_first_look(&uid, term),
        routine,
        first_look(&object),
    ) {
        return Some(wait);
    }
    Box::pin(work(object, &uid, routine, context)).await
}

/// The part of a visit in which something is done.
async fn work(
    object: ImageAttachment,
    uid: &str,
    routine: bool,
    context: &Context,
) -> Option<Duration> {
    let object = context.objects.freshest(object);
    let started = Instant::now();
    let _active = context.metrics.reconciles.started();
    let visit = Visit {
        context,
        ledger: Ledger::of(context, &object),
        object: &object,
        uid,
        routine,
    };
    let span = tracing::debug_span!(
        "reconcile",
        resource = format!(
            "{}/{}",
            object.namespace().unwrap_or_default(),
            object.name_any()
        )
    );
    let (next, result, told) = match visit.run().instrument(span).await {
        Ok(done) => (
            done.next,
            metrics::Outcome::of(done.ready, done.reason),
            Some(done),
        ),
        Err(ClusterError::Gone) => (None, metrics::Outcome::success, None),
        Err(error) => {
            let delay = visit.back_off(None);
            tracing::warn!(namespace = object.namespace(), name = object.name_any(), %error, "the API server could not be asked; trying again");
            (Some(delay), metrics::Outcome::error, None)
        }
    };
    let took = started.elapsed();
    context
        .metrics
        .reconciles
        .finished(result, told.as_ref().map(|done| done.reason), took);
    if let Some(done) = told {
        tracing::info!(
            namespace = object.namespace(),
            name = object.name_any(),
            reason = done.reason.as_str(),
            targets = done.attached,
            requests = done.requests,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "reconciled"
        );
    }
    next
}

/// What a visit came to.
pub(crate) struct Done {
    pub(crate) ready: bool,
    pub(crate) reason: Reason,
    pub(crate) attached: String,
    pub(crate) requests: u64,
    pub(crate) next: Option<Duration>,
}

impl Done {
    /// The resource goes: there is nothing to come back for.
    pub(crate) const fn gone(requests: u64) -> Self {
        Self {
            ready: true,
            reason: Reason::Removed,
            attached: String::new(),
            requests,
            next: None,
        }
    }
}

/// One visit to one object.
pub(crate) struct Visit<'a> {
    pub(crate) context: &'a Context,
    pub(crate) object: &'a ImageAttachment,
    pub(crate) uid: &'a str,
    ledger: Ledger<'a>,
    /// Whether nobody waits for it.
    routine: bool,
}

impl Visit<'_> {
    async fn run(&self) -> Result<Done, ClusterError> {
        if let Some(since) = &self.object.metadata.deletion_timestamp {
            return self.delete(since.0).await;
        }
        // Before anything is pushed: what is made without it could outlive the resource.
        let wanted = self.object.spec.deletion_policy() == DeletionPolicy::Delete;
        if is_held(&self.object.metadata) != wanted {
            self.context.hold(&self.object.metadata, wanted).await?;
        }
        let generation = self.object.metadata.generation.unwrap_or_default();
        let previous = self.object.status.clone().unwrap_or_default();
        let requested = self
            .object
            .annotations()
            .get(REQUESTED_AT)
            .map(|text| echo(text));
        let asked = is_asked_for(self.object, &previous);
        let now = Timestamp::now();

        if self.object.spec.suspend() {
            let mut next = previous.clone();
            next.observed_generation = generation;
            next.artifact_type = self.artifact_type(&previous);
            let mut conditions = Conditions::from_previous(&previous.conditions, generation, now);
            conditions.conclude(
                Reason::Suspended,
                "spec.suspend is set: nothing is done until it is removed",
            );
            next.conditions = conditions.into_list();
            self.write(&previous, &next).await?;
            return Ok(Done {
                ready: false,
                reason: Reason::Suspended,
                attached: String::new(),
                requests: 0,
                next: None,
            });
        }

        let spread = self
            .context
            .options
            .verify_interval
            .mul_f64(rand::random::<f64>());
        let due = self
            .context
            .objects
            .is_verification_due(self.uid, Instant::now(), spread);
        let outcome = self.pass(&previous, generation, asked || due, now).await?;
        // The journal may have written since: what it saved is older than the outcome, but its transitions count.
        let mut next = engine::status(&previous, &outcome, generation, now);
        next.last_handled_reconcile_at = requested.or(next.last_handled_reconcile_at);
        next.artifact_type = self.artifact_type(&previous);
        self.write(&previous, &next).await?;
        self.context
            .metrics
            .attachments
            .count(&metrics::Tally::of(&previous.targets, &outcome));
        self.context
            .metrics
            .resources
            .signs_until(self.uid, outcome.signatures_end);
        for note in &outcome.notes {
            self.context.publish(self.object, note).await;
        }
        let ready = find_condition(&next.conditions, ConditionType::Ready);
        let reason = ready
            .and_then(|ready| ready.reason.parse().ok())
            .unwrap_or(outcome.verdict.reason);
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        if asked || due || !outcome.is_unchanged() {
            let interval =
                backoff::jittered(self.context.options.verify_interval, 10, rand::random());
            self.context
                .objects
                .verified(self.uid, Instant::now() + interval);
        }
        let next_visit = if !outcome.is_hurried() {
            self.context.objects.succeeded(self.uid);
            let interval = backoff::jittered(
                self.object.spec.interval(),
                self.context.options.interval_jitter_percentage,
                rand::random(),
            );
            let verify = self
                .context
                .objects
                .verify_at(self.uid)
                .map(|at| at.saturating_duration_since(Instant::now()));
            let due =
                engine::due_in(&self.object.spec, &next, Timestamp::now()).filter(|_| is_ready);
            [verify, due.map(|due| due.max(SOONEST))]
                .into_iter()
                .flatten()
                .fold(interval, Duration::min)
        } else {
            self.back_off(outcome.verdict.retry_after)
        };
        let attached = next.attached.clone().unwrap_or_default();
        Ok(Done {
            ready: is_ready,
            reason,
            attached,
            requests: outcome.requests,
            next: Some(next_visit),
        })
    }

    /// The spec tells it before any registry does.
    fn artifact_type(&self, previous: &ImageAttachmentStatus) -> Option<String> {
        let told = attachment::artifact_type(&self.object.spec).map(|kind| kind.to_string());
        told.or_else(|| previous.artifact_type.clone())
    }

    /// The engine's pass. A panic in it is one resource's failure, not the process's.
    async fn pass(
        &self,
        previous: &ImageAttachmentStatus,
        generation: i64,
        verify: bool,
        now: Timestamp,
    ) -> Result<Outcome, ClusterError> {
        let namespace = Namespace::of(
            &self.context.client,
            &self.object.namespace().unwrap_or_default(),
        );
        let sources = match self
            .context
            .bounded(namespace.sources(&self.object.spec))
            .await
        {
            Ok(sources) => sources,
            Err(ClusterError::Api(kube::Error::Api(refusal))) if refusal.code == 403 => {
                return Ok(Outcome::failed(&forbidden(&refusal).into()));
            }
            Err(error) => return Err(error),
        };
        self.context.objects.has_pull_secrets(
            self.uid,
            sources
                .image_pull_secrets
                .iter()
                .flatten()
                .cloned()
                .collect(),
        );
        let request = match engine::request(
            &self.object.spec,
            Some(previous),
            generation,
            &sources,
            verify,
        ) {
            Ok(request) => engine::Request {
                routine: self.routine,
                ..request
            },
            Err(problem) => return Ok(Outcome::failed(&problem.into())),
        };
        let journal = StatusJournal {
            ledger: &self.ledger,
            object: self.object,
            now,
        };
        let claims = ClusterClaims::of(self.context, self.object);
        let pass = self.context.engine.run(&request, &journal, &claims, now);
        Ok(AssertUnwindSafe(pass).catch_unwind().await.unwrap_or_else(|_| {
            self.context.metrics.reconciles.panicked();
            tracing::error!(namespace = self.object.namespace(), name = self.object.name_any(), "the pass panicked");
            Outcome::failed(&Failure::new(
                Reason::RegistryUnavailable,
                "affix failed on this resource, which is a bug of affix: please report it with the resource's YAML",
            ))
        }))
    }

    /// Writes status, and tells of a transition of Ready.
    pub(crate) async fn write(
        &self,
        previous: &ImageAttachmentStatus,
        next: &ImageAttachmentStatus,
    ) -> Result<(), ClusterError> {
        self.ledger.write(next).await?;
        let ready = |status: &ImageAttachmentStatus| {
            find_condition(&status.conditions, ConditionType::Ready).map(|ready| {
                (
                    ready.status.clone(),
                    ready.reason.clone(),
                    ready.message.clone(),
                )
            })
        };
        let (before, after) = (ready(previous), ready(next));
        let changed = before.as_ref().map(|(status, reason, _)| (status, reason))
            != after.as_ref().map(|(status, reason, _)| (status, reason));
        if let (true, Some((status, reason, message))) = (changed, after)
            && let Ok(reason) = reason.parse::<Reason>()
        {
            let quiet = status == "True"
                || matches!(
                    reason,
                    Reason::Suspended | Reason::Planned | Reason::Progressing
                );
            let severity = if quiet {
                Severity::Normal
            } else {
                Severity::Warning
            };
            self.context
                .publish(
                    self.object,
                    &Note {
                        severity,
                        reason,
                        message,
                    },
                )
                .await;
        }
        Ok(())
    }

    pub(crate) fn back_off(&self, retry_after: Option<Duration>) -> Duration {
        self.context.metrics.queue.put_off();
        let failures = self.context.objects.failed(self.uid);
        let options = &self.context.options;
        backoff::delay(
            failures,
            options.min_retry_delay,
            options.max_retry_delay,
            retry_after,
            rand::random(),
        )
    }
}

/// What the spec names and affix may not read is as good as absent, but for the way out.
fn forbidden(refusal: &Status) -> Problem {
    let is_config_map = refusal
        .details
        .as_ref()
        .is_some_and(|details| details.kind == "configmaps");
    let reason = if is_config_map {
        Reason::FileMissing
    } else {
        Reason::SecretNotFound
    };
    Problem::new(
        reason,
        format_args!(
            "the API server does not let affix read what spec names: {}; give affix the right to get it",
            refusal.message
        ),
    )
}

/// Whether the user has asked for a pass that has not taken place yet.
fn is_asked_for(object: &ImageAttachment, status: &ImageAttachmentStatus) -> bool {
    let requested = object
        .annotations()
        .get(REQUESTED_AT)
        .map(|text| echo(text));
    requested.is_some() && requested != status.last_handled_reconcile_at
}

/// A request as status tells that it was handled: as it is, or where status does not take so much, its beginning and a hash of it.
fn echo(request: &str) -> String {
    const MOST: usize = 256;
    if request.chars().count() <= MOST {
        return request.to_owned();
    }
    let hash = format!("…{}", Digest::sha256(request.as_bytes()));
    request
        .chars()
        .take(MOST - hash.chars().count())
        .chain(hash.chars())
        .collect()
}

/// When a process that begins looks at a resource for the first time: one at rest, whose status says that all is done that anybody waits
/// for, is trusted for a while. `None`: now.
fn first_look(object: &ImageAttachment) -> Option<Duration> {
    let status = object.status.as_ref()?;
    let is_ready = find_condition(&status.conditions, ConditionType::Ready)
        .is_some_and(|ready| ready.status == "True");
    let is_at_rest = is_ready
        && object.metadata.deletion_timestamp.is_none()
        && is_held(&object.metadata) == (object.spec.deletion_policy() == DeletionPolicy::Delete)
        && !object.spec.suspend()
        && !is_awaited(object);
    is_at_rest
        .then(|| limiter::first_look(&object.spec, status, Timestamp::now(), rand::random()))
        .flatten()
}

/// Where a resource waits for its visit; `hurried`: it, or what it uses, has changed.
pub(crate) fn line_of(stored: &Stored, hurried: bool) -> Line {
    match stored.object() {
        Ok(object) if object.metadata.deletion_timestamp.is_none() => {
            let host = registry_host(&object.spec.image).into();
            if hurried || is_awaited(&object) {
                Line::Express(host)
            } else {
                Line::Routine(host)
            }
        }
        _ => Line::Free,
    }
}

/// Whether somebody waits for what comes of this object: they have asked, or changed it.
fn is_awaited(object: &ImageAttachment) -> bool {
    let status = object.status.as_ref();
    let observed = status.map(|status| status.observed_generation);
    observed != object.metadata.generation
        || status.is_some_and(|status| is_asked_for(object, status))
}

/// The part of an image before its repository: enough to share turns fairly, also where the reference turns out to be bad.
pub(crate) fn registry_host(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}

/// Whether `object` uses what has changed; what its service account added is known from its last pass.
pub(crate) fn uses(context: &Context, stored: &Stored, changed: &Changed) -> bool {
    let names = stored.summary().is_some_and(Summary::has_names);
    if !names || stored.meta().namespace.as_deref() != Some(changed.namespace.as_str()) {
        return false;
    }
    let Ok(object) = stored.object() else {
        return false;
    };
    let names = Names::of(&object.spec);
    match changed.kind {
        Kind::ConfigMap => names.config_maps.contains(&changed.name),
        Kind::Secret => {
            names.secrets.contains(&changed.name)
                || context
                    .objects
                    .is_pull_secret(&object.uid().unwrap_or_default(), &changed.name)
        }
    }
}

/// A hash of what a reconciliation is keyed on, besides time: the spec's generation, a request, deletion and finalizers.
pub(crate) fn interesting(object: &Stored) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    meta.generation.hash(&mut hasher);
    meta.annotations
        .as_ref()
        .and_then(|annotations| annotations.get(REQUESTED_AT))
        .hash(&mut hasher);
    meta.finalizers.hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    hasher.finish()
}
