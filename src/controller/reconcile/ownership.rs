//! Ownership of attachments that a resource is about to remove and that other resources may need.
//!
//! In the same namespace the spec decides: ownership is transferred to a resource that has the attachment in status, or whose
//! plan would keep or adopt it. In other namespaces status decides: the attachment is kept for a resource that lists it and whose
//! status shows that it may push there (threat T34, decision 0095).

use std::collections::HashSet;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use tokio::sync::{Mutex, OnceCell};

use crate::api::{
    ConditionType, ImageAttachment, ImageAttachmentStatus, Reason, TargetState, TargetStatus,
    find_condition,
};
use crate::attachment::parse_reference;
use crate::controller::api_server::ApiServerError;
use crate::controller::context::Context;
use crate::controller::reconcile::object_read::{self, ReadError};
use crate::controller::reconcile::references::ReferenceResolver;
use crate::controller::reconcile::status_writer::record_owner;
use crate::engine::{self, Claim, Claims, Draft, Failure, Journal, Mode, NoClaims, Request};
use affix_registry::oci::{Digest, Reference};

/// The claims of other resources to the attachments of one resource.
pub(crate) struct ClusterClaims<'a> {
    context: &'a Context,
    object: &'a ImageAttachment,
    /// The other resources of the repository, read once if something is to be removed.
    others: OnceCell<Vec<Other>>,
    /// Serialises transfers, which would conflict with each other.
    transfer: Mutex<()>,
}

/// The claims of one resource. The resource itself may be large and is read again if it is needed.
struct Other {
    metadata: ObjectMeta,
    /// Status may not list all attachments that the spec needs.
    is_unsettled: bool,
    /// The manifests of its image, if they are known: then it needs no attachment of any other.
    manifests: Option<HashSet<Digest>>,
    /// The attachments in status. Of a resource of another namespace, those that it may push.
    attachments: HashSet<(Digest, Digest)>,
}

/// The answer of a plan: whether the resource would keep or adopt the attachment.
enum PlanResult {
    Needed,
    NotNeeded,
    /// The plan failed, with this error.
    Unknown(String),
}

impl Other {
    /// Returns whether a plan could need an attachment of `subject` that status does not list.
    fn may_need(&self, subject: &Digest) -> bool {
        let manifests = self.manifests.as_ref();
        self.is_unsettled && manifests.is_none_or(|manifests| manifests.contains(subject))
    }
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
    async fn others(&self) -> Result<&Vec<Other>, ApiServerError> {
        let find = || async {
            let Ok(own) = parse_reference(&self.object.spec.image) else {
                return Ok(Vec::new());
            };
            let context = self.context;
            let namespace = self.object.metadata.namespace.as_deref();
            let other = |other: ImageAttachment| {
                let is_other = other.uid() != self.object.uid() && names_repository(&other, &own);
                is_other.then(|| self.other(&other))
            };
            let mut others = context
                .repositories
                .find(&own, namespace, &context.states, other)
                .await?;
            others.sort_by_key(|other| {
                let meta = &other.metadata;
                let created = meta.creation_timestamp.as_ref().map(|at| at.0);
                (created, meta.name.clone())
            });
            Ok(others)
        };
        self.others.get_or_try_init(find).await
    }

    fn other(&self, other: &ImageAttachment) -> Other {
        let is_local = other.metadata.namespace == self.object.metadata.namespace;
        let is_claim = is_local || writes_to_same_registry(other, self.object);
        let listed = other.status.iter().flat_map(engine::attachments);
        Other {
            metadata: ObjectMeta {
                creation_timestamp: other.metadata.creation_timestamp.clone(),
                name: other.metadata.name.clone(),
                namespace: other.metadata.namespace.clone(),
                uid: other.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            is_unsettled: is_unsettled(other),
            manifests: manifests(other),
            attachments: listed
                .filter(|listed| is_claim && (is_local || listed.may_push))
                .map(|listed| (listed.subject, listed.attachment))
                .collect(),
        }
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
            others.partition(|other| other.metadata.namespace == self.object.metadata.namespace);
        let pair = (subject.clone(), attachment.clone());
        let lists = |other: &&Other| other.attachments.contains(&pair);
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
    async fn read(&self, other: &Other) -> Result<Option<ImageAttachment>, ApiServerError> {
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
        other: &Other,
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
        new_owner: &Other,
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

/// Returns whether the controller writes for a resource of another namespace, and to the registry of `own`. A tenant's own proxy may
/// lead to any server, and that server's answers prove nothing about the registry (threat T24).
fn writes_to_same_registry(other: &ImageAttachment, own: &ImageAttachment) -> bool {
    let (other, own) = (&other.spec, &own.spec);
    !other.dry_run()
        && !other.suspend()
        && other.proxy_secret_ref.is_none()
        && other.insecure() == own.insecure()
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

/// Returns whether the spec names the repository of `reference`, or status does, from an earlier spec.
fn names_repository(other: &ImageAttachment, reference: &Reference) -> bool {
    let status = other.status.as_ref();
    let image = status.and_then(|status| status.image.as_ref());
    let references = [Some(&other.spec.image), image.map(|image| &image.reference)];
    references.into_iter().flatten().any(|other| {
        other
            .parse::<Reference>()
            .is_ok_and(|other| other.name() == reference.name())
    })
}

/// Returns whether status may not list all attachments that the spec needs.
fn is_unsettled(other: &ImageAttachment) -> bool {
    let Some(status) = &other.status else {
        return true;
    };
    let ready = find_condition(&status.conditions, ConditionType::Ready);
    Some(status.observed_generation) != other.metadata.generation
        || ready.is_none_or(|ready| ready.status != "True")
}

/// Returns the manifests of an image, if spec pins the one that status lists whole. Without this the children of a set, which change
/// together, would each plan all others.
fn manifests(other: &ImageAttachment) -> Option<HashSet<Digest>> {
    let pinned = other.spec.image.parse::<Reference>().ok()?.digest?;
    let status = other.status.as_ref()?;
    let is_same = is(&status.image.as_ref()?.digest, &pinned);
    let targets = &status.targets;
    let is_whole = (1..ImageAttachmentStatus::MAX_SKIPPED).contains(&targets.len());
    let digests = || targets.iter().flat_map(|target| target.digest.parse());
    (is_same && is_whole).then(|| digests().collect())
}

fn is(text: &str, digest: &Digest) -> bool {
    text.parse::<Digest>().is_ok_and(|parsed| parsed == *digest)
}
