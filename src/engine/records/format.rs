//! The record of a signature in one format: an entry of `status.targets[].formats` (docs/decisions/0091).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{FormatStatus, Origin, Reason, SignatureFormat, TargetState};
use crate::attachment::Created;
use affix_registry::oci::Digest;

use super::owned::Owned;

/// The attachment of a target in one format, with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct FormatRecord {
    pub(in crate::engine) format: SignatureFormat,
    pub(in crate::engine) state: TargetState,
    pub(in crate::engine) reason: Option<Reason>,
    pub(in crate::engine) message: Option<String>,
    /// The digest of its manifest, or the identity of a signature in the signature tag.
    pub(in crate::engine) attachment: Option<Digest>,
    pub(in crate::engine) origin: Option<Origin>,
    pub(in crate::engine) created: Option<Created>,
    pub(in crate::engine) content: Option<Digest>,
}

impl FormatRecord {
    /// Returns a record without an attachment.
    pub(in crate::engine) const fn new(format: SignatureFormat) -> Self {
        Self {
            format,
            state: TargetState::Pending,
            reason: None,
            message: None,
            attachment: None,
            origin: None,
            created: None,
            content: None,
        }
    }

    /// Returns the attachment if this resource made it.
    pub(in crate::engine) fn owned(&self) -> Option<Owned> {
        let attachment = self
            .attachment
            .clone()
            .filter(|_| self.origin == Some(Origin::Made))?;
        Some(Owned {
            attachment,
            format: self.format,
        })
    }

    /// Returns the entry of status of a signature on `subject`.
    pub(in crate::engine) fn status(&self, subject: &Digest) -> FormatStatus {
        let attachment = self.attachment.as_ref().map(Digest::to_string);
        let is_tag = self.format == SignatureFormat::Tag;
        FormatStatus {
            format: self.format,
            reference: match self.format {
                SignatureFormat::Bundle => attachment.clone(),
                SignatureFormat::Tag => Some(subject.signature_tag()),
            },
            state: self.state,
            origin: self.origin,
            attachment: attachment.filter(|_| is_tag),
            created: self
                .created
                .filter(|_| is_tag)
                .map(|created| Time(created.instant())),
            content: self
                .content
                .as_ref()
                .filter(|_| is_tag)
                .map(Digest::to_string),
        }
    }
}

impl From<&FormatStatus> for FormatRecord {
    fn from(status: &FormatStatus) -> Self {
        let digest = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
        Self {
            state: status.state,
            attachment: digest(&status.attachment),
            origin: status.origin,
            created: status.created.as_ref().map(|time| Created::at(time.0)),
            content: digest(&status.content),
            ..Self::new(status.format)
        }
    }
}

/// Returns the attachment of the first format with the state of all: failed, pending, planned or attached.
pub(in crate::engine) fn combined(formats: &[FormatRecord]) -> Option<FormatRecord> {
    let first = formats.first()?;
    let of = |state| formats.iter().find(|record| record.state == state);
    let decides = of(TargetState::Failed)
        .or_else(|| of(TargetState::Pending))
        .or_else(|| of(TargetState::Planned))
        .unwrap_or(first);
    Some(FormatRecord {
        state: decides.state,
        reason: decides.reason,
        message: decides.message.clone(),
        ..first.clone()
    })
}
