//! The reconciler of sets: a pass over the repositories, or a count of the children, and from both to status, events and the next
//! reconcile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use tracing::Instrument as _;

use crate::api::{
    ConditionType, Conditions, ImageAttachmentSet, ImageAttachmentSetStatus, Reason, find_condition,
};
use crate::controller::api_server::{ApiServerError, FIELD_MANAGER, with_timeout};
use crate::controller::context::Context;
use crate::controller::metrics;
use crate::controller::reconcile::backoff;
use crate::controller::reconcile::reconciler::forbidden_reference;
use crate::controller::reconcile::reconciliation::transition;
use crate::controller::reconcile::references::ReferenceResolver;
use crate::controller::sets::children::{Applied, Children, Desired};
use crate::controller::sets::entry::{SetEntry, is_pending};
use crate::controller::sets::observe;
use crate::controller::sets::pass::{self, Pass};
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::request::acknowledgement;
use crate::controller::watch::resource_name::ResourceName;
use crate::controller::workqueue::caches::Caches;
use crate::controller::workqueue::limiter::Permit;
use crate::engine::{Failure, PassEvent, Severity, set_failed, set_started, set_status};
use crate::service::Epoch;
use affix_registry::Priority;

/// The longest wait for compatible CRDs and for the list of attachments. Then the set is requeued, since it may have been deleted meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The least delay of a retry before a failure is logged again.
const MIN_REPEATED_WARNING_DELAY: Duration = Duration::from_mins(1);

/// Reconciles a set while this process is the leader. Returns the delay until the next reconcile.
pub(crate) async fn reconcile_set(
    entry: Arc<SetEntry>,
    caches: Arc<Caches>,
    context: Arc<Context>,
    mut permit: Permit,
) -> Option<Duration> {
    let Some(epoch) = context.leadership.epoch() else {
        return Some(Duration::ZERO);
    };
    // The owner references delete the children.
    if entry.meta().deletion_timestamp.is_some() {
        return None;
    }
    for check in [&context.crd_check, &context.set_crd_check] {
        if !check.is_compatible() {
            let is_compatible = tokio::time::timeout(MAX_WAIT, check.wait()).await;
            return is_compatible.unwrap_or(true).then_some(Duration::ZERO);
        }
    }
    let name = entry.name();
    let listed = caches.attachments_listed(&name);
    if tokio::time::timeout(MAX_WAIT, listed).await.is_err() {
        return Some(Duration::ZERO);
    }
    let reconcile = SetReconcile {
        context: &context,
        caches: &caches,
        entry: &entry,
        name,
    };
    let span = tracing::debug_span!("reconcile", set = reconcile.name.to_string());
    let reconcile = reconcile.run(epoch, &mut permit).instrument(span).boxed();
    tokio::select! {
        biased;
        () = context.leadership.ended(epoch) => Some(Duration::ZERO),
        requeue_after = reconcile => requeue_after,
    }
}

/// One reconcile of one set.
struct SetReconcile<'a> {
    context: &'a Context,
    caches: &'a Caches,
    entry: &'a SetEntry,
    name: ResourceName,
}

/// The result of a reconcile.
struct Reconciled {
    ready: bool,
    reason: Reason,
    message: String,
    requeue_after: Option<Duration>,
}

