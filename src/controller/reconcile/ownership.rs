//! Whether another resource wants what this one is about to remove.
//!
//! In the same namespace the spec counts: a resource that has the attachment in status, or whose plan would keep or adopt it, becomes
//! its maker. Elsewhere status counts: a resource that lists the attachment keeps it there.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::{Mutex, OnceCell};

use crate::api::{ImageAttachment, Reason, TargetState, TargetStatus};
use crate::attachment::parse_reference;
use crate::engine::{self, Claim, Claims, Draft, Failure, Journal, Mode, NoClaims, Request};
use affix_registry::oci::{Digest, Reference};

use crate::controller::context::{ClusterError, Context};
use crate::controller::reconcile::references::Namespace;

/// What the other resources want, seen from one that is about to remove something.
pub(crate) struct ClusterClaims<'a> {
    context: &'a Context,
    object: &'a ImageAttachment,
    /// Those of the same repository: read once a pass, and only where something is to be removed.
    others: OnceCell<Vec<ImageAttachment>>,
    handing: Mutex<()>,
}

/// What a plan says.
enum Wants {
    Yes,
    No,
    Unknown(String),
}

impl<'a> ClusterClaims<'a> {
    pub(crate) fn of(context: &'a Context, object: &'a ImageAttachment) -> Self {
        Self {
            context,
            object,
            others: OnceCell::new(),
            handing: Mutex::new(()),
        }
    }

    /// The other resources of the same repository, the oldest first.
    async fn others(&self) -> Result<&Vec<ImageAttachment>, ClusterError> {
        let read = || async {
            let Ok(own) = parse_reference(&self.object.spec.image) else {
                return Ok(Vec::new());
            };
            let mut others = self.context.neighbours(&own).await?;
            others.retain(|other| other.uid() != self.object.uid() && is_of(other, &own));
            others
                .sort_by_key(|other| (other.creation_timestamp().map(|at| at.0), other.name_any()));
            Ok(others)
        };
        self.others.get_or_try_init(read).await
    }

    /// Who wants the attachment; `hand` it over to a resource of the namespace that does.
    async fn look(
        &self,
        subject: &Digest,
        attachment: &Digest,
        hand: bool,
    ) -> Result<Claim, ClusterError> {
        let here = |other: &&ImageAttachment| other.namespace() == self.object.namespace();
        let others = self.others().await?;
        let heir = |other: &ImageAttachment| {
            other
                .status
                .as_ref()
                .is_some_and(|status| engine::lists(status, subject, attachment))
        };
        for other in others.iter().filter(here).filter(|other| heir(other)) {
            if !hand || self.hand_over(other, subject, attachment).await? {
                return Ok(Claim::HandedOver);
            }
        }
        let mut unknown = None;
        for other in others
            .iter()
            .filter(here)
            .filter(|other| !heir(other) && is_open(other))
        {
            match Box::pin(self.plan_of(other, subject, attachment)).await? {
                Wants::Yes if !hand || self.hand_over(other, subject, attachment).await? => {
                    return Ok(Claim::HandedOver);
                }
                Wants::Yes | Wants::No => {}
                Wants::Unknown(why) => unknown = Some(format!("{}: {why}", other.name_any())),
            }
        }
        Ok(match unknown {
            Some(why) => Claim::Unknown(why),
            None if others.iter().any(|other| !here(&other) && heir(other)) => Claim::Elsewhere,
            None => Claim::Nobody,
        })
    }

