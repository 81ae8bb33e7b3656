//! The record of an attachment that this resource owns and no longer wants: an entry of `status.leftovers`.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::{Leftover, Reason, SignatureFormat};
use crate::attachment::overlap_end;
use affix_registry::oci::{Digest, DigestError};

use super::owned::Owned;
use super::slot::Slot;
use super::target::TargetRecord;

/// An attachment of this resource that is not wanted anymore and not removed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct LeftoverRecord {
    /// The digest of the manifest that it is attached to.
    pub(in crate::engine) subject: Digest,
    /// The digest of its own manifest, or the identity of a signature in the signature tag.
    pub(in crate::engine) attachment: Digest,
    pub(in crate::engine) format: SignatureFormat,
    /// The cause for which it is still there; `None` for a reason that this version does not know.
    pub(in crate::engine) reason: Option<Reason>,
    pub(in crate::engine) message: Option<String>,
}

impl LeftoverRecord {
    pub(in crate::engine) fn new(subject: &Digest, attachment: &Digest, reason: Reason) -> Self {
        Self {
            subject: subject.clone(),
            attachment: attachment.clone(),
            format: SignatureFormat::Bundle,
            reason: Some(reason),
            message: None,
        }
    }

    /// Returns the record of an attachment in any format.
    pub(in crate::engine) fn of(subject: &Digest, owned: &Owned, reason: Reason) -> Self {
        Self {
            format: owned.format,
            ..Self::new(subject, &owned.attachment, reason)
        }
    }

    pub(in crate::engine) fn owned(&self) -> Owned {
        Owned {
            attachment: self.attachment.clone(),
            format: self.format,
        }
    }

    pub(in crate::engine) fn with_message(self, message: String) -> Self {
        Self {
            message: Some(message),
            ..self
        }
    }

    /// Returns the reason; an unknown one counts as work in progress.
    pub(in crate::engine) fn known_reason(&self) -> Reason {
        self.reason.unwrap_or(Reason::Progressing)
    }

    /// Returns whether the removal is work that the next passes retry.
    pub(in crate::engine) fn is_pending(&self) -> bool {
        self.known_reason().is_hurried()
    }

    /// Returns whether the registry refuses the removal.
    pub(in crate::engine) fn is_refused(&self) -> bool {
        !self.is_pending()
            && !matches!(
                self.known_reason(),
                Reason::TagMoved | Reason::StillInUse | Reason::Planned | Reason::Overlap
            )
    }

    /// Returns the time until which a previous signature stays; `None` for other leftovers. The overlap counts from the time of the
    /// signature in `targets`.
    pub(in crate::engine) fn overlap_end(
        &self,
        targets: &[TargetRecord],
        overlap: Duration,
    ) -> Option<Timestamp> {
        let target = targets
            .iter()
            .find(|target| target.digest == self.subject)
            .filter(|_| self.reason == Some(Reason::Overlap))?;
        overlap_end(target.in_slot(&Slot::of(self.format))?.created, overlap)
    }

    /// Returns whether it stays on an image that the tag has left.
    pub(in crate::engine) fn is_retained(&self) -> bool {
        self.reason == Some(Reason::TagMoved)
    }
}

impl TryFrom<&Leftover> for LeftoverRecord {
    type Error = DigestError;

    fn try_from(leftover: &Leftover) -> Result<Self, DigestError> {
        Ok(Self {
            subject: leftover.subject.parse()?,
            attachment: leftover.attachment.parse()?,
            format: leftover.format.unwrap_or(SignatureFormat::Bundle),
            reason: leftover
                .reason
                .as_ref()
                .and_then(|reason| reason.parse().ok()),
            message: leftover.message.clone(),
        })
    }
}

impl From<&LeftoverRecord> for Leftover {
    fn from(record: &LeftoverRecord) -> Self {
        Self {
            subject: record.subject.to_string(),
            attachment: record.attachment.to_string(),
            format: Some(record.format).filter(|format| *format == SignatureFormat::Tag),
            reason: record.reason.map(|reason| reason.as_str().to_owned()),
            message: record.message.clone(),
        }
    }
}
