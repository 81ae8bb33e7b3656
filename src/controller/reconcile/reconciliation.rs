//! The parts of a reconciliation that attaching and deleting share.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{ConditionType, ImageAttachment, ImageAttachmentStatus, Reason, find_condition};
use crate::controller::api_server::ApiServerError;
use crate::controller::context::Context;
use crate::controller::reconcile::backoff;
use crate::controller::reconcile::references::ReferenceResolver;
use crate::controller::reconcile::status_writer::StatusWriter;
use crate::engine::{PassEvent, Severity, Sources};
use affix_registry::Priority;

/// One reconciliation of one object.
pub(crate) struct Reconciliation<'a> {
    pub(crate) context: &'a Context,
    pub(crate) object: &'a ImageAttachment,
    pub(crate) uid: &'a str,
    /// A set owns the object, and reads its tag.
    pub(crate) is_child: bool,
    pub(crate) priority: Priority,
    /// The reconcile may send requests to the registry. A deletion that has waited too long has no turn.
    pub(crate) has_turn: bool,
    pub(crate) status_writer: StatusWriter<'a>,
}

/// The result of a reconciliation.
pub(crate) struct ReconcileResult {
    pub(crate) ready: bool,
    pub(crate) reason: Reason,
    /// The message of Ready.
    pub(crate) message: String,
    /// The `attached` column of status.
    pub(crate) attached: String,
    /// Requests to the registry.
    pub(crate) requests: u64,
    pub(crate) requeue_after: Option<Duration>,
}

impl ReconcileResult {
    /// Returns the result for a resource without its finalizer: it is not requeued.
    pub(crate) const fn finalized(requests: u64) -> Self {
        Self {
            ready: true,
            reason: Reason::Removed,
            message: String::new(),
            attached: String::new(),
            requests,
            requeue_after: None,
        }
    }
}

impl Reconciliation<'_> {
    /// Reads the objects that the spec references.
    pub(crate) async fn sources(&self) -> Result<Sources, ApiServerError> {
        ReferenceResolver::new(self.context, &self.object.metadata)
            .resolve(&self.object.spec)
            .await
    }

    /// Writes status, and publishes an event if the status or reason of Ready changes.
    pub(crate) async fn write_status(
        &self,
        previous: &ImageAttachmentStatus,
        next: &ImageAttachmentStatus,
    ) -> Result<(), ApiServerError> {
        self.status_writer.write(next).await?;
        if let Some(event) = transition(&previous.conditions, &next.conditions) {
            self.context.publish(self.object, &event).await;
        }
        Ok(())
    }

    /// Counts a failure and returns the delay until the retry.
    pub(crate) fn back_off(&self, retry_after: Option<Duration>) -> Duration {
        self.context.metrics.queue.count_retry();
        let options = &self.context.options;
        backoff::retry_delay(
            self.context.states.count_failure(self.uid),
            options.min_retry_delay,
            options.max_retry_delay,
            retry_after,
            rand::random(),
        )
    }
}

/// Returns the event of a change of the status or reason of Ready.
pub(crate) fn transition(before: &[Condition], after: &[Condition]) -> Option<PassEvent> {
    let before = find_condition(before, ConditionType::Ready);
    let after = find_condition(after, ConditionType::Ready)?;
    let is_same =
        before.is_some_and(|before| before.status == after.status && before.reason == after.reason);
    let reason = after.reason.parse().ok().filter(|_| !is_same)?;
    let is_normal =
        after.status == "True" || matches!(reason, Reason::Planned | Reason::Progressing);
    Some(PassEvent {
        severity: if is_normal {
            Severity::Normal
        } else {
            Severity::Warning
        },
        reason,
        message: after.message.clone(),
    })
}