    /// Whether the plan of a resource that has not settled yet would keep or adopt the attachment: what its spec wants, by the code
    /// that carries it out.
    async fn plan_of(
        &self,
        other: &ImageAttachment,
        subject: &Digest,
        attachment: &Digest,
    ) -> Result<Wants, ClusterError> {
        let namespace = Namespace::of(&self.context.client, &other.namespace().unwrap_or_default());
        let sources = self.context.bounded(namespace.sources(&other.spec)).await?;
        let verdict = |reason: Reason, message: &str| {
            // What only its author can mend wants nothing until it is mended.
            if reason.is_stalled() {
                Wants::No
            } else {
                Wants::Unknown(format!("{reason}: {message}"))
            }
        };
        let generation = other.metadata.generation.unwrap_or_default();
        let request = match engine::request(
            &other.spec,
            other.status.as_ref(),
            generation,
            &sources,
            true,
        ) {
            Ok(request) => Request {
                mode: Mode::Plan,
                ..request
            },
            Err(problem) => return Ok(verdict(problem.reason, &problem.message)),
        };
        let outcome = self
            .context
            .engine
            .run(&request, &NoJournal, &NoClaims, Timestamp::now())
            .await;
        let rows = outcome.rows.unwrap_or_default();
        Ok(match rows.iter().find(|row| is(&row.digest, subject)) {
            Some(row) if row.state == TargetState::Attached && names(row, attachment) => Wants::Yes,
            Some(TargetStatus {
                state: TargetState::Failed,
                reason: Some(reason),
                message,
                ..
            }) => verdict(
                reason.parse().unwrap_or(Reason::Progressing),
                message.as_deref().unwrap_or_default(),
            ),
            Some(_) => Wants::No,
            None if rows.is_empty()
                && !outcome.verdict.ready
                && outcome.verdict.reason != Reason::Planned =>
            {
                verdict(outcome.verdict.reason, &outcome.verdict.message)
            }
            None => Wants::No,
        })
    }

    /// Makes another resource the maker; `false` where it is gone by now.
    async fn hand_over(
        &self,
        heir: &ImageAttachment,
        subject: &Digest,
        attachment: &Digest,
    ) -> Result<bool, ClusterError> {
        // One after the other: side by side they would be in each other's way.
        let _turn = self.handing.lock().await;
        let heir = self.context.objects.freshest(heir.clone());
        let handed = self.context.bequeath(&heir, subject, attachment).await?;
        if handed {
            tracing::info!(
                namespace = heir.namespace(),
                name = heir.name_any(),
                %attachment,
                maker = self.object.name_any(),
                "the attachment is this resource's from now on"
            );
        }
        Ok(handed)
    }
}

impl Claims for ClusterClaims<'_> {
    async fn claim(&self, subject: &Digest, attachment: &Digest) -> Claim {
        self.look(subject, attachment, true)
            .await
            .unwrap_or_else(|error| Claim::Unknown(error.to_string()))
    }

    async fn would_claim(&self, subject: &Digest, attachment: &Digest) -> Claim {
        self.look(subject, attachment, false)
            .await
            .unwrap_or_else(|error| Claim::Unknown(error.to_string()))
    }
}

/// Another resource's plan writes nothing.
struct NoJournal;

impl Journal for NoJournal {
    async fn save(&self, _: &Draft<'_>) -> Result<(), Failure> {
        Err(Failure::new(Reason::Progressing, "a plan saves nothing"))
    }
}

/// Whether a resource speaks of the repository of `own`, by its spec or by what its status says of an earlier one.
fn is_of(other: &ImageAttachment, own: &Reference) -> bool {
    let status = other
        .status
        .as_ref()
        .and_then(|status| status.image.as_ref());
    let images = [
        Some(&other.spec.image),
        status.map(|image| &image.reference),
    ];
    images.into_iter().flatten().any(|image| {
        image
            .parse::<Reference>()
            .is_ok_and(|image| image.name() == own.name())
    })
}

/// Whether status does not tell yet all that the spec wants.
fn is_open(other: &ImageAttachment) -> bool {
    let Some(status) = &other.status else {
        return true;
    };
    let ready = crate::api::find_condition(&status.conditions, crate::api::ConditionType::Ready);
    Some(status.observed_generation) != other.metadata.generation
        || ready.is_none_or(|ready| ready.status != "True")
}

fn names(row: &TargetStatus, attachment: &Digest) -> bool {
    row.attachment
        .as_deref()
        .is_some_and(|text| is(text, attachment))
}

fn is(text: &str, digest: &Digest) -> bool {
    text.parse::<Digest>().is_ok_and(|parsed| parsed == *digest)
}
