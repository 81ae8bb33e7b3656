//! The end of a resource with `deletionPolicy: Delete`: what it made goes with it.
//!
//! Needs neither the image nor its files nor a signing key any more: only status, which says what was made, and a way to the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{ImageAttachmentSpec, ImageAttachmentStatus, Reason};
use crate::attachment::{Problem, parse_reference};
use affix_registry::Access;
use affix_registry::oci::{Descriptor, Digest, Reference};

use super::claims::Claims;
use super::failure::Failure;
use super::memory::Memory;
use super::pass::Engine;
use super::remove;
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
pub fn deletion(
    spec: &ImageAttachmentSpec,
    status: Option<&ImageAttachmentStatus>,
    sources: &Sources,
) -> Result<Deletion, Problem> {
    let reference = parse_reference(&spec.image)?;
    let made = Memory::of(status, 0, &reference).made();
    // Where nothing was made, a Secret that is gone holds up nobody.
    let access = if made.is_empty() {
        Access::default()
    } else {
        access(spec, sources)?
    };
    Ok(Deletion {
        reference,
        access,
        made,
        timeout: spec.timeout(),
    })
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
        let deadline = Instant::now() + self.options.bounded(deletion.timeout);
        let Deletion {
            reference, access, ..
        } = deletion;
        let session =
            match self
                .registries()
                .open(&reference.host, &reference.repository, access.clone())
            {
                Ok(session) => session.until(deadline),
                Err(error) => {
                    return Deleted {
                        failed: Some(error.into()),
                        ..Deleted::default()
                    };
                }
            };
        let on = |subject: &Digest| Descriptor::plain("", subject.clone(), 0);
        let made = deletion.made.iter().flat_map(|(subject, made)| {
            made.iter()
                .map(move |attachment| (on(subject), attachment.clone()))
        });
        let mut deleted = Deleted::default();
        for removal in remove::remove_all(&session, made.collect(), claims, deadline).await {
            match removal.left {
                None => deleted.gone += 1,
                Some(left) if left.reason.as_deref() == Some(Reason::StillInUse.as_str()) => {
                    deleted.kept += 1
                }
                Some(left) => {
                    let reason = left
                        .reason
                        .as_deref()
                        .and_then(|reason| reason.parse().ok())
                        .unwrap_or(Reason::Progressing);
                    let problem = Problem::new(reason, left.message.unwrap_or_default());
                    deleted.failed.get_or_insert(Failure {
                        problem,
                        retry_after: removal.retry_after,
                    });
                }
            }
        }
        Deleted {
            requests: session.requests(),
            ..deleted
        }
    }
}
