//! Ownership of attachments that a resource is about to remove and that other resources may need.
//!
//! In the same namespace the spec decides: ownership is transferred to a resource that has the attachment in status, or whose
//! plan would keep or adopt it. In other namespaces status decides: the attachment is kept for a resource that lists it and whose
//! status shows that it may push there (threat T34, decision 0095).

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use tokio::sync::{Mutex, OnceCell};

use crate::api::{ImageAttachment, Reason, TargetState, TargetStatus};
use crate::attachment::parse_reference;
use crate::controller::api_server::ApiServerError;
use crate::controller::context::Context;
use crate::controller::reconcile::object_read::{self, ReadError};
use crate::controller::reconcile::references::ReferenceResolver;
use crate::controller::reconcile::status_writer::record_owner;
use crate::controller::watch::claimant::Claimant;
use crate::engine::{self, Claim, Claims, Draft, Failure, Journal, Mode, NoClaims, Request};
use affix_registry::oci::Digest;

/// The claims of other resources to the attachments of one resource.
pub(crate) struct ClusterClaims<'a> {
    context: &'a Context,
    object: &'a ImageAttachment,
    /// The other resources of the repository, read once if something is to be removed.
    others: OnceCell<Vec<Arc<Claimant>>>,
    /// Serialises transfers, which would conflict with each other.
    transfer: Mutex<()>,
}

/// The answer of a plan: whether the resource would keep or adopt the attachment.
enum PlanResult {
    Needed,
    NotNeeded,
    /// The plan failed, with this error.
    Unknown(String),
}

impl<'a> ClusterClaims<'a> {
    pub(crate) fn new(context: &'a Context, object: &'a ImageAttachment) -> Self {
        Self {
            context,
            object,
            others: OnceCell::new(),
            transfer: Mutex::new(()),
        }
    }

    /// Returns the other resources of the repository, the oldest first.
    async fn others(&self) -> Result<&Vec<Arc<Claimant>>, ApiServerError> {
        let find = || async {
            let Ok(own) = parse_reference(&self.object.spec.image) else {
                return Ok(Vec::new());
            };
            let context = self.context;
            let namespace = self.object.metadata.namespace.as_deref();
            let others = (context.repositories)
                .find(&own, namespace, &context.states)
                .await?;
            let mut others: Vec<_> = (others.into_iter())
                .filter(|other| other.metadata.uid != self.object.metadata.uid && other.names(&own))
                .collect();
            others.sort_by_key(|other| {
                let meta = &other.metadata;
                let created = meta.creation_timestamp.as_ref().map(|at| at.0);
                (created, meta.name.clone())
            });
            Ok(others)
        };
        self.others.get_or_try_init(find).await
    }

    /// Finds a claim. `transfer`: whether to transfer ownership to a resource of the namespace that needs the attachment.
    async fn find_claim(
        &self,
        subject: &Digest,
        attachment: &Digest,
        transfer: bool,
    ) -> Result<Claim, ApiServerError> {
        let others = self.others().await?.iter();
        let (local, remote): (Vec<_>, Vec<_>) =
            others.partition(|other| other.is_local(self.object));
        let lists = |other: &&Arc<Claimant>| other.lists(self.object, subject, attachment);
        let (listing, local): (Vec<_>, Vec<_>) = local.into_iter().partition(lists);
        for other in listing {
            if !transfer || self.transfer_to(other, subject, attachment).await? {
                return Ok(Claim::Transferred);
            }
        }
        let mut unknown = None;
        for other in local.into_iter().filter(|other| other.may_need(subject)) {
            match Box::pin(self.plan(other, subject, attachment)).await? {
                PlanResult::Needed
                    if !transfer || self.transfer_to(other, subject, attachment).await? =>
                {
                    return Ok(Claim::Transferred);
                }
                PlanResult::Needed | PlanResult::NotNeeded => {}
                PlanResult::Unknown(error) => {
                    let name = other.metadata.name.as_deref().unwrap_or_default();
                    unknown = Some(format!("{name}: {error}"));
                }
            }
        }
        let name = |meta: &ObjectMeta| {
            let parts = [&meta.namespace, &meta.name].map(|part| part.as_deref());
            parts.map(Option::unwrap_or_default).join("/")
        };
        Ok(match unknown {
            Some(error) => Claim::Unknown(error),
            None => match remote.into_iter().find(lists) {
                Some(other) => Claim::Elsewhere(name(&other.metadata)),
                None => Claim::Unclaimed,
            },
        })
    }

