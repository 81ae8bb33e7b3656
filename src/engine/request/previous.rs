//! The state of the previous pass, parsed from status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ConditionType, ImageAttachmentStatus, ImageStatus, SignatureFormat, Superseded, TagDrift,
    TargetKind, TargetState, find_condition,
};
use crate::attachment::supersession::{self, Supersession};
use crate::attachment::{
    Desired, EndOfLifeDate, Entry, EntryKind, Intent, LastApplied, Statements, predicate_for,
};
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::owned::Owned;
use crate::engine::records::slot::Slot;
use crate::engine::records::table::{parse_leftovers, parse_targets};
use crate::engine::records::target::TargetRecord;
use crate::signing::{Predicate, Signer};
use affix_registry::oci::{Descriptor, Digest, Reference, Tag};

use super::signing_key::{contents, needs_renewal, stating};

/// The state of the previous pass. A value that cannot be parsed is dropped, so that the pass reads the registry again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PreviousState {
    /// The digest that the reference was resolved to.
    pub(in crate::engine) image: Option<Digest>,
    /// The digest that the followed tag named last; `None` if the tag was not followed before.
    pub(in crate::engine) followed: Option<Digest>,
    /// The drift of the tag beside the digest in `spec.image`.
    pub(in crate::engine) tag_drift: Option<TagDrift>,
    pub(in crate::engine) targets: Vec<TargetRecord>,
    /// Attachments that this resource owns and no longer wants.
    pub(in crate::engine) leftovers: Vec<LeftoverRecord>,
    /// The moves of the tag.
    pub(in crate::engine) superseded: Vec<Superseded>,
    /// The generation of the spec of this pass.
    pub(in crate::engine) generation: i64,
    /// True if status describes that generation.
    pub(in crate::engine) is_current: bool,
    /// True if the previous pass ended Ready, so that the targets are complete.
    pub(in crate::engine) is_ready: bool,
}

impl PreviousState {
    /// Parses the status of a resource of `generation` whose spec names `reference`.
    ///
    /// Status about another repository is dropped: equal digests there may be copies of another owner, which this resource must not
    /// remove. Moves of another tag are dropped too, since an edited reference is not a move.
    #[must_use]
    pub fn from_status(
        status: Option<&ImageAttachmentStatus>,
        generation: i64,
        reference: &Reference,
    ) -> Self {
        let of_another = |image: &ImageStatus| {
            image
                .reference
                .parse::<Reference>()
                .is_ok_and(|seen| seen.name() != reference.name())
        };
        let Some(status) = status.filter(|status| !status.image.as_ref().is_some_and(of_another))
        else {
            return Self {
                generation,
                ..Self::default()
            };
        };
        let image = status.image.as_ref();
        let digest: Option<Digest> = image.and_then(|image| image.digest.parse().ok());
        let tag = image.and_then(|image| image.tag.as_deref());
        let same_tag = tag.is_some() && tag == reference.followed().map(Tag::as_str);
        let drift = image.and_then(|image| image.tag_drift.clone());
        Self {
            followed: digest.clone().filter(|_| same_tag),
            image: digest,
            tag_drift: drift.filter(|drift| is_drift_of(reference, drift)),
            targets: parse_targets(&status.targets),
            leftovers: parse_leftovers(&status.leftovers),
            superseded: if same_tag {
                status.superseded.clone()
            } else {
                Vec::new()
            },
            generation,
            is_current: status.observed_generation == generation,
            is_ready: find_condition(&status.conditions, ConditionType::Ready)
                .is_some_and(|ready| ready.status == "True"),
        }
    }

    /// Returns the last applied state of one subject in a slot.
    pub(in crate::engine) fn last_applied(&self, subject: &Digest, slot: &Slot) -> LastApplied {
        self.target(subject)
            .map(|target| target.last_applied(slot, self.generation))
            .unwrap_or_default()
    }

    /// Returns the record of one subject.
    pub(in crate::engine) fn target(&self, subject: &Digest) -> Option<&TargetRecord> {
        self.targets.iter().find(|target| target.digest == *subject)
    }

    /// Returns the referrers that this resource owns on one subject.
    pub(in crate::engine) fn owned_on(&self, subject: &Digest) -> BTreeSet<Digest> {
        self.owned_in(subject, SignatureFormat::Bundle)
    }

