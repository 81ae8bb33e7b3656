//! The reconciliation of a resource that is being deleted: cleanup in the registry, then removal of the finalizer.
//!
//! The finalizer is removed at the latest `--deletion-timeout` after the deletion, even if the registry, a Secret or another
//! resource prevents the cleanup. The deletion of a namespace waits for its resources and must end.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use crate::api::{Conditions, DeletionPolicy, ImageAttachmentStatus, Reason};
use crate::controller::api_server::ApiServerError;
use crate::controller::context::Context;
use crate::controller::reconcile::audit::log_changes;
use crate::controller::reconcile::finalizer::{has_finalizer, set_finalizer};
use crate::controller::reconcile::ownership::ClusterClaims;
use crate::controller::reconcile::reconciliation::{ReconcileResult, Reconciliation};
use crate::controller::watch::triggers::remaining_deletion;
use crate::engine::{self, Deleted, Failure, PassEvent, Severity};

/// The least time of an attempt, even after the deletion timeout.
const MIN_ATTEMPT: Duration = Duration::from_secs(10);

impl Reconciliation<'_> {
    /// Removes the attachments of the resource, if its policy says so, and the finalizer.
    pub(crate) async fn delete(&self) -> Result<ReconcileResult, ApiServerError> {
        let spec = &self.object.spec;
        if !has_finalizer(&self.object.metadata) {
            return Ok(ReconcileResult::finalized(0));
        }
        if spec.deletion_policy() == DeletionPolicy::Retain {
            return self.finalize(None, 0).await;
        }
        let exempting_field = match (spec.suspend(), spec.dry_run()) {
            (true, _) => Some("spec.suspend"),
            (_, true) => Some("spec.dryRun"),
            _ => None,
        };
        if let Some(field) = exempting_field {
            let event = PassEvent {
                severity: Severity::Normal,
                reason: Reason::RemovalAbandoned,
                message: format!(
                    "{field} is set: the attachments of this resource stay in the registry, for {}: {}",
                    spec.image,
                    owned_attachments(self.object.status.as_ref()),
                ),
            };
            return self.finalize(Some(event), 0).await;
        }
        let timeout = self.context.options.deletion_timeout;
        let attempt = self.remaining(timeout).max(MIN_ATTEMPT);
        let removal = async {
            if self.has_turn {
                return self.remove_attachments().await;
            }
            let message = "other resources of the namespace on slow registries had every turn";
            Err(Failure::new(Reason::RegistryUnavailable, message))
        };
        let failure = match tokio::time::timeout(attempt, removal).await {
            Ok(Ok(deleted)) => {
                let requests = deleted.requests;
                return self.finalize(removal_event(&deleted), requests).await;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::new(
                Reason::RegistryUnavailable,
                "the registry did not answer in time",
            ),
        };
        let remaining = self.remaining(timeout);
        let reason = failure.problem.reason;
        if remaining.is_zero() {
            let event = PassEvent {
                severity: Severity::Warning,
                reason: Reason::RemovalAbandoned,
                message: format!(
                    "removal abandoned after {} s, {reason}: {}; in the registry stay, for {}: {}",
                    timeout.as_secs(),
                    failure.problem.message,
                    spec.image,
                    owned_attachments(self.object.status.as_ref()),
                ),
            };
            return self.finalize(Some(event), 0).await;
        }
        self.report(&failure).await?;
        Ok(ReconcileResult {
            ready: false,
            reason,
            message: failure.problem.message.clone(),
            attached: String::new(),
            requests: 0,
            requeue_after: Some(self.back_off(failure.retry_after).min(remaining)),
        })
    }

    /// Returns the rest of the time in which the resource waits for the registry.
    fn remaining(&self, timeout: Duration) -> Duration {
        remaining_deletion(&self.object.metadata, timeout).unwrap_or(timeout)
    }

    async fn remove_attachments(&self) -> Result<Deleted, Failure> {
        let sources = self.sources().await.map_err(|error| {
            let message = format_args!("cannot read the references of spec: {error}");
            Failure::new(Reason::Progressing, message)
        })?;
        let deletion = engine::deletion(&self.object.spec, self.object.status.as_ref(), &sources)?;
        let claims = ClusterClaims::new(self.context, self.object);
        let mut deleted = self.context.engine.delete(&deletion, &claims).await;
        log_changes(self.object, &deleted.changes, None);
        match deleted.failed.take() {
            Some(failure) => Err(failure),
            None => Ok(deleted),
        }
    }

    /// Reports in status why the resource still exists.
    async fn report(&self, failure: &Failure) -> Result<(), ApiServerError> {
        let generation = self.object.metadata.generation.unwrap_or_default();
        let previous = self.object.status.clone().unwrap_or_default();
        let mut conditions =
            Conditions::from_previous(&previous.conditions, generation, Timestamp::now());
        let message = format!(
            "cannot remove the attachments of this resource yet: {}",
            failure.problem.message
        );
        conditions.conclude(failure.problem.reason, &message);
        let mut next = previous.clone();
        next.observed_generation = generation;
        next.conditions = conditions.into_list();
        self.write_status(&previous, &next).await
    }

    /// Publishes the event, then removes the finalizer.
    async fn finalize(
        &self,
        event: Option<PassEvent>,
        requests: u64,
    ) -> Result<ReconcileResult, ApiServerError> {
        if let Some(event) = &event {
            // A namespace that is being deleted rejects events, so the log has the message too.
            let (namespace, name) = (self.object.namespace(), self.object.name_any());
            let (image, reason) = (&self.object.spec.image, event.reason.as_str());
            match event.severity {
                Severity::Normal => {
                    tracing::info!(namespace, name, image, reason, "{}", event.message);
                }
                Severity::Warning => {
                    tracing::warn!(namespace, name, image, reason, "{}", event.message);
                }
            }
            self.context.publish(self.object, event).await;
        }
        set_finalizer(&self.context.client, &self.object.metadata, false).await?;
        Ok(ReconcileResult::finalized(requests))
    }
}