    /// Reads another resource. `None`: it is gone, being deleted, or cannot be parsed.
    async fn read(&self, other: &Claimant) -> Result<Option<ImageAttachment>, ApiServerError> {
        match object_read::read(&self.context.client, &other.metadata).await {
            Ok(object) => {
                let newest = self.context.states.with_newest_status(object);
                Ok(Some(newest).filter(|object| object.metadata.deletion_timestamp.is_none()))
            }
            Err(ReadError::Invalid(_) | ReadError::ApiServer(ApiServerError::ResourceGone)) => {
                Ok(None)
            }
            Err(ReadError::ApiServer(error)) => Err(error),
        }
    }

    /// Plans an unsettled resource, with the code that would reconcile it.
    async fn plan(
        &self,
        other: &Claimant,
        subject: &Digest,
        attachment: &Digest,
    ) -> Result<PlanResult, ApiServerError> {
        let Some(other) = &self.read(other).await? else {
            return Ok(PlanResult::NotNeeded);
        };
        let resolver = ReferenceResolver::new(self.context, &other.metadata);
        let sources = resolver.resolve(&other.spec).await?;
        let generation = other.metadata.generation.unwrap_or_default();
        let status = other.status.as_ref();
        let request = match engine::request(&other.spec, status, generation, &sources, true) {
            Ok(request) => Request {
                mode: Mode::Plan,
                ..request
            },
            Err(problem) => return Ok(plan_failed(problem.reason, &problem.message)),
        };
        let engine = &self.context.engine;
        let outcome = engine
            .run(&request, &NoJournal, &NoClaims, Timestamp::now())
            .await;
        let targets = outcome.rows.unwrap_or_default();
        Ok(match targets.iter().find(|row| is(&row.digest, subject)) {
            Some(row) if row.state == TargetState::Attached && engine::shows(row, attachment) => {
                PlanResult::Needed
            }
            Some(TargetStatus {
                state: TargetState::Failed,
                reason: Some(reason),
                message,
                ..
            }) => plan_failed(
                reason.parse().unwrap_or(Reason::Progressing),
                message.as_deref().unwrap_or_default(),
            ),
            Some(_) => PlanResult::NotNeeded,
            None if targets.is_empty()
                && !outcome.verdict.ready
                && outcome.verdict.reason != Reason::Planned =>
            {
                plan_failed(outcome.verdict.reason, &outcome.verdict.message)
            }
            None => PlanResult::NotNeeded,
        })
    }

    /// Transfers ownership. Returns `false` if the new owner is gone.
    async fn transfer_to(
        &self,
        new_owner: &Claimant,
        subject: &Digest,
        attachment: &Digest,
    ) -> Result<bool, ApiServerError> {
        let _guard = self.transfer.lock().await;
        let Some(new_owner) = self.read(new_owner).await? else {
            return Ok(false);
        };
        let previous_owner = &self.context.states.with_newest_status(self.object.clone());
        let is_transferred = record_owner(
            self.context,
            &new_owner,
            subject,
            attachment,
            previous_owner,
        )
        .await?;
        if is_transferred {
            tracing::info!(
                namespace = new_owner.namespace(),
                name = new_owner.name_any(),
                previous_owner = self.object.name_any(),
                %attachment,
                "ownership of the attachment transferred"
            );
        }
        Ok(is_transferred)
    }
}

impl Claims for ClusterClaims<'_> {
    async fn claim(&self, subject: &Digest, attachment: &Digest) -> Claim {
        self.find_claim(subject, attachment, true)
            .await
            .unwrap_or_else(|error| Claim::Unknown(error.to_string()))
    }

    async fn would_claim(&self, subject: &Digest, attachment: &Digest) -> Claim {
        self.find_claim(subject, attachment, false)
            .await
            .unwrap_or_else(|error| Claim::Unknown(error.to_string()))
    }
}

/// The journal of a plan, which pushes nothing.
struct NoJournal;

impl Journal for NoJournal {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        let message = "a plan does not write status";
        Err(Failure::new(Reason::Progressing, message))
    }
}

/// Returns the result of a failed plan. A resource that only its author can repair needs nothing until then.
fn plan_failed(reason: Reason, message: &str) -> PlanResult {
    if reason.is_stalled() {
        PlanResult::NotNeeded
    } else {
        PlanResult::Unknown(format!("{reason}: {message}"))
    }
}

fn is(text: &str, digest: &Digest) -> bool {
    text.parse::<Digest>().is_ok_and(|parsed| parsed == *digest)
}
