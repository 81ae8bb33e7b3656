//! The reconciler: from a cache entry to a pass of the engine, and from its outcome to status, events and the next reconcile.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join;
use k8s_openapi::jiff::Timestamp;
use kube::core::{ObjectMeta, Status};
use kube::{Resource as _, ResourceExt as _};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::api::{
    ConditionType, Conditions, DeletionPolicy, ImageAttachment, ImageAttachmentStatus, PushAccess,
    Reason, find_condition,
};
use crate::attachment::{self, Problem};
use crate::controller::api_server::ApiServerError;
use crate::controller::context::Context;
use crate::controller::metrics;
use crate::controller::reconcile::audit::{log_changes, log_moves};
use crate::controller::reconcile::backoff;
use crate::controller::reconcile::delete::finalize_invalid;
use crate::controller::reconcile::finalizer::{has_finalizer, set_finalizer};
use crate::controller::reconcile::object_read::{self, ReadError};
use crate::controller::reconcile::ownership::ClusterClaims;
use crate::controller::reconcile::reconciliation::{ReconcileResult, Reconciliation};
use crate::controller::reconcile::status_writer::{StatusJournal, StatusWriter, has_ready};
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::child::{Child, Owner};
use crate::controller::watch::request::{acknowledgement, has_pending_request};
use crate::controller::watch::summary::Summary;
use crate::controller::workqueue::limiter::{Permit, Turn};
use crate::engine::{self, Failure, Outcome, PassEvent, Severity};
use crate::service::Epoch;
use affix_registry::Priority;

/// The time after which a new resource gets its first conditions, if its pass is still running.
const FIRST_STATUS_DELAY: Duration = Duration::from_secs(1);
/// The least delay until something that is due, so that a resource that is always due does not keep the controller busy.
const MIN_DUE_DELAY: Duration = Duration::from_secs(1);
/// The delay before a resource that the API server did not return is read again.
const READ_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest wait for a compatible CRD. Then the resource is requeued, since it may have been deleted meanwhile.
const MAX_CRD_WAIT: Duration = Duration::from_secs(2);
/// The least delay of a retry before a failure is logged again.
const MIN_REPEATED_WARNING_DELAY: Duration = Duration::from_mins(1);
/// The deviation of the verification interval, in percent.
const VERIFY_JITTER_PERCENTAGE: u8 = 10;

/// Marks an object as in flight until it is dropped.
pub(crate) struct InFlight {
    context: Arc<Context>,
    uid: String,
}

impl InFlight {
    /// Must be called before the watch delivers its next event, so that a reconcile does not start with an object that is
    /// older than the written status that the watch has released.
    pub(crate) fn start(entry: &CacheEntry, context: Arc<Context>) -> Self {
        let uid = entry.uid().unwrap_or_default();
        context.states.start(&uid);
        Self { context, uid }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.context.states.finish(&self.uid);
    }
}

/// Reconciles a resource while this process is the leader. Returns the delay until the next reconcile, even after a failure.
pub(crate) async fn reconcile(
    entry: Arc<CacheEntry>,
    in_flight: InFlight,
    mut permit: Permit,
) -> Option<Duration> {
    let context = &in_flight.context;
    let Some(epoch) = context.leadership.epoch() else {
        return Some(Duration::ZERO);
    };
    if entry.meta().deletion_timestamp.is_none() && !context.crd_check.is_compatible() {
        let is_compatible = tokio::time::timeout(MAX_CRD_WAIT, context.crd_check.wait()).await;
        return is_compatible.unwrap_or(true).then_some(Duration::ZERO);
    }
    let reconcile = reconcile_entry(&entry, context, epoch, permit.turn()).boxed();
    tokio::select! {
        biased;
        () = context.leadership.ended(epoch) => Some(Duration::ZERO),
        requeue_after = permit.run(reconcile) => requeue_after.unwrap_or_else(|| {
            let meta = entry.meta();
            tracing::debug!(
                namespace = meta.namespace,
                name = meta.name,
                "reconcile exceeded its turn; it waits for the next one"
            );
            Some(Duration::ZERO)
        }),
    }
}

