//! Removes attachments that this resource owns and no longer wants. Attachments of other owners are never removed.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::api::{Reason, SignatureFormat, truncate_message};
use crate::engine::claims::{Claim, Claims};
use crate::engine::failure::Failure;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::owned::Owned;
use crate::engine::report::change::{AttachmentChange, ChangeKind};
use crate::engine::report::event::PassEvent;
use affix_registry::oci::{Descriptor, Digest};
use affix_registry::{Deletion, ListingSource, Session, TagChange};

/// The result of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Removal {
    /// The manifest that the attachment is or was attached to.
    pub(in crate::engine) subject: Digest,
    pub(in crate::engine) attachment: Digest,
    /// The record of an attachment that stays; `None` if the registry does not list it anymore, or if it has a new owner.
    pub(in crate::engine) leftover: Option<LeftoverRecord>,
    /// The resource of another namespace for which the attachment stays, as `namespace/name`.
    pub(in crate::engine) kept_for: Option<String>,
    pub(in crate::engine) event: Option<PassEvent>,
    /// Set if the attachment was removed.
    pub(in crate::engine) change: Option<AttachmentChange>,
    /// The delay that the registry asked for.
    pub(in crate::engine) retry_after: Option<Duration>,
}

impl Removal {
    fn new(subject: &Digest, owned: &Owned, leftover: Option<LeftoverRecord>) -> Self {
        Self {
            subject: subject.clone(),
            attachment: owned.attachment.clone(),
            leftover,
            kept_for: None,
            event: None,
            change: None,
            retry_after: None,
        }
    }

    fn failed(subject: &Digest, owned: &Owned, failure: &Failure) -> Self {
        let reason = failure.problem.reason;
        let message = truncate_message(&failure.problem.message);
        let leftover = LeftoverRecord::of(subject, owned, reason).with_message(message.clone());
        Self {
            event: Some(PassEvent::warning(reason, message)),
            retry_after: failure.retry_after,
            ..Self::new(subject, owned, Some(leftover))
        }
    }
}

/// Removes attachments that no other resource claims. Subjects are processed concurrently. The attachments of one subject are processed in
/// sequence, since they may share a fallback tag.
pub(in crate::engine) async fn remove_all(
    session: &Session,
    attachments: Vec<(Descriptor, Owned)>,
    claims: &impl Claims,
    deadline: Instant,
) -> Vec<Removal> {
    let mut subjects: BTreeMap<Digest, (Descriptor, Vec<Owned>)> = BTreeMap::new();
    for (subject, attachment) in attachments {
        subjects
            .entry(subject.digest.clone())
            .or_insert_with(|| (subject, Vec::new()))
            .1
            .push(attachment);
    }
    let work = subjects.values().map(|(subject, attachments)| async move {
        let mut removals = Vec::new();
        for attachment in attachments {
            // `timeout_at` polls its future once even after the deadline.
            let removal = match deadline > Instant::now() {
                true => timeout_at(deadline, remove(session, subject, attachment, claims))
                    .await
                    .ok(),
                false => None,
            };
            removals.push(removal.unwrap_or_else(|| {
                let message = format_args!(
                    "spec.timeout was over before {} was removed from {}",
                    attachment.attachment, subject.digest
                );
                let failure = Failure::new(Reason::RegistryUnavailable, message);
                Removal::failed(&subject.digest, attachment, &failure)
            }));
        }
        removals
    });
    join_all(work).await.into_iter().flatten().collect()
}

/// Removes one attachment that no other resource claims.
async fn remove(
    session: &Session,
    subject: &Descriptor,
    owned: &Owned,
    claims: &impl Claims,
) -> Removal {
    let (on, attachment) = (&subject.digest, &owned.attachment);
    let stays = |reason| LeftoverRecord::of(on, owned, reason);
    match claims.claim(on, attachment).await {
        Claim::Unclaimed => {}
        Claim::Transferred => return Removal::new(on, owned, None),
        Claim::Elsewhere(name) => {
            return Removal {
                kept_for: Some(name),
                ..Removal::new(on, owned, Some(stays(Reason::StillInUse)))
            };
        }
        Claim::Unknown(error) => {
            tracing::warn!(%attachment, subject = %on, error, "removal postponed: the claims of other resources are unknown");
            let message = format!(
                "{attachment} is not removed from {on} yet: the claims of other resources on it are unknown"
            );
            let leftover = stays(Reason::Progressing).with_message(message);
            return Removal::new(on, owned, Some(leftover));
        }
    }
    let removed = match owned.format {
        SignatureFormat::Bundle => delete(session, subject, attachment).await,
        SignatureFormat::Tag => take_off(session, on, attachment).await,
    };
    match removed {
        Ok(remark) => {
            let message = format!("removed {attachment} from {on}{remark}");
            Removal {
                event: Some(PassEvent::normal(Reason::Removed, message)),
                change: Some(AttachmentChange {
                    kind: ChangeKind::Removed,
                    subject: on.clone(),
                    attachment: attachment.clone(),
                    format: owned.format,
                }),
                ..Removal::new(on, owned, None)
            }
        }
        Err(failure) => Removal::failed(on, owned, &failure),
    }
}

/// Takes a signature off the signature tag of `subject`. Returns a remark for the event.
async fn take_off(
    session: &Session,
    subject: &Digest,
    signature: &Digest,
) -> Result<&'static str, Failure> {
    let change = TagChange {
        add: Vec::new(),
        remove: vec![signature.clone()],
    };
    session
        .rewrite_signatures_after(ready(Ok(())), subject, change, true)
        .await?;
    Ok(": it was a layer of the signature tag")
}

/// Deletes a manifest. On a fallback tag its entry is deleted first: notation cannot verify a tag that lists a deleted manifest, and no
/// client can write it. Returns a remark for the event.
async fn delete(
    session: &Session,
    subject: &Descriptor,
    attachment: &Digest,
) -> Result<&'static str, Failure> {
    let source = match session.referrers_mode() {
        Some(source) => source,
        None => session.referrers(&subject.digest, None).await?.source,
    };
    if source == ListingSource::FallbackTag {
        let change = TagChange {
            add: Vec::new(),
            remove: vec![attachment.clone()],
        };
        session.rewrite_fallback(subject, change, true).await?;
    }
    match session.delete_manifest(attachment).await? {
        Deletion::Done | Deletion::Gone => Ok(""),
        Deletion::Refused(_) if source == ListingSource::FallbackTag => Ok(
            ": it is not listed any more; the registry does not delete manifests, so its bytes remain",
        ),
        Deletion::Refused(answer) => Err(Failure::new(
            Reason::RemovalRefused,
            format_args!(
                "the registry refuses to delete {attachment} from {}: {answer}",
                subject.digest
            ),
        )),
    }
}
