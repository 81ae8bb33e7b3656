//! The record of one of several attachments of a target: an entry of `status.targets[].formats` (docs/decisions/0091, 0120).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{FormatStatus, Origin, Reason, TargetState};
use crate::attachment::Created;
use affix_registry::oci::Digest;

use super::owned::Owned;
use super::slot::Slot;

/// One attachment of a target, with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct FormatRecord {
    pub(in crate::engine) slot: Slot,
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
    pub(in crate::engine) const fn new(slot: Slot) -> Self {
        Self {
            slot,
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
            format: self.slot.format(),
        })
    }

    /// Returns the entry of status of an attachment of `subject`. The fields of the target show the details of the first entry.
    pub(in crate::engine) fn status(&self, subject: &Digest, is_first: bool) -> FormatStatus {
        let attachment = self.attachment.as_ref().map(Digest::to_string);
        let (predicate_type, predicate) = match &self.slot {
            Slot::Statement {
                predicate_type,
                predicate,
            } => (Some(predicate_type.clone()), predicate.as_ref()),
            Slot::Referrer | Slot::Tag => (None, None),
        };
        FormatStatus {
            format: self.slot.format(),
            predicate_type,
            predicate: predicate.map(Digest::to_string),
            reference: match self.slot {
                Slot::Referrer | Slot::Statement { .. } => attachment.clone(),
                Slot::Tag => Some(subject.signature_tag()),
            },
            state: self.state,
            origin: self.origin,
            attachment: attachment.filter(|_| self.slot == Slot::Tag),
            created: self
                .created
                .filter(|_| !is_first || self.slot == Slot::Tag)
                .map(|created| Time(created.instant())),
            content: self
                .content
                .as_ref()
                .filter(|_| !is_first || self.slot == Slot::Tag)
                .map(Digest::to_string),
        }
    }

    /// Returns the slot of an entry of status.
    pub(in crate::engine) fn slot_of(status: &FormatStatus) -> Slot {
        match &status.predicate_type {
            Some(predicate_type) => Slot::Statement {
                predicate_type: predicate_type.clone(),
                predicate: digest(status.predicate.as_deref()),
            },
            None => Slot::of(status.format),
        }
    }
}

impl From<&FormatStatus> for FormatRecord {
    fn from(status: &FormatStatus) -> Self {
        Self {
            state: status.state,
            attachment: digest(status.attachment()),
            origin: status.origin,
            created: status.created.as_ref().map(|time| Created::at(time.0)),
            content: digest(status.content.as_deref()),
            ..Self::new(Self::slot_of(status))
        }
    }
}

fn digest(text: Option<&str>) -> Option<Digest> {
    text?.parse().ok()
}

/// Returns the first attachment with the state of all: failed, pending, planned or attached.
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