async fn reconcile_entry(
    entry: &CacheEntry,
    context: &Context,
    epoch: Epoch,
    turn: Turn,
) -> Option<Duration> {
    let meta = entry.meta();
    if meta.deletion_timestamp.is_some() && !has_finalizer(meta) {
        return None;
    }
    let uid = entry.uid().unwrap_or_default();
    if let Some(summary) = entry.summary().filter(|summary| is_settled(meta, summary)) {
        if summary.is_suspended {
            return None;
        }
        if summary.is_ready()
            && context.states.is_first_in_epoch(&uid, epoch)
            && turn.priority == Priority::Background
            && let Some(delay) = backoff::initial_delay(summary, Timestamp::now(), rand::random())
        {
            return Some(delay);
        }
    }
    context.states.is_first_in_epoch(&uid, epoch);
    let error = match object_read::load(&context.client, entry).await {
        Ok(object) => {
            let owner = entry.child().map(Child::owner);
            let is_child = matches!(owner, Some(Owner::Set(_)));
            return Box::pin(reconcile_object(object, (&uid, is_child), turn, context)).await;
        }
        Err(error) => error,
    };
    match error {
        ReadError::ApiServer(ApiServerError::ResourceGone) => None,
        ReadError::ApiServer(error) => {
            tracing::warn!(
                namespace = meta.namespace,
                name = meta.name,
                %error,
                "cannot read the resource; retrying"
            );
            Some(context.options.min_retry_delay.max(READ_RETRY_DELAY))
        }
        ReadError::Invalid(error) => {
            tracing::error!(
                namespace = meta.namespace,
                name = meta.name,
                error,
                "cannot parse the resource; check the version of the CRD"
            );
            Box::pin(finalize_invalid(context, meta))
                .await
                .unwrap_or(Some(context.options.max_retry_delay))
        }
    }
}

/// Returns whether status is that of the current spec, and so is the finalizer. A ready resource that is settled is trusted for a while
/// after a start, so that a restart does not send the requests of all resources at once. A suspended one needs nothing.
fn is_settled(meta: &ObjectMeta, summary: &Summary) -> bool {
    meta.deletion_timestamp.is_none()
        && summary.has_ready
        && !summary.is_pending
        && has_finalizer(meta) == summary.deletes
}

fn needs_finalizer(object: &ImageAttachment) -> bool {
    object.spec.deletion_policy() == DeletionPolicy::Delete
}

/// Reconciles an object, and records its metrics and log line. `is_child`: a set owns it.
async fn reconcile_object(
    object: ImageAttachment,
    (uid, is_child): (&str, bool),
    turn: Turn,
    context: &Context,
) -> Option<Duration> {
    let object = context.states.with_newest_status(object);
    let started = Instant::now();
    let _active = context.metrics.reconciles.start();
    let reconciliation = Reconciliation {
        context,
        object: &object,
        uid,
        is_child,
        priority: turn.priority,
        has_turn: turn.is_limited,
        status_writer: StatusWriter::new(context, &object),
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let span = tracing::debug_span!("reconcile", resource = format!("{namespace}/{name}"));
    let result = reconciliation.run().instrument(span).await;
    let elapsed = started.elapsed();
    let (label, reason) = match &result {
        Ok(result) => (
            metrics::Outcome::of(result.ready, result.reason),
            Some(result.reason),
        ),
        Err(ApiServerError::ResourceGone) => (metrics::Outcome::Success, None),
        Err(_) => (metrics::Outcome::Error, None),
    };
    context.metrics.reconciles.finish(label, reason, elapsed);
    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(result) => {
            tracing::debug!(
                namespace,
                name,
                reason = result.reason.as_str(),
                targets = result.attached,
                requests = result.requests,
                duration_ms,
                "reconciled"
            );
            reconciliation.warn_unless_ready(&result);
            result.requeue_after
        }
        Err(ApiServerError::ResourceGone) => None,
        Err(error) => {
            tracing::warn!(namespace, name, %error, duration_ms, "reconcile failed; retrying");
            Some(reconciliation.back_off(None))
        }
    }
}