/// Removes the finalizer of an object that cannot be parsed, once its time is up. Another version of affix has set it. Returns
/// the delay until then.
pub(crate) async fn finalize_invalid(
    context: &Context,
    meta: &ObjectMeta,
) -> Result<Option<Duration>, ApiServerError> {
    let remaining = remaining_deletion(meta, context.options.deletion_timeout);
    let Some(remaining) = remaining.filter(|_| has_finalizer(meta)) else {
        return Ok(None);
    };
    if !remaining.is_zero() {
        return Ok(Some(remaining));
    }
    set_finalizer(&context.client, meta, false).await?;
    Ok(None)
}

/// Returns the attachments that the resource made and their subjects, as text. At most four are named.
fn owned_attachments(status: Option<&ImageAttachmentStatus>) -> String {
    const MAX_NAMED: usize = 4;
    let owned: Vec<String> = status
        .into_iter()
        .flat_map(ImageAttachmentStatus::owned)
        .map(|(subject, attachment, _)| format!("{attachment} on {subject}"))
        .collect();
    let mut named = owned.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>();
    match owned.len().checked_sub(MAX_NAMED) {
        None if owned.is_empty() => named.push("none that affix made".to_owned()),
        Some(more @ 1..) => named.push(format!("and {more} more")),
        _ => {}
    }
    named.join(", ")
}

/// Returns the event about a completed cleanup, if there was anything to clean up.
fn removal_event(deleted: &Deleted) -> Option<PassEvent> {
    let plural = if deleted.gone == 1 { "" } else { "s" };
    let names: Vec<&str> = deleted
        .kept_for
        .iter()
        .map(String::as_str)
        .take(3)
        .collect();
    let kept_for = match names.as_slice() {
        [] => String::new(),
        names => format!(": {}", names.join(", ")),
    };
    (deleted.gone + deleted.kept > 0).then(|| PassEvent {
        severity: Severity::Normal,
        reason: Reason::Removed,
        message: format!(
            "removed {} attachment{plural} of this resource, or transferred them to another resource of the namespace; kept {} for resources of other namespaces{kept_for}",
            deleted.gone, deleted.kept
        ),
    })
}
