//! What a resource's status remembers of earlier passes, read back into types.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ConditionType, ImageAttachmentStatus, ImageStatus, Leftover, Origin, Reason, Superseded,
    TargetKind, TargetState, TargetStatus, find_condition,
};
use crate::attachment::supersession::{self, Supersession};
use crate::attachment::{Created, Desired, Entry, EntryKind, Intent, Known};
use crate::signing::Signer;
use affix_registry::oci::{Descriptor, Digest, Reference, Tag};

use super::signatures::is_due;

/// Status as the engine uses it. What cannot be read back is as good as absent: then affix looks again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// The digest that the reference was resolved to.
    pub image: Option<Digest>,
    /// Where the tag that the spec follows was seen last; `None` where it was not followed before.
    pub followed: Option<Digest>,
    /// The targets of the last pass.
    pub rows: Vec<TargetStatus>,
    /// Attachments that this resource made and does not want any more.
    pub leftovers: Vec<Leftover>,
    /// The moves of the tag.
    pub superseded: Vec<Superseded>,
    /// The generation of the spec that is worked on.
    pub generation: i64,
    /// Whether the rows speak of it.
    pub current: bool,
    /// Whether the last pass ended well, so that the rows are whole.
    pub ready: bool,
    /// The tag beside the digest of the spec, and the other digest that it was seen to name.
    pub tag_drift: Option<(Tag, Digest)>,
}

impl Memory {
    /// Reads the status of a resource of `generation` whose spec names `reference`. What status says of another repository is
    /// forgotten: the same digests there may be somebody else's copies, and what is on them is not this resource's to remove. The
    /// moves of another tag are forgotten too: a reference that was edited has not moved.
    #[must_use]
    pub fn of(
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
        let image: Option<Digest> = status
            .image
            .as_ref()
            .and_then(|image| image.digest.parse().ok());
        let tag = status.image.as_ref().and_then(|image| image.tag.as_deref());
        let same_tag = tag.is_some() && tag == reference.followed().map(Tag::as_str);
        Self {
            followed: image.clone().filter(|_| same_tag),
            image,
            rows: status.targets.clone(),
            leftovers: status.leftovers.clone(),
            superseded: if same_tag {
                status.superseded.clone()
            } else {
                Vec::new()
            },
            generation,
            current: status.observed_generation == generation,
            ready: find_condition(&status.conditions, ConditionType::Ready)
                .is_some_and(|ready| ready.status == "True"),
            tag_drift: status
                .image
                .as_ref()
                .and_then(|image| image.tag_drift.as_ref())
                .and_then(|drift| Some((drift.tag.parse().ok()?, drift.digest.parse().ok()?))),
        }
    }

    /// What is known of one subject.
    #[must_use]
    pub fn known(&self, subject: &Digest) -> Known {
        let Some(row) = self.row(subject) else {
            return Known::default();
        };
        Known {
            content: row
                .content
                .as_ref()
                .and_then(|content| content.parse().ok()),
            created: row.created.as_ref().map(|created| Created::at(created.0)),
            attachment: row
                .attachment
                .as_ref()
                .and_then(|attachment| attachment.parse().ok()),
            made: row.origin == Some(Origin::Made),
            superseded: row.superseded_for == Some(self.generation),
        }
    }

    /// The row of one subject.
    #[must_use]
    pub fn row(&self, subject: &Digest) -> Option<&TargetStatus> {
        let text = subject.to_string();
        self.rows.iter().find(|row| row.digest == text)
    }

    /// The digests of what this resource made on one subject.
    #[must_use]
    pub fn ours(&self, subject: &Digest) -> BTreeSet<Digest> {
        self.made().remove(subject).unwrap_or_default()
    }