impl Reconciliation<'_> {
    async fn run(&self) -> Result<ReconcileResult, ApiServerError> {
        let object = self.object;
        if object.metadata.deletion_timestamp.is_some() {
            return self.delete().await;
        }
        // The finalizer precedes the first push: without it an attachment could outlive the resource.
        let needs_finalizer = needs_finalizer(object);
        if has_finalizer(&object.metadata) != needs_finalizer {
            set_finalizer(&self.context.client, &object.metadata, needs_finalizer).await?;
        }
        let previous = object.status.clone().unwrap_or_default();
        if object.spec.suspend() {
            self.suspend(&previous).await
        } else {
            self.attach(&previous).await
        }
    }

    /// Logs why Ready is False: once for each cause, and again with each retry that follows a long delay.
    fn warn_unless_ready(&self, result: &ReconcileResult) {
        let is_expected = result.ready
            || matches!(
                result.reason,
                Reason::Suspended | Reason::Planned | Reason::Progressing
            );
        let cause = (!is_expected).then_some((result.reason, result.message.as_str()));
        let is_new = self.context.states.is_new_failure(self.uid, cause);
        let is_rare = result
            .requeue_after
            .is_some_and(|delay| delay >= MIN_REPEATED_WARNING_DELAY);
        if cause.is_some() && (is_new || is_rare) {
            tracing::warn!(
                namespace = self.object.namespace(),
                name = self.object.name_any(),
                image = self.object.spec.image,
                reason = result.reason.as_str(),
                "{}",
                result.message
            );
        }
    }

    fn generation(&self) -> i64 {
        self.object.metadata.generation.unwrap_or_default()
    }

    /// Reports that the resource is suspended. Ready stays as it was.
    async fn suspend(
        &self,
        previous: &ImageAttachmentStatus,
    ) -> Result<ReconcileResult, ApiServerError> {
        let mut conditions =
            Conditions::from_previous(&previous.conditions, self.generation(), Timestamp::now());
        let message = "spec.suspend is set: reconciliation is suspended until it is removed";
        conditions.suspend(message);
        let mut next = previous.clone();
        next.observed_generation = self.generation();
        next.artifact_type = self.artifact_type(previous);
        next.conditions = conditions.into_list();
        self.status_writer.write(&next).await?;
        if next.observed_generation != previous.observed_generation {
            let event = PassEvent {
                severity: Severity::Normal,
                reason: Reason::Suspended,
                message: message.to_owned(),
            };
            self.context.publish(self.object, &event).await;
        }
        Ok(ReconcileResult {
            ready: false,
            reason: Reason::Suspended,
            message: message.to_owned(),
            attached: String::new(),
            requests: 0,
            requeue_after: None,
        })
    }

    /// Runs a pass of the engine and reports its outcome.
    async fn attach(
        &self,
        previous: &ImageAttachmentStatus,
    ) -> Result<ReconcileResult, ApiServerError> {
        let Context {
            states, metrics, ..
        } = self.context;
        let verify_interval = self.context.options.verify_interval;
        let now = Timestamp::now();
        let spread = verify_interval.mul_f64(rand::random::<f64>());
        let verify = states.is_verification_due(self.uid, Instant::now(), spread)
            || has_pending_request(&self.object.metadata, previous);
        let outcome = self.run_visible_pass(previous, verify, now).await?;
        // The journal may have written status since `previous`. The outcome is newer, but counts its transitions.
        let mut next = engine::status(previous, &outcome, self.generation(), now);
        next.last_handled_reconcile_at =
            acknowledgement(&self.object.metadata).or(next.last_handled_reconcile_at);
        next.artifact_type = self.artifact_type(previous);
        self.write_status(previous, &next).await?;
        let tally = metrics::Tally::of(&outcome);
        metrics.attachments.count(&tally);
        metrics
            .resources
            .set_signatures_end(self.uid, outcome.signatures_end);
        log_changes(self.object, &outcome.changes, outcome.key.as_ref());
        log_moves(self.object, &outcome.notes);
        for event in &outcome.notes {
            self.context.publish(self.object, event).await;
        }
        if verify || !outcome.is_unchanged() {
            let interval =
                backoff::jittered(verify_interval, VERIFY_JITTER_PERCENTAGE, rand::random());
            states.set_verify_at(self.uid, Instant::now() + interval);
        }
        let ready = find_condition(&next.conditions, ConditionType::Ready);
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        let reason = ready.and_then(|ready| ready.reason.parse().ok());
        let requeue_after = if outcome.is_hurried() {
            self.back_off(outcome.verdict.retry_after)
        } else {
            states.reset_failures(self.uid);
            self.next_interval(&next, is_ready)
        };
        Ok(ReconcileResult {
            ready: is_ready,
            reason: reason.unwrap_or(outcome.verdict.reason),
            message: outcome.verdict.message.clone(),
            attached: next.attached.unwrap_or_default(),
            requests: outcome.requests,
            requeue_after: Some(requeue_after),
        })
    }

    /// Returns the delay until the interval, the next check of the listings, or the next due date, whichever is first.
    fn next_interval(&self, status: &ImageAttachmentStatus, is_ready: bool) -> Duration {
        let (spec, options) = (&self.object.spec, &self.context.options);
        let interval = spec.interval().max(options.min_interval);
        let jitter = options.interval_jitter_percentage;
        let interval = backoff::jittered(interval, jitter, rand::random());
        let verify_at = self.context.states.verify_at(self.uid);
        let verify = verify_at.map(|at| at.saturating_duration_since(Instant::now()));
        let due = engine::due_in(spec, status, Timestamp::now()).filter(|_| is_ready);
        let due = due.map(|due| due.max(MIN_DUE_DELAY));
        [verify, due]
            .into_iter()
            .flatten()
            .fold(interval, Duration::min)
    }

    /// Returns the artifact type of the spec, if it states one, else that of the previous status.
    fn artifact_type(&self, previous: &ImageAttachmentStatus) -> Option<String> {
        let stated = attachment::artifact_type(&self.object.spec).map(|kind| kind.to_string());
        stated.or_else(|| previous.artifact_type.clone())
    }

    /// Runs a pass. A new resource gets its first conditions while the registry is slow to respond.
    async fn run_visible_pass(
        &self,
        previous: &ImageAttachmentStatus,
        verify: bool,
        now: Timestamp,
    ) -> Result<Outcome, ApiServerError> {
        let pass = self.run_pass(previous, verify, now);
        if has_ready(Some(previous)) {
            return pass.await;
        }
        let mut pass = pin!(pass);
        if let Ok(outcome) = timeout(FIRST_STATUS_DELAY, &mut pass).await {
            return outcome;
        }
        let status = engine::status_started(previous, self.generation(), now);
        // The pass goes on meanwhile, and its own write reports an error of the API server.
        let (outcome, _) = join(pass, self.status_writer.write_first(status)).await;
        outcome
    }

    /// Runs a pass of the engine. A panic in it fails this resource only.
    async fn run_pass(
        &self,
        previous: &ImageAttachmentStatus,
        verify: bool,
        now: Timestamp,
    ) -> Result<Outcome, ApiServerError> {
        let namespace = self
            .object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default();
        if let Some(problem) = self.context.quotas.problem(namespace, self.uid) {
            return Ok(Outcome::failed(&problem.into()));
        }
        let sources = match self.sources().await {
            Ok(sources) => sources,
            Err(ApiServerError::Refused(refusal)) if refusal.code == 403 => {
                return Ok(Outcome::failed(&forbidden_reference(&refusal).into()));
            }
            Err(error) => return Err(error),
        };
        let pull_secrets = sources.image_pull_secrets.iter().flatten().cloned();
        self.context
            .states
            .set_pull_secrets(self.uid, pull_secrets.collect());
        let spec = &self.object.spec;
        let request =
            match engine::request(spec, Some(previous), self.generation(), &sources, verify) {
                Ok(request) => engine::Request {
                    priority: self.priority,
                    accepts_leftovers: self.object.accepts_leftovers(),
                    asks_push_access: asks_push_access(self.object, previous, verify),
                    reads_tag_drift: !self.is_child,
                    ..request
                },
                Err(problem) => return Ok(Outcome::failed(&problem.into())),
            };
        let journal = StatusJournal {
            writer: &self.status_writer,
            object: self.object,
            now,
        };
        let claims = ClusterClaims::new(self.context, self.object);
        let pass = self.context.engine.run(&request, &journal, &claims, now);
        let outcome = AssertUnwindSafe(pass).catch_unwind().await;
        Ok(outcome.unwrap_or_else(|_| {
            self.context.metrics.reconciles.count_panic();
            tracing::error!(
                namespace = self.object.namespace(),
                name = self.object.name_any(),
                "reconcile panicked"
            );
            Outcome::failed(&Failure::new(
                Reason::RegistryUnavailable,
                "affix panicked on this resource, which is a bug of affix: please report it with the resource's YAML",
            ))
        }))
    }
}

/// Returns whether a pass asks the registry for the right to push, unless it is known for this generation. A refusal is checked again
/// with the listings. The server behind the resource's own proxy may be any (threat T24).
fn asks_push_access(
    object: &ImageAttachment,
    previous: &ImageAttachmentStatus,
    verify: bool,
) -> bool {
    let is_current = Some(previous.observed_generation) == object.metadata.generation;
    let known = previous.push_access.filter(|_| is_current);
    object.spec.proxy_secret_ref.is_none()
        && !object.spec.dry_run()
        && (known.is_none() || (known == Some(PushAccess::Refused) && verify))
}

/// Returns the problem of a reference that affix must not read. It has the reason of a missing one.
pub(crate) fn forbidden_reference(refusal: &Status) -> Problem {
    let details = refusal.details.as_ref();
    let reason = if details.is_some_and(|details| details.kind == "configmaps") {
        Reason::FileMissing
    } else {
        Reason::SecretNotFound
    };
    let message = format_args!(
        "affix is not permitted to read an object that spec references: {}; grant affix the permission to get it",
        refusal.message
    );
    Problem::new(reason, message)
}
