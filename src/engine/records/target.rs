//! The record of one target: an entry of `status.targets`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{
    Origin, Reason, SignatureFormat, TargetKind, TargetState, TargetStatus, truncate_message,
};
use crate::attachment::{Created, Entry, EntryKind, Existing, FutureMark, LastApplied};
use crate::engine::failure::Failure;
use affix_registry::oci::{Digest, DigestError, cut};

use super::format::{FormatRecord, combined};
use super::owned::Owned;
use super::slot::Slot;

/// Maximum number of further platforms of one digest in status.
const MAX_OTHER_PLATFORMS: usize = 16;

/// One manifest of the image, with the result of the pass for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct TargetRecord {
    pub(in crate::engine) kind: TargetKind,
    /// The platform as text, cut to the length that status holds.
    pub(in crate::engine) platform: Option<String>,
    pub(in crate::engine) other_platforms: Vec<String>,
    pub(in crate::engine) digest: Digest,
    pub(in crate::engine) state: TargetState,
    pub(in crate::engine) reason: Option<Reason>,
    pub(in crate::engine) message: Option<String>,
    /// The attachment that was pushed, adopted or is about to be pushed.
    pub(in crate::engine) attachment: Option<Digest>,
    pub(in crate::engine) origin: Option<Origin>,
    pub(in crate::engine) created: Option<Created>,
    /// The hash of the content of the attachment.
    pub(in crate::engine) content: Option<Digest>,
    /// The generation of the spec that outranked a newer foreign mark on this target.
    pub(in crate::engine) superseded_for: Option<i64>,
    /// The earliest time at which a foreign mark on this target begins to count.
    pub(in crate::engine) future_mark: Option<Created>,
    /// The attachments of a target with several, in order. The fields of the target repeat the attachment of the first one and the
    /// state of all. Empty for an attachment that is one referrer.
    pub(in crate::engine) formats: Vec<FormatRecord>,
}

impl TargetRecord {
    /// Returns the record of an entry before any work on it.
    pub(in crate::engine) fn pending(entry: &Entry) -> Self {
        Self {
            kind: match entry.kind {
                EntryKind::Index | EntryKind::Unreadable(_) => TargetKind::Index,
                EntryKind::Platform(_) | EntryKind::Attestation | EntryKind::Unsupported => {
                    TargetKind::Platform
                }
            },
            platform: entry.platform().map(|platform| cut(&platform)),
            other_platforms: entry
                .platforms()
                .skip(1)
                .take(MAX_OTHER_PLATFORMS)
                .map(|platform| cut(&platform.to_string()))
                .collect(),
            digest: entry.subject.digest.clone(),
            state: TargetState::Pending,
            reason: None,
            message: None,
            attachment: None,
            origin: None,
            created: None,
            content: None,
            superseded_for: None,
            future_mark: None,
            formats: Vec::new(),
        }
    }

    /// Returns the record of an entry that is not a target.
    pub(in crate::engine) fn skipped(entry: &Entry, reason: Reason) -> Self {
        Self {
            state: TargetState::Skipped,
            reason: Some(reason),
            ..Self::pending(entry)
        }
    }

    /// Copies the data about the attachments in `slots` from the previous pass, which stay valid however this pass ends.
    pub(in crate::engine) fn with_slots(mut self, slots: &[Slot], previous: Option<&Self>) -> Self {
        let before = |slot: &Slot| {
            let before = previous.and_then(|previous| previous.in_slot(slot));
            before.map_or_else(
                || FormatRecord::new(slot.clone()),
                |before| FormatRecord {
                    state: TargetState::Pending,
                    reason: None,
                    message: None,
                    ..before
                },
            )
        };
        self.superseded_for = previous.and_then(|previous| previous.superseded_for);
        if slots == [Slot::Referrer] {
            self.change(&Slot::Referrer, |record| {
                *record = before(&Slot::Referrer);
            });
        } else {
            self.formats = slots.iter().map(before).collect();
            self.combine();
        }
        self
    }

    /// Returns the attachment in a slot, with its state.
    pub(in crate::engine) fn in_slot(&self, slot: &Slot) -> Option<FormatRecord> {
        if let Some(record) = self.formats.iter().find(|record| record.slot == *slot) {
            return Some(record.clone());
        }
        (self.formats.is_empty() && *slot == Slot::Referrer).then(|| self.shown())
    }

    /// Returns the slots of the target.
    pub(in crate::engine) fn slots(&self) -> Vec<Slot> {
        match self.formats.is_empty() {
            true => vec![Slot::Referrer],
            false => self.formats.iter().map(|of| of.slot.clone()).collect(),
        }
    }

