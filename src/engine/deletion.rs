//! The end of a resource with `deletionPolicy: Delete`: what it made goes with it.
//!
//! Needs neither the image nor its files nor a signing key any more: only status, which says what was made, and a way to the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::api::{ImageAttachmentSpec, ImageAttachmentStatus, Leftover, Reason};
use crate::attachment::{Problem, parse_reference};
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::{Access, Session};

use super::claims::Claims;
use super::failure::Failure;
use super::memory::Memory;
use super::pass::Engine;
use super::remove::{self, Removed};
use super::sources::{Sources, access};

/// What is to be removed, and how the registry is reached.
#[derive(Debug, Clone)]
pub struct Deletion {
    reference: Reference,
    access: Access,
    made: BTreeMap<Digest, BTreeSet<Digest>>,
    timeout: Duration,
}

/// What came of a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many attachments are gone, or another resource's by now.
    pub gone: usize,
    /// How many stay since a resource elsewhere has them.
    pub kept: usize,
    /// What is to be tried again: why, and how long the registry asked to wait.
    pub failed: Option<Failure>,
    /// How many requests the registry got, tokens not counted.
    pub requests: u64,
}

/// The deletion of what `status` says that the resource made in the repository that `spec` names.
///
/// # Errors
/// `InvalidReference` and `SecretNotFound`, with the field, the value and the way out.
pub fn deletion(spec: &ImageAttachmentSpec, status: Option<&ImageAttachmentStatus>, sources: &Sources) -> Result<Deletion, Problem> {
    let reference = parse_reference(&spec.image)?;
    let made = Memory::of(status, 0, &reference).made();
    // Where nothing was made, a Secret that is gone holds up nobody.
    let access = if made.is_empty() { Access::default() } else { access(spec, sources)? };
    Ok(Deletion { reference, access, made, timeout: spec.timeout() })
}

impl Deletion {
    /// How many attachments are to be removed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.made.values().map(BTreeSet::len).sum()
    }
}

impl Engine {
    /// Removes what a resource made and nobody else wants. Trying again what was removed already does no harm.
    pub async fn delete(&self, deletion: &Deletion, claims: &impl Claims) -> Deleted {
        if deletion.made.is_empty() {
            return Deleted::default();
        }
        let deadline = Instant::now() + deletion.timeout;
        let Deletion { reference, access, .. } = deletion;
        let session = match self.registries().open(&reference.host, &reference.repository, access.clone()) {
            Ok(session) => session.until(deadline),
            Err(error) => return Deleted { failed: Some(error.into()), ..Deleted::default() },
        };
        let subjects = deletion.made.iter().map(|(subject, made)| clear(&session, subject, made, claims, deadline));
        let mut deleted = Deleted::default();
        for leftover in join_all(subjects).await.into_iter().flatten() {
            match leftover {
                None => deleted.gone += 1,
                Some(leftover) if leftover.reason.as_deref() == Some(Reason::StillInUse.as_str()) => deleted.kept += 1,
                Some(leftover) => {
                    let reason = leftover.reason.as_deref().and_then(|reason| reason.parse().ok()).unwrap_or(Reason::Progressing);
                    let unknown = "whether another resource of the namespace wants the same attachments cannot be told yet";
                    deleted.failed.get_or_insert(Failure::new(reason, leftover.message.as_deref().unwrap_or(unknown)));
                }
            }
        }
        Deleted { requests: session.requests(), ..deleted }
    }
}

/// Removes what was made on one subject, one after the other, since they may share a fallback tag.
async fn clear(
    session: &Session,
    subject: &Digest,
    made: &BTreeSet<Digest>,
    claims: &impl Claims,
    deadline: Instant,
) -> Vec<Option<Leftover>> {
    let subject = Descriptor::plain("", subject.clone(), 0);
    let mut left = Vec::new();
    for attachment in made {
        let removal = remove::remove(session, &subject, attachment, claims);
        let (removed, _) = timeout_at(deadline, removal).await.unwrap_or_else(|_| {
            let failure = Failure::new(Reason::RegistryUnavailable, "the registry did not answer within spec.timeout");
            remove::left(&subject, attachment, &failure)
        });
        left.push(match removed {
            Removed::Gone => None,
            Removed::Left(leftover) => Some(leftover),
        });
    }
    left
}