    /// What this resource made, by subject.
    #[must_use]
    pub fn made(&self) -> BTreeMap<Digest, BTreeSet<Digest>> {
        let mut made: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        let rows = self
            .rows
            .iter()
            .filter(|row| row.origin == Some(Origin::Made))
            .filter_map(|row| Some((&row.digest, row.attachment.as_ref()?)));
        let leftovers = self
            .leftovers
            .iter()
            .map(|leftover| (&leftover.subject, &leftover.attachment));
        for (subject, attachment) in rows.chain(leftovers) {
            if let (Ok(subject), Ok(attachment)) = (subject.parse(), attachment.parse()) {
                made.entry(subject).or_default().insert(attachment);
            }
        }
        made
    }

    /// Whether the last pass did all that was to be done.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let reasons = self.leftovers.iter().map(|leftover| {
            leftover
                .reason
                .as_deref()
                .and_then(|reason| reason.parse().ok())
        });
        let waiting = reasons
            .into_iter()
            .any(|reason| reason.is_none_or(Reason::is_hurried));
        self.current && self.ready && self.image.is_some() && !waiting
    }

    /// Whether every target of the last pass has what `intent` wants at `now`, so that a look at the digest is enough. `signer` is
    /// what signs, where the resource signs.
    #[must_use]
    pub fn is_settled(&self, intent: &Intent, signer: Option<&dyn Signer>, now: Timestamp) -> bool {
        let signature = signer.map(|signer| (signer.fingerprint().to_string(), signer));
        self.is_whole()
            && self.rows.iter().all(|row| match row.state {
                TargetState::Skipped => true,
                TargetState::Attached => match (&intent.desired, &signature) {
                    (Desired::Signature { .. }, Some((wanted, signer))) => {
                        let created = row.created.as_ref().map(|created| Created::at(created.0));
                        row.content.as_ref() == Some(wanted) && !is_due(*signer, created, now)
                    }
                    (desired, _) => has_what_is_wanted(desired, row),
                },
                TargetState::Pending | TargetState::Planned | TargetState::Failed => false,
            })
            && match &intent.desired {
                Desired::WhenSuperseded(wanted) => self.moves_are_done(wanted, now),
                Desired::Content { .. } | Desired::Signature { .. } => true,
            }
            // A mark of the future that counts by now may outrank ours.
            && self.rows.iter().all(|row| row.future_mark.as_ref().is_none_or(|mark| mark.0 > now))
    }

    /// Whether every move that has settled is done, and every digest that the spec names is known.
    fn moves_are_done(&self, wanted: &Supersession, now: Timestamp) -> bool {
        let known = |digest: &Digest| {
            self.followed.as_ref() == Some(digest)
                || self
                    .superseded
                    .iter()
                    .any(|left| left.digest == digest.to_string())
        };
        wanted.previous.iter().all(known)
            && self.superseded.iter().all(|left| {
                supersession::is_done(left) || !supersession::is_settled(left, wanted.settle, now)
            })
    }
}

/// Whether what a row says is attached is what the spec wants there. Marks of moves keep the date that was fixed for them.
fn has_what_is_wanted(desired: &Desired, row: &TargetStatus) -> bool {
    match desired {
        Desired::Content { content, .. } => entry(row).is_some_and(|entry| {
            let wanted = content
                .for_target(&entry)
                .ok()
                .map(|content| content.hash().to_string());
            wanted.is_some() && wanted == row.content
        }),
        Desired::WhenSuperseded(_) => true,
        // Without its key nobody can tell.
        Desired::Signature { .. } => false,
    }
}

/// The entry that a row was made from, as far as the choice of files needs it.
fn entry(row: &TargetStatus) -> Option<Entry> {
    let kind = match row.kind {
        TargetKind::Index => EntryKind::Index,
        TargetKind::Platform => EntryKind::Platform(
            row.platform
                .iter()
                .chain(&row.other_platforms)
                .filter_map(|text| text.parse().ok())
                .collect(),
        ),
    };
    Some(Entry {
        subject: Descriptor::plain("", row.digest.parse().ok()?, 0),
        kind,
    })
}