    /// Returns the attachment and the state that the target itself shows.
    fn shown(&self) -> FormatRecord {
        FormatRecord {
            state: self.state,
            reason: self.reason,
            message: self.message.clone(),
            attachment: self.attachment.clone(),
            origin: self.origin,
            created: self.created,
            content: self.content.clone(),
            ..FormatRecord::new(Slot::Referrer)
        }
    }

    /// Changes the attachment in a slot, or its state.
    pub(in crate::engine) fn change(
        &mut self,
        slot: &Slot,
        change: impl FnOnce(&mut FormatRecord),
    ) {
        let Some(mut changed) = self.in_slot(slot) else {
            return;
        };
        change(&mut changed);
        match self.formats.iter_mut().find(|record| record.slot == *slot) {
            Some(record) => {
                *record = changed;
                self.combine();
            }
            None => self.show(changed),
        }
    }

    /// Shows an attachment and its state as those of the target.
    fn show(&mut self, record: FormatRecord) {
        self.state = record.state;
        self.reason = record.reason;
        self.message = record.message;
        self.attachment = record.attachment;
        self.origin = record.origin;
        self.created = record.created;
        self.content = record.content;
    }

    /// Sets the fields of the target from its attachments.
    fn combine(&mut self) {
        if let Some(record) = combined(&self.formats) {
            self.show(record);
        }
    }

    /// Sets the state to failed. The data about the attachment stay.
    pub(in crate::engine) fn fail(&mut self, failure: &Failure) {
        for slot in self.slots() {
            self.fail_in(&slot, failure);
        }
    }

    /// Sets the state of one attachment to failed.
    pub(in crate::engine) fn fail_in(&mut self, slot: &Slot, failure: &Failure) {
        self.change(slot, |record| {
            record.state = TargetState::Failed;
            record.reason = Some(failure.problem.reason);
            record.message = Some(truncate_message(&failure.problem.message));
        });
    }

    /// Sets the state of one attachment to attached.
    pub(in crate::engine) fn attach(
        &mut self,
        slot: &Slot,
        existing: &Existing,
        made: bool,
        content: &Digest,
    ) {
        self.change(slot, |record| {
            *record = FormatRecord {
                state: TargetState::Attached,
                attachment: Some(existing.digest.clone()),
                origin: Some(if made { Origin::Made } else { Origin::Adopted }),
                created: existing.created,
                content: Some(content.clone()),
                ..FormatRecord::new(slot.clone())
            };
        });
    }

    /// Records the attachment that is about to be pushed, so that a crash does not cause a second one.
    pub(in crate::engine) fn intend(
        &mut self,
        slot: &Slot,
        attachment: &Digest,
        created: Created,
        content: &Digest,
    ) {
        self.change(slot, |record| {
            record.state = TargetState::Pending;
            record.attachment = Some(attachment.clone());
            record.origin = Some(Origin::Made);
            record.created = Some(created);
            record.content = Some(content.clone());
        });
    }

    /// Sets planned attachments to attached, although they do not exist yet.
    pub(in crate::engine) fn assume_attached(&mut self) {
        for slot in self.slots() {
            self.change(&slot, |record| {
                if record.state == TargetState::Planned {
                    record.state = TargetState::Attached;
                    record.attachment = None;
                    record.origin = None;
                }
            });
        }
    }

    /// Records the first of the marks, which are in order of time.
    pub(in crate::engine) fn note_future_marks(&mut self, marks: &[FutureMark]) {
        self.future_mark = marks.first().map(|mark| mark.created);
    }

    /// Sets the state of every slot to pending, without an attachment.
    pub(in crate::engine) fn clear_attachment(&mut self) {
        for slot in self.slots() {
            self.change(&slot, |record| *record = FormatRecord::new(slot.clone()));
        }
    }

    /// Returns whether the manifest is one of the targets.
    pub(in crate::engine) fn is_selected(&self) -> bool {
        self.state != TargetState::Skipped
    }

    /// Returns whether nothing is left to do for the manifest.
    pub(in crate::engine) const fn is_done(&self) -> bool {
        matches!(self.state, TargetState::Attached | TargetState::Skipped)
    }

    /// Returns whether the manifest is not marked since an image in use contains it.
    pub(in crate::engine) fn is_in_use(&self) -> bool {
        self.reason == Some(Reason::StillInUse)
    }

    /// Returns whether this resource owns `attachment` by this record.
    pub(in crate::engine) fn owns(&self, owned: &Owned) -> bool {
        self.owned().any(|own| own == *owned)
    }

