//! Removing what this resource made and does not want any more; what somebody else made is never touched.

use std::future::Future;

use crate::api::{Leftover, Reason, cut};
use crate::oci::{Descriptor, Digest};
use crate::registry::{Deletion, FallbackChange, ListingSource, Session};

use super::failure::Failure;
use super::outcome::{Note, Severity};

/// Who else wants an attachment.
pub trait Claims: Send + Sync {
    /// Whether another resource wants `attachment` on `subject`: then it is not removed.
    fn is_wanted(&self, subject: &Digest, attachment: &Digest) -> impl Future<Output = bool> + Send;
}

/// Nobody else wants anything: for the command, which knows no other resources.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoClaims;

impl Claims for NoClaims {
    async fn is_wanted(&self, _: &Digest, _: &Digest) -> bool {
        false
    }
}

/// What became of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Removed {
    /// The registry does not list it any more.
    Gone,
    /// It is still listed, and why.
    Left(Leftover),
}

/// Takes one attachment away. On a fallback tag the entry goes first, since a tag that lists what is gone cannot be verified
/// by notation nor written by anybody.
pub(super) async fn remove(
    session: &Session,
    subject: &Descriptor,
    attachment: &Digest,
    source: ListingSource,
) -> (Removed, Note) {
    match take_away(session, subject, attachment, source).await {
        Ok(how) => {
            let message = format!("removed {attachment} from {}{how}", subject.digest);
            (Removed::Gone, Note { severity: Severity::Normal, reason: Reason::Removed, message })
        }
        Err(failure) => {
            let message = cut(&failure.problem.message);
            let leftover = Leftover {
                subject: subject.digest.to_string(),
                attachment: attachment.to_string(),
                reason: Some(failure.problem.reason.as_str().to_owned()),
                message: Some(message.clone()),
            };
            (Removed::Left(leftover), Note { severity: Severity::Warning, reason: failure.problem.reason, message })
        }
    }
}

async fn take_away(session: &Session, subject: &Descriptor, attachment: &Digest, source: ListingSource) -> Result<&'static str, Failure> {
    if source == ListingSource::FallbackTag {
        let change = FallbackChange { add: Vec::new(), remove: vec![attachment.clone()] };
        session.rewrite_fallback(subject, change, true).await?;
    }
    match session.delete_manifest(attachment).await? {
        Deletion::Done | Deletion::Gone => Ok(""),
        Deletion::Refused { .. } if source == ListingSource::FallbackTag => {
            Ok(": it is not listed any more; the registry does not delete manifests, so its bytes remain")
        }
        Deletion::Refused { message } => Err(Failure::new(
            Reason::RemovalRefused,
            format_args!("the registry refuses to delete {attachment} from {}: {message}", subject.digest),
        )),
    }
}
