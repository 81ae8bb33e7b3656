//! The last visits to a resource that is being deleted and that affix holds: what it made is removed, and then it is let go.
//!
//! It is let go in any case: at the latest after `--deletion-timeout`, counted from its deletion, whatever the registry, the Secrets
//! or the other resources say. A namespace that is being deleted waits for its resources, and must not wait for ever.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use crate::api::{Conditions, DeletionPolicy, Reason};
use crate::engine::{self, Failure, Note, Severity};

use crate::controller::context::{ClusterError, Context};
use crate::controller::reconcile::finalizer::is_held;
use crate::controller::reconcile::ownership::ClusterClaims;
use crate::controller::reconcile::reconciler::{Done, Visit, registry_host};
use crate::controller::reconcile::references::Namespace;

/// What an attempt gets at least, however late the operator comes to it.
const LAST_ATTEMPT: Duration = Duration::from_secs(10);

/// How an attempt ended that did not fail.
struct Removed {
    gone: usize,
    kept: usize,
    requests: u64,
}

impl Visit<'_> {
    /// Removes what the resource made, where its policy says so, and lets it go.
    pub(crate) async fn delete(&self, since: Timestamp) -> Result<Done, ClusterError> {
        let spec = &self.object.spec;
        if !is_held(&self.object.metadata) {
            return Ok(Done::gone(0));
        }
        if spec.deletion_policy() == DeletionPolicy::Retain {
            return self.let_go(None, 0).await;
        }
        if let Some(field) = [
            (spec.suspend(), "spec.suspend"),
            (spec.dry_run(), "spec.dryRun"),
        ]
        .iter()
        .find_map(|(set, field)| set.then_some(field))
        {
            let message = format!(
                "{field} is set, so nothing was removed: what the resource made stays in the registry"
            );
            return self
                .let_go(
                    Some(Note {
                        severity: Severity::Normal,
                        reason: Reason::RemovalAbandoned,
                        message,
                    }),
                    0,
                )
                .await;
        }
        let left = remaining(since, self.context.options.deletion_timeout);
        let attempt = tokio::time::timeout(left.max(LAST_ATTEMPT), self.remove());
        let failure = match attempt.await {
            Ok(Ok(Ok(removed))) => {
                let note = (removed.gone + removed.kept > 0).then(|| Note {
                    severity: Severity::Normal,
                    reason: Reason::Removed,
                    message: format!(
                        "{} that this resource made removed, or handed over to another resource of the namespace; {} kept for resources elsewhere",
                        attachments(removed.gone),
                        removed.kept
                    ),
                });
                return self.let_go(note, removed.requests).await;
            }
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(ClusterError::Gone)) => return Err(ClusterError::Gone),
            Ok(Err(error)) => Failure::new(
                Reason::Progressing,
                format_args!("the API server could not be asked: {error}"),
            ),
            Err(_) => Failure::new(
                Reason::RegistryUnavailable,
                "the registry did not answer in time",
            ),
        };
        let left = remaining(since, self.context.options.deletion_timeout);
        if left.is_zero() {
            let message = format!(
                "given up after {} s; what the resource made and could not be removed stays in the registry: {}: {}",
                self.context.options.deletion_timeout.as_secs(),
                failure.problem.reason,
                failure.problem.message
            );
            return self
                .let_go(
                    Some(Note {
                        severity: Severity::Warning,
                        reason: Reason::RemovalAbandoned,
                        message,
                    }),
                    0,
                )
                .await;
        }
        self.tell(&failure).await?;
        let next = self.back_off(failure.retry_after).min(left);
        Ok(Done {
            ready: false,
            reason: failure.problem.reason,
            attached: String::new(),
            requests: 0,
            next: Some(next),
        })
    }

    async fn remove(&self) -> Result<Result<Removed, Failure>, ClusterError> {
        let _turn = self
            .context
            .lanes
            .turn(registry_host(&self.object.spec.image))
            .await;
        let namespace = Namespace::of(
            &self.context.client,
            &self.object.namespace().unwrap_or_default(),
        );
        let sources = self
            .context
            .bounded(namespace.sources(&self.object.spec))
            .await?;
        let deletion =
            match engine::deletion(&self.object.spec, self.object.status.as_ref(), &sources) {
                Ok(deletion) => deletion,
                Err(problem) => return Ok(Err(problem.into())),
            };
        let claims = ClusterClaims::of(self.context, self.object);
        let deleted = self.context.engine.delete(&deletion, &claims).await;
        Ok(match deleted.failed {
            Some(failure) => Err(failure),
            None => Ok(Removed {
                gone: deleted.gone,
                kept: deleted.kept,
                requests: deleted.requests,
            }),
        })
    }

    /// Says in status why the resource is still there.
    async fn tell(&self, failure: &Failure) -> Result<(), ClusterError> {
        let generation = self.object.metadata.generation.unwrap_or_default();
        let previous = self.object.status.clone().unwrap_or_default();
        let mut next = previous.clone();
        next.observed_generation = generation;
        let mut conditions =
            Conditions::from_previous(&previous.conditions, generation, Timestamp::now());
        let message = format!(
            "what the resource made is to be removed before it goes: {}",
            failure.problem.message
        );
        conditions.conclude(failure.problem.reason, &message);
        next.conditions = conditions.into_list();
        self.write(&previous, &next).await
    }

    /// Takes the finalizer off. The note comes first: an event about what is gone already helps nobody.
    async fn let_go(&self, note: Option<Note>, requests: u64) -> Result<Done, ClusterError> {
        if let Some(note) = &note {
            // The events of a namespace that is being deleted are refused, so the log has it too.
            tracing::info!(
                namespace = self.object.namespace(),
                name = self.object.name_any(),
                reason = note.reason.as_str(),
                "the resource goes: {}",
                note.message
            );
            self.context.publish(self.object, note).await;
        }
        self.context.hold(&self.object.metadata, false).await?;
        Ok(Done::gone(requests))
    }
}

impl Context {
    /// Lets go, in time, of an object that this version cannot read: another version has held it.
    pub(crate) async fn let_unreadable_go(
        &self,
        meta: &ObjectMeta,
    ) -> Result<Option<Duration>, ClusterError> {
        let Some(since) = meta.deletion_timestamp.as_ref().filter(|_| is_held(meta)) else {
            return Ok(None);
        };
        let left = remaining(since.0, self.options.deletion_timeout);
        if !left.is_zero() {
            return Ok(Some(left));
        }
        self.hold(meta, false).await?;
        Ok(None)
    }
}

/// How much of `whole` is left, counted from `since`.
fn remaining(since: Timestamp, whole: Duration) -> Duration {
    let gone = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    whole.saturating_sub(gone)
}

/// `1 attachment`, `3 attachments`.
fn attachments(count: usize) -> String {
    format!("{count} attachment{}", if count == 1 { "" } else { "s" })
}
