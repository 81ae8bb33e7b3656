//! Delete: removes the attachments of a deleted resource with `deletionPolicy: Delete`.
//!
//! It needs only status, which lists the owned attachments, and access to the registry. The image, its files and the signing key may be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{ImageAttachmentSpec, ImageAttachmentStatus, Reason};
use crate::attachment::{Problem, parse_reference};
use crate::engine::apply::remove::remove_all;
use crate::engine::claims::Claims;
use crate::engine::failure::Failure;
use crate::engine::records::owned::Owned;
use crate::engine::report::change::AttachmentChange;
use crate::engine::request::access::access;
use crate::engine::request::previous::PreviousState;
use crate::engine::request::secrets::Sources;
use affix_registry::oci::{Descriptor, Digest, Reference};
use affix_registry::{Access, Session};

/// The attachments to remove, and the access to their registry.
#[derive(Debug, Clone)]
pub struct Deletion {
    pub(in crate::engine) reference: Reference,
    pub(in crate::engine) access: Access,
    owned: BTreeMap<Digest, BTreeSet<Owned>>,
    pub(in crate::engine) timeout: Duration,
}

/// The result of a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The number of attachments that are removed or have a new owner.
    pub gone: usize,
    /// The number of attachments that stay, since a resource elsewhere has them in its status.
    pub kept: usize,
    /// Those resources, as `namespace/name`.
    pub kept_for: BTreeSet<String>,
    /// The failure to retry, with the delay that the registry asked for.
    pub failed: Option<Failure>,
    /// The attachments that were removed.
    pub changes: Vec<AttachmentChange>,
    /// The number of requests to the registry, without those for tokens.
    pub requests: u64,
}

/// Returns the deletion of the attachments in `status` that the resource owns in the repository of `spec`.
///
/// # Errors
/// `InvalidReference` and `SecretNotFound`, with the field, the value and the way out.
pub fn deletion(
    spec: &ImageAttachmentSpec,
    status: Option<&ImageAttachmentStatus>,
    sources: &Sources,
) -> Result<Deletion, Problem> {
    let reference = parse_reference(&spec.image)?;
    let owned = PreviousState::from_status(status, 0, &reference).owned();
    // A missing Secret must not block the deletion of a resource without attachments.
    let access = if owned.is_empty() {
        Access::default()
    } else {
        access(spec, [&reference.host], sources)?
    };
    Ok(Deletion {
        reference,
        access,
        owned,
        timeout: spec.timeout(),
    })
}

impl Deletion {
    /// Returns the number of attachments to remove.
    #[must_use]
    pub fn count(&self) -> usize {
        self.owned.values().map(BTreeSet::len).sum()
    }
}

/// Removes the attachments that no other resource claims.
pub(in crate::engine) async fn remove(
    session: &Session,
    deletion: &Deletion,
    claims: &impl Claims,
    deadline: Instant,
) -> Deleted {
    let on = |subject: &Digest| Descriptor::plain("", subject.clone(), 0);
    let owned = deletion.owned.iter().flat_map(|(subject, owned)| {
        owned
            .iter()
            .map(move |attachment| (on(subject), attachment.clone()))
    });
    let mut deleted = Deleted::default();
    for removal in remove_all(session, owned.collect(), claims, deadline).await {
        deleted.kept_for.extend(removal.kept_for);
        deleted.changes.extend(removal.change);
        match removal.leftover {
            None => deleted.gone += 1,
            Some(leftover) if leftover.reason == Some(Reason::StillInUse) => deleted.kept += 1,
            Some(leftover) => {
                let reason = leftover.known_reason();
                let problem = Problem::new(reason, leftover.message.unwrap_or_default());
                let retry_after = removal.retry_after;
                deleted.failed.get_or_insert(Failure {
                    problem,
                    retry_after,
                });
            }
        }
    }
    Deleted {
        requests: session.requests(),
        ..deleted
    }
}