impl SetReconcile<'_> {
    async fn run(&self, epoch: Epoch, permit: &mut Permit) -> Option<Duration> {
        let (context, sets) = (self.context, &self.context.sets);
        let Some(summary) = self.entry.summary() else {
            tracing::error!(
                namespace = self.entry.meta().namespace,
                name = self.entry.meta().name,
                error = self.entry.error(),
                "cannot parse the set; check the version of the CRD"
            );
            return Some(context.options.max_retry_delay);
        };
        let is_settled = summary.has_ready && !summary.is_pending;
        if is_settled && summary.is_suspended {
            return None;
        }
        let is_first = sets.is_first_in_epoch(&self.name, epoch);
        let turn = permit.turn();
        if is_settled && summary.is_ready() && is_first && turn.priority == Priority::Background {
            // A restart does not read all repositories at once.
            let delay = summary.interval.mul_f64(rand::random());
            return Some(sets.schedule(&self.name, delay));
        }
        let is_due = sets.until_next_pass(&self.name).is_none();
        if is_due && !turn.is_limited {
            // A pass sends requests to registries, so it takes its turn.
            return Some(Duration::ZERO);
        }
        if is_due {
            sets.begin_pass(&self.name);
        }
        let started = Instant::now();
        let _active = context.metrics.set_reconciles.start();
        let result = match self.read().await {
            Ok(Some(set)) if is_due => self.pass(&set, permit).await,
            Ok(Some(set)) => self.count(&set).await,
            Ok(None) => Err(ApiServerError::ResourceGone),
            Err(error) => Err(error),
        };
        self.conclude(result, started)
    }

    /// Records metrics and the log line of a reconcile.
    fn conclude(
        &self,
        result: Result<Reconciled, ApiServerError>,
        started: Instant,
    ) -> Option<Duration> {
        let (elapsed, meta) = (started.elapsed(), self.entry.meta());
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let (outcome, reason) = match &result {
            Ok(result) => (
                metrics::Outcome::of(result.ready, result.reason),
                Some(result.reason),
            ),
            Err(ApiServerError::ResourceGone) => (metrics::Outcome::Success, None),
            Err(_) => (metrics::Outcome::Error, None),
        };
        let reconciles = &self.context.metrics.set_reconciles;
        reconciles.finish(outcome, reason, elapsed);
        let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(result) => {
                let reason = result.reason.as_str();
                tracing::debug!(namespace, name, reason, duration_ms, "set reconciled");
                self.warn_unless_ready(&result);
                result.requeue_after
            }
            Err(ApiServerError::ResourceGone) => None,
            Err(error) => {
                tracing::warn!(namespace, name, %error, duration_ms, "reconcile of a set failed; retrying");
                let delay = self.back_off(None);
                Some(self.context.sets.schedule(&self.name, delay))
            }
        }
    }

    /// Logs why Ready is False: once for each cause, and again with each retry that follows a long delay.
    fn warn_unless_ready(&self, result: &Reconciled) {
        let is_expected = result.ready
            || matches!(
                result.reason,
                Reason::Suspended | Reason::Planned | Reason::Progressing
            );
        let cause = (!is_expected).then_some((result.reason, result.message.as_str()));
        let is_new = self.context.sets.is_new_failure(&self.name, cause);
        let delay = result.requeue_after.unwrap_or_default();
        if cause.is_some() && (is_new || delay >= MIN_REPEATED_WARNING_DELAY) {
            tracing::warn!(
                namespace = self.entry.meta().namespace,
                name = self.entry.meta().name,
                reason = result.reason.as_str(),
                "{}",
                result.message
            );
        }
    }

    /// Reads the set. `None`: it is gone or being deleted, or another set has its name.
    async fn read(&self) -> Result<Option<ImageAttachmentSet>, ApiServerError> {
        let name = self.entry.meta().name.as_deref().unwrap_or_default();
        let set = with_timeout(self.api().get_opt(name)).await?;
        let meta = self.entry.meta();
        Ok(set.filter(|set| {
            set.metadata.uid == meta.uid && set.metadata.deletion_timestamp.is_none()
        }))
    }

    /// Counts the children, unless the next pass does that anyway.
    async fn count(&self, set: &ImageAttachmentSet) -> Result<Reconciled, ApiServerError> {
        let previous = set.status.clone().unwrap_or_default();
        let last = self.context.sets.last_pass(&self.name);
        let next = match last {
            Some(last)
                if !is_pending(&set.metadata, set.status.as_ref()) && !set.spec.suspend() =>
            {
                let children = self.children();
                let state = observe::state(set, &children, last);
                let generation = previous.observed_generation;
                let next = set_status(set, previous.clone(), &state, generation, Timestamp::now());
                self.write_status(set, &previous, &next).await?;
                next
            }
            _ => previous,
        };
        // The next pass may have become due meanwhile.
        let delay = self.context.sets.until_next_pass(&self.name);
        Ok(self.reconciled(&next, Some(delay.unwrap_or_default())))
    }

    /// Runs a pass: reads the repositories, and applies the children.
    async fn pass(
        &self,
        set: &ImageAttachmentSet,
        permit: &mut Permit,
    ) -> Result<Reconciled, ApiServerError> {
        let (sets, now) = (&self.context.sets, Timestamp::now());
        let mut previous = set.status.clone().unwrap_or_default();
        if set.spec.suspend() {
            return self.suspend(set, &previous).await;
        }
        if find_condition(&previous.conditions, ConditionType::Ready).is_none() {
            let started = set_started(set, previous.clone(), now);
            self.write_status(set, &previous, &started).await?;
            previous = started;
        }
        let children = self.children();
        let observed = match self.observe(set, &previous, &children, permit).await? {
            Some(observed) => observed,
            None => return Ok(self.reconciled(&previous, Some(Duration::ZERO))),
        };
        let (tables, state, retry_after) = match observed {
            Ok(pass) => {
                let applied = self.apply(set, &pass, &children).await;
                sets.record_failure(&self.name, applied.problem());
                let last = sets.last_pass(&self.name);
                let state = last.map(|last| observe::state(set, &self.children(), last));
                (pass.status, Ok(state.unwrap_or_default()), pass.retry_after)
            }
            Err(failure) => (previous.clone(), Err(failure.problem), failure.retry_after),
        };
        let generation = set.metadata.generation.unwrap_or_default();
        let mut next = match &state {
            Ok(state) => set_status(set, tables, state, generation, now),
            Err(problem) => set_failed(set, tables, problem, now),
        };
        next.last_handled_reconcile_at =
            acknowledgement(&set.metadata).or(next.last_handled_reconcile_at);
        self.write_status(set, &previous, &next).await?;
        let is_hurried = next
            .repositories
            .iter()
            .filter_map(|repository| repository.reason.as_ref()?.parse().ok())
            .chain(state.as_ref().err().map(|problem| problem.reason))
            .chain(
                state
                    .iter()
                    .filter_map(|state| Some(state.failure.as_ref()?.0)),
            )
            .any(Reason::is_hurried);
        let delay = if is_hurried {
            self.back_off(retry_after)
        } else {
            sets.reset_failures(&self.name);
            let options = &self.context.options;
            let interval = set.spec.interval().max(options.min_interval);
            let jitter = options.interval_jitter_percentage;
            backoff::jittered(interval, jitter, rand::random())
        };
        Ok(self.reconciled(&next, Some(sets.schedule(&self.name, delay))))
    }

    /// Reads what the pass needs. `None`: it exceeded its turn.
    async fn observe(
        &self,
        set: &ImageAttachmentSet,
        previous: &ImageAttachmentSetStatus,
        children: &[Arc<CacheEntry>],
        permit: &mut Permit,
    ) -> Result<Option<Result<Pass, Failure>>, ApiServerError> {
        let meta = &set.metadata;
        let (namespace, uid) = (
            meta.namespace.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
        );
        if let Some(problem) = self.context.set_quotas.problem(namespace, uid) {
            return Ok(Some(Err(problem.into())));
        }
        let resolver = ReferenceResolver::new(self.context, meta);
        let sources = match resolver.resolve(set.spec.template.spec.shared()).await {
            Ok(sources) => sources,
            Err(ApiServerError::Refused(refusal)) if refusal.code == 403 => {
                return Ok(Some(Err(forbidden_reference(&refusal).into())));
            }
            Err(error) => return Err(error),
        };
        let existing = observe::objects(&self.context.client, set, children).await?;
        let cache = self.context.sets.reach_cache(&self.name);
        let work = pass::run(self.context, set, previous, &sources, existing, &cache);
        Ok(permit.run(work).await)
    }

    /// Applies the children of a pass.
    async fn apply(
        &self,
        set: &ImageAttachmentSet,
        pass: &Pass,
        children: &[Arc<CacheEntry>],
    ) -> Applied {
        let sets = &self.context.sets;
        let selector = self.context.options.watch_label_selector.as_deref();
        let desired: Vec<Desired> = (pass.children.iter().cloned())
            .filter_map(|child| Desired::new(child, set, selector))
            .collect();
        let marks = desired
            .iter()
            .map(|desired| (desired.name().into(), desired.child().clone()));
        let is_known = sets.set_desired(&self.name, marks.collect());
        let apply = Children::new(self.context, set, children);
        let applied = apply.apply(&desired, &pass.removals).await;
        let is_repair = is_known && applied.made + applied.changed > 0;
        let options = &self.context.options;
        let (min, max) = (options.min_retry_delay, set.spec.interval());
        sets.record_repair(&self.name, is_repair, |repairs| {
            backoff::retry_delay(repairs, min, max.max(min), None, rand::random())
        });
        applied
    }

    /// Reports that the set is suspended. Ready stays as it was, and the children go on.
    async fn suspend(
        &self,
        set: &ImageAttachmentSet,
        previous: &ImageAttachmentSetStatus,
    ) -> Result<Reconciled, ApiServerError> {
        let generation = set.metadata.generation.unwrap_or_default();
        let message = "spec.suspend is set: no ImageAttachment is made, changed or deleted until it is removed";
        let mut conditions =
            Conditions::from_previous(&previous.conditions, generation, Timestamp::now());
        conditions.suspend(message);
        let mut next = previous.clone();
        next.observed_generation = generation;
        next.conditions = conditions.into_list();
        self.write_status(set, previous, &next).await?;
        if next.observed_generation != previous.observed_generation {
            let event = PassEvent {
                severity: Severity::Normal,
                reason: Reason::Suspended,
                message: message.to_owned(),
            };
            self.context.publish(set, &event).await;
        }
        Ok(Reconciled {
            ready: false,
            reason: Reason::Suspended,
            message: message.to_owned(),
            requeue_after: None,
        })
    }

    /// Returns the cached children of the set, and the objects that its label calls its children.
    fn children(&self) -> Vec<Arc<CacheEntry>> {
        let set = self.name.name();
        let names = self.context.sets.children(&self.name);
        let entries = names.iter().filter_map(|name| self.caches.attachment(name));
        entries
            .filter(|entry| entry.child().is_some_and(|child| child.is_of(set)))
            .collect()
    }

    /// Writes status, if it has changed, and publishes an event if the status or reason of Ready changes.
    async fn write_status(
        &self,
        set: &ImageAttachmentSet,
        previous: &ImageAttachmentSetStatus,
        next: &ImageAttachmentSetStatus,
    ) -> Result<(), ApiServerError> {
        if set.status.is_some() && previous == next {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": ImageAttachmentSet::api_version(&()),
            "kind": ImageAttachmentSet::kind(&()),
            "metadata": {"name": set.name_any(), "namespace": set.namespace(), "uid": set.uid()},
            "status": next,
        });
        let (name, params) = (set.name_any(), PatchParams::apply(FIELD_MANAGER).force());
        let patch = Patch::Apply(&patch);
        let written = with_timeout(self.api().patch_status(&name, &params, &patch)).await;
        match written {
            Ok(_) => {}
            // The object is gone, or another one has its name.
            Err(error) if matches!(error.code(), Some(404 | 409)) => {
                return Err(ApiServerError::ResourceGone);
            }
            Err(error) => {
                if error.code() == Some(422) {
                    self.context.set_crd_check.invalidate();
                }
                return Err(error);
            }
        }
        if let Some(event) = transition(&previous.conditions, &next.conditions) {
            self.context.publish(set, &event).await;
        }
        Ok(())
    }

    fn reconciled(
        &self,
        status: &ImageAttachmentSetStatus,
        requeue_after: Option<Duration>,
    ) -> Reconciled {
        let ready = find_condition(&status.conditions, ConditionType::Ready);
        let reason = ready.and_then(|ready| ready.reason.parse().ok());
        Reconciled {
            ready: ready.is_some_and(|ready| ready.status == "True"),
            reason: reason.unwrap_or(Reason::Progressing),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            requeue_after,
        }
    }

    /// Counts a failure and returns the delay until the retry.
    fn back_off(&self, retry_after: Option<Duration>) -> Duration {
        self.context.metrics.queue.count_retry();
        let options = &self.context.options;
        backoff::retry_delay(
            self.context.sets.count_failure(&self.name),
            options.min_retry_delay,
            options.max_retry_delay,
            retry_after,
            rand::random(),
        )
    }

    fn api(&self) -> Api<ImageAttachmentSet> {
        let namespace = self.entry.meta().namespace.as_deref();
        Api::namespaced(self.context.client.clone(), namespace.unwrap_or_default())
    }
}