    /// Returns the attachments in a format that this resource owns on one subject.
    pub(in crate::engine) fn owned_in(
        &self,
        subject: &Digest,
        format: SignatureFormat,
    ) -> BTreeSet<Digest> {
        let targets = self.targets.iter().filter(|of| of.digest == *subject);
        let leftovers = self.leftovers.iter().filter(|of| of.subject == *subject);
        targets
            .flat_map(TargetRecord::owned)
            .chain(leftovers.map(LeftoverRecord::owned))
            .filter(|owned| owned.format == format)
            .map(|owned| owned.attachment)
            .collect()
    }

    /// Returns the attachments that this resource owns, by subject.
    pub(in crate::engine) fn owned(&self) -> BTreeMap<Digest, BTreeSet<Owned>> {
        let mut owned: BTreeMap<Digest, BTreeSet<Owned>> = BTreeMap::new();
        let targets = self
            .targets
            .iter()
            .flat_map(|target| target.owned().map(|owned| (&target.digest, owned)));
        let leftovers = self
            .leftovers
            .iter()
            .map(|leftover| (&leftover.subject, leftover.owned()));
        for (subject, attachment) in targets.chain(leftovers) {
            owned.entry(subject.clone()).or_default().insert(attachment);
        }
        owned
    }

    /// Returns whether the previous pass left no work.
    pub(in crate::engine) fn is_complete(&self) -> bool {
        let has_work = self
            .leftovers
            .iter()
            .any(|leftover| leftover.reason.is_none_or(crate::api::Reason::is_hurried));
        self.is_current && self.is_ready && self.image.is_some() && !has_work
    }

    /// Returns whether every target has the attachment that `intent` wants at `now`, so that a comparison of the image's digest is
    /// enough. `signer` is the signer of a resource that signs, and `predicates` are those of the spec.
    pub(in crate::engine) fn is_settled(
        &self,
        intent: &Intent,
        predicates: &[Predicate],
        signer: Option<&dyn Signer>,
        now: Timestamp,
    ) -> bool {
        let signatures = signer.map(|signer| (contents(&intent.desired, signer), signer));
        let is_attached = |target: &TargetRecord| match (&intent.desired, &signatures) {
            (Desired::Signature { .. }, Some((contents, signer))) => {
                contents.iter().all(|(format, content)| {
                    target.in_slot(&Slot::of(*format)).is_some_and(|record| {
                        record.content.as_ref() == Some(content)
                            && !needs_renewal(*signer, record.created, now)
                    })
                })
            }
            (Desired::Attestation { statements, .. }, Some((_, signer))) => {
                has_statements(statements, predicates, *signer, target)
            }
            (desired, _) => {
                has_desired_content(desired, target)
                    && (!intent.statement
                        || signer.is_some_and(|signer| {
                            self.has_lifecycle_statement(desired, target, signer)
                        }))
            }
        };
        self.is_complete()
            && self.targets.iter().all(|target| match target.state {
                TargetState::Skipped => true,
                TargetState::Attached => is_attached(target),
                TargetState::Pending | TargetState::Planned | TargetState::Failed => false,
            })
            // A future mark that counts at `now` may outrank the mark of this resource.
            && self.targets.iter().all(|target| target.future_mark.is_none_or(|mark| mark.instant() > now))
            && match &intent.desired {
                Desired::WhenSuperseded(wanted) => self.has_no_open_move(wanted, now),
                Desired::Signature { overlap, .. } => {
                    let mut ends = self
                        .leftovers
                        .iter()
                        .filter_map(|leftover| leftover.overlap_end(&self.targets, *overlap));
                    ends.all(|end| end > now)
                }
                Desired::Content { .. } | Desired::Attestation { .. } => true,
            }
    }