    /// Returns whether one of the attachments is `attachment`.
    pub(in crate::engine) fn shows(&self, attachment: &Digest) -> bool {
        let mut formats = self.formats.iter().map(|of| &of.attachment);
        self.attachment.as_ref() == Some(attachment)
            || formats.any(|of| of.as_ref() == Some(attachment))
    }

    /// Returns whether a referrer is attached.
    pub(in crate::engine) fn has_referrer(&self) -> bool {
        let attached = self
            .slots()
            .into_iter()
            .filter_map(|slot| self.in_slot(&slot));
        attached.into_iter().any(|of| {
            of.slot.format() == SignatureFormat::Bundle && of.state == TargetState::Attached
        })
    }

    /// Returns the attachments that this resource made.
    pub(in crate::engine) fn owned(&self) -> impl Iterator<Item = Owned> {
        let slots = self.slots().into_iter();
        slots.filter_map(|slot| self.in_slot(&slot)?.owned())
    }

    /// Returns the cause for which the target has no attachment.
    pub(in crate::engine) fn cause(&self) -> Reason {
        match self.state {
            TargetState::Failed => self.reason.unwrap_or(Reason::RegistryUnavailable),
            _ => Reason::Progressing,
        }
    }

    /// Returns the name of the target in messages.
    pub(in crate::engine) fn name(&self) -> String {
        match (&self.platform, self.kind) {
            (Some(platform), _) => platform.clone(),
            (None, TargetKind::Index) => "index".to_owned(),
            (None, TargetKind::Platform) => self.digest.to_string(),
        }
    }

    /// Returns the message, or an empty text.
    pub(in crate::engine) fn text(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }

    /// Returns the data that the plan needs about the last attachment in a slot. `generation` is that of the spec.
    pub(in crate::engine) fn last_applied(&self, slot: &Slot, generation: i64) -> LastApplied {
        let superseded = self.superseded_for == Some(generation);
        match self.in_slot(slot) {
            Some(record) => LastApplied {
                content: record.content,
                created: record.created,
                attachment: record.attachment,
                made: record.origin == Some(Origin::Made),
                superseded,
            },
            None => LastApplied {
                superseded,
                ..LastApplied::default()
            },
        }
    }
}

impl TryFrom<&TargetStatus> for TargetRecord {
    type Error = DigestError;

    /// Parses an entry of status. A field that cannot be parsed is dropped, so that the next pass reads the registry again.
    fn try_from(status: &TargetStatus) -> Result<Self, DigestError> {
        let digest = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
        let instant = |time: &Option<Time>| time.as_ref().map(|time| Created::at(time.0));
        let record = Self {
            kind: status.kind,
            platform: status.platform.clone(),
            other_platforms: status.other_platforms.clone(),
            digest: status.digest.parse()?,
            state: status.state,
            reason: status
                .reason
                .as_ref()
                .and_then(|reason| reason.parse().ok()),
            message: status.message.clone(),
            attachment: digest(&status.attachment),
            origin: status.origin,
            created: instant(&status.created),
            content: digest(&status.content),
            superseded_for: status.superseded_for,
            future_mark: instant(&status.future_mark),
            formats: Vec::new(),
        };
        let formats = status.formats.iter().enumerate();
        let formats = formats.map(|(nth, format)| match nth {
            0 => FormatRecord {
                slot: FormatRecord::slot_of(format),
                state: format.state,
                ..record.shown()
            },
            _ => format.into(),
        });
        Ok(Self {
            formats: formats.collect(),
            ..record
        })
    }
}

impl From<&TargetRecord> for TargetStatus {
    fn from(record: &TargetRecord) -> Self {
        let text = |digest: &Option<Digest>| digest.as_ref().map(ToString::to_string);
        let time = |created: Option<Created>| created.map(|created| Time(created.instant()));
        Self {
            kind: record.kind,
            platform: record.platform.clone(),
            other_platforms: record.other_platforms.clone(),
            digest: record.digest.to_string(),
            state: record.state,
            reason: record.reason.map(|reason| reason.as_str().to_owned()),
            message: record.message.clone(),
            attachment: text(&record.attachment),
            origin: record.origin,
            created: time(record.created),
            content: text(&record.content),
            superseded_for: record.superseded_for,
            future_mark: time(record.future_mark),
            formats: record
                .formats
                .iter()
                .enumerate()
                .map(|(nth, format)| format.status(&record.digest, nth == 0))
                .collect(),
        }
    }
}