    /// Returns whether the statement of a target is by `signer`, with a date that its mark can have.
    fn has_lifecycle_statement(
        &self,
        desired: &Desired,
        target: &TargetRecord,
        signer: &dyn Signer,
    ) -> bool {
        let Some(content) = target
            .in_slot(&Slot::lifecycle())
            .and_then(|record| record.content)
        else {
            return false;
        };
        let dates: Vec<EndOfLifeDate> = match desired {
            Desired::Content { mark, .. } => mark.iter().map(|keys| keys.date.clone()).collect(),
            Desired::WhenSuperseded(_) => {
                let dates = self
                    .superseded
                    .iter()
                    .filter_map(|image| image.date.as_ref());
                dates.filter_map(|date| date.parse().ok()).collect()
            }
            Desired::Signature { .. } | Desired::Attestation { .. } => Vec::new(),
        };
        let states = |date: &EndOfLifeDate| {
            stating(signer, date, target.created)
                .is_some_and(|signer| signer.fingerprint() == content)
        };
        dates.iter().any(states)
    }

    /// Returns whether every settled move is done and every digest in the spec has a move.
    fn has_no_open_move(&self, wanted: &Supersession, now: Timestamp) -> bool {
        let is_known = |digest: &Digest| {
            self.followed.as_ref() == Some(digest)
                || self
                    .superseded
                    .iter()
                    .any(|image| image.digest == digest.to_string())
        };
        wanted.previous.iter().all(is_known)
            && self.superseded.iter().all(|image| {
                supersession::is_done(image) || !supersession::is_settled(image, wanted.settle, now)
            })
    }
}

/// Returns whether `drift` is about the tag of `reference` and another digest than the one beside it.
fn is_drift_of(reference: &Reference, drift: &TagDrift) -> bool {
    reference
        .tag
        .as_ref()
        .is_some_and(|tag| tag.as_str() == drift.tag)
        && reference
            .digest
            .as_ref()
            .is_some_and(|digest| digest.to_string() != drift.digest)
}

/// Returns whether the attachment of a target has the desired content. Marks of moves keep the date that was fixed for them.
fn has_desired_content(desired: &Desired, target: &TargetRecord) -> bool {
    match desired {
        Desired::Content { content, .. } => {
            let wanted = content
                .for_target(&entry_of(target))
                .ok()
                .map(|content| content.hash());
            wanted.is_some() && wanted == target.content
        }
        Desired::WhenSuperseded(_) => true,
        // The content of a signature depends on its key.
        Desired::Signature { .. } | Desired::Attestation { .. } => false,
    }
}

/// Returns whether a target has its statements by this signer. The statements of the build are those that status has.
fn has_statements(
    statements: &Statements,
    predicates: &[Predicate],
    signer: &dyn Signer,
    target: &TargetRecord,
) -> bool {
    match statements {
        Statements::Given {
            predicates: given, ..
        } => {
            let wanted = predicate_for(given, &entry_of(target)).ok();
            let wanted = wanted.and_then(|nth| predicates.get(nth));
            let content = wanted.and_then(|wanted| Some(signer.stating(wanted)?.fingerprint()));
            content.is_some() && content == target.content
        }
        Statements::Build(_) => known_statements(target, signer).is_some(),
    }
}

/// Returns a signer for each statement of the build that is attached to a target, if this key signed all of them.
pub(in crate::engine) fn known_statements(
    target: &TargetRecord,
    signer: &dyn Signer,
) -> Option<Vec<Arc<dyn Signer>>> {
    let known = target.formats.iter().map(|of| {
        let Slot::Statement {
            predicate_type,
            predicate: Some(hash),
        } = &of.slot
        else {
            return None;
        };
        let predicate = Predicate::known(predicate_type.clone(), hash.clone());
        let signer = signer.stating(&predicate)?;
        (of.state == TargetState::Attached && of.content == Some(signer.fingerprint()))
            .then_some(signer)
    });
    let known: Option<Vec<_>> = known.collect();
    known.filter(|known| !known.is_empty())
}

/// Returns the entry of a target, as far as the choice of files needs it.
fn entry_of(target: &TargetRecord) -> Entry {
    let kind = match target.kind {
        TargetKind::Index => EntryKind::Index,
        TargetKind::Platform => EntryKind::Platform(
            target
                .platform
                .iter()
                .chain(&target.other_platforms)
                .filter_map(|text| text.parse().ok())
                .collect(),
        ),
    };
    Entry {
        subject: Descriptor::plain("", target.digest.clone(), 0),
        kind,
    }
}
