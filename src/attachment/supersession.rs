//! The images that a tag has left: the history of its moves, the end-of-life dates, and the manifests that are out of use.

mod tag_filter;

pub use tag_filter::TagFilter;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{Reason, Superseded, SupersededState};
use affix_registry::oci::{ArtifactType, Digest, ImageManifest};

use super::content::TargetContent;
use super::mark::MarkKeys;
use super::time::{Created, EndOfLifeDate};

/// The maximum number of moves in the history, which is the limit of the status field. The oldest finished ones are dropped
/// first.
pub const MAX_MOVES: usize = 64;

/// The parsed `endOfLife.whenSuperseded` of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supersession {
    /// The artifact type of the marks.
    pub artifact_type: ArtifactType,
    /// The key of the annotation that holds the date.
    pub annotation: String,
    /// The other annotations of the marks.
    pub annotations: BTreeMap<String, String>,
    /// The time from a move to the end-of-life date.
    pub grace: Duration,
    /// The time from a move to the mark.
    pub settle: Duration,
    /// The other tags that keep their images in use.
    pub unless_tagged: TagFilter,
    /// The digests that the tag named earlier, from the spec.
    pub previous: Vec<Digest>,
}

impl Supersession {
    /// Returns the mark of a date.
    #[must_use]
    pub fn mark(&self, date: &EndOfLifeDate) -> (TargetContent, MarkKeys) {
        let mut annotations = self.annotations.clone();
        annotations.insert(self.annotation.clone(), date.as_str().to_owned());
        let content = TargetContent {
            artifact_type: self.artifact_type.clone(),
            annotations,
            layers: Vec::new(),
            blobs: Vec::new(),
        };
        (
            content,
            MarkKeys {
                annotation: self.annotation.clone(),
                date: date.clone(),
            },
        )
    }

    /// Returns the time and date of the newest of `manifests` that is a mark of this resource on `subject`, with any date.
    ///
    /// Marks that are dated after `now` do not count.
    #[must_use]
    pub fn date_among<'a>(
        &self,
        subject: &Digest,
        manifests: impl IntoIterator<Item = &'a ImageManifest>,
        now: Timestamp,
    ) -> Option<(Created, EndOfLifeDate)> {
        let dated = manifests.into_iter().filter_map(|manifest| {
            let date: EndOfLifeDate = manifest.annotations.get(&self.annotation)?.parse().ok()?;
            let created =
                Created::from_manifest(manifest).filter(|created| created.instant() <= now)?;
            self.mark(&date)
                .0
                .equals(subject, manifest)
                .then_some((created, date))
        });
        dated.max_by(|(a, earlier), (b, later)| (a, earlier.instant()).cmp(&(b, later.instant())))
    }
}

/// Returns the history after the tag was observed at `current`. `before` is the previous observation.
///
/// The time of a move is the time of its observation. A digest that the tag names again is removed from the history.
#[must_use]
pub fn observe(
    history: &[Superseded],
    before: Option<&Digest>,
    current: &Digest,
    previous: &[Digest],
    now: Timestamp,
) -> Vec<Superseded> {
    let mut history: Vec<Superseded> = history
        .iter()
        .filter(|superseded| superseded.digest != current.to_string())
        .cloned()
        .collect();
    for superseded in before
        .into_iter()
        .chain(previous)
        .filter(|superseded| *superseded != current)
    {
        let digest = superseded.to_string();
        if history.iter().any(|known| known.digest == digest) {
            continue;
        }
        history.push(Superseded {
            digest,
            moved_at: Time(Created::at(now).instant()),
            date: None,
            state: SupersededState::Pending,
            tag: None,
            reason: None,
            message: None,
        });
    }
    while history.len() > MAX_MOVES {
        // A dropped digest that the spec names would count as a new move with a new date.
        let is_droppable = |superseded: &Superseded| {
            !previous
                .iter()
                .any(|named| named.to_string() == superseded.digest)
        };
        let oldest = [is_marked, is_done].into_iter().find_map(|is_finished| {
            history
                .iter()
                .position(|superseded| is_finished(superseded) && is_droppable(superseded))
        });
        history.remove(
            oldest
                .or_else(|| history.iter().position(is_droppable))
                .unwrap_or(0),
        );
    }
    history
}

/// Returns the unfinished moves of `before` that `after` dropped because the history was full. Their images stay unmarked.
pub fn forgotten<'a>(
    before: &'a [Superseded],
    after: &'a [Superseded],
    current: &Digest,
) -> impl Iterator<Item = &'a Superseded> {
    let current = current.to_string();
    before.iter().filter(move |superseded| {
        !is_marked(superseded)
            && superseded.digest != current
            && !after.iter().any(|kept| kept.digest == superseded.digest)
    })
}

/// Returns true if a move needs no more work until the tags change.
#[must_use]
pub const fn is_done(superseded: &Superseded) -> bool {
    is_marked(superseded) || matches!(superseded.state, SupersededState::StillInUse)
}

/// Returns true if a move needs no more work, even if other tags of the repository go away.
#[must_use]
pub const fn is_marked(superseded: &Superseded) -> bool {
    matches!(
        superseded.state,
        SupersededState::Attached | SupersededState::Withdrawn
    )
}

/// Returns true if a move has settled by `now`. A finished move stays settled if the spec changes to a longer wait.
#[must_use]
pub fn is_settled(superseded: &Superseded, settle: Duration, now: Timestamp) -> bool {
    is_done(superseded) || settles_at(superseded, settle) <= now
}

/// Returns the time at which a move settles.
#[must_use]
pub fn settles_at(superseded: &Superseded, settle: Duration) -> Timestamp {
    after(superseded.moved_at.0, settle)
}

fn after(instant: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| instant.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

fn fixed(superseded: &Superseded) -> Option<EndOfLifeDate> {
    superseded
        .date
        .as_ref()
        .filter(|_| superseded.state != SupersededState::Planned)
        .and_then(|date| date.parse().ok())
}

/// Returns true if the date of a move is fixed.
#[must_use]
pub fn is_dated(superseded: &Superseded) -> bool {
    fixed(superseded).is_some()
}

/// Returns the date of a move: the fixed one, or the time of the move plus the grace period. A dry run does not fix a date.
#[must_use]
pub fn date_of(superseded: &Superseded, grace: Duration) -> EndOfLifeDate {
    fixed(superseded).unwrap_or_else(|| EndOfLifeDate::at(after(superseded.moved_at.0, grace)))
}

/// The disposition of one manifest of a superseded image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Mark it with this date.
    Mark(EndOfLifeDate),
    /// Leave it, because an image in use refers to it.
    StillInUse,
}

/// Returns the date that an earlier pass gave to a move without a fixed date. `found` are the dates of the marks on the
/// manifests of its image.
///
/// A manifest that a later move left too has the date of that move, so the earliest date is the one of this move. A date after
/// `computed` is not from an earlier pass.
#[must_use]
pub fn date_found(
    found: impl IntoIterator<Item = EndOfLifeDate>,
    computed: &EndOfLifeDate,
) -> Option<EndOfLifeDate> {
    found
        .into_iter()
        .filter(|date| date.instant() <= computed.instant())
        .min_by_key(EndOfLifeDate::instant)
}

/// Returns the disposition of each manifest of the superseded images. `moves` are their dates and digests, oldest first.
///
/// A manifest of several images was in use until the last move, so that it gets the date of that move.
#[must_use]
pub fn dispositions<'a>(
    moves: impl IntoIterator<Item = (&'a EndOfLifeDate, &'a BTreeSet<Digest>)>,
    in_use: &BTreeSet<Digest>,
) -> BTreeMap<Digest, Disposition> {
    let mut dispositions = BTreeMap::new();
    for (date, digests) in moves {
        for digest in digests {
            let disposition = if in_use.contains(digest) {
                Disposition::StillInUse
            } else {
                Disposition::Mark(date.clone())
            };
            dispositions.insert(digest.clone(), disposition);
        }
    }
    dispositions
}

/// Sets the state of a move and its reason. A tag that keeps the image in use is set apart.
pub fn conclude(
    superseded: &mut Superseded,
    state: SupersededState,
    cause: Option<(Reason, &str)>,
) {
    superseded.state = state;
    superseded.tag = None;
    superseded.reason = cause.map(|(reason, _)| reason.as_str().to_owned());
    superseded.message = cause.map(|(_, message)| crate::api::truncate_message(message));
}

#[cfg(test)]
mod tests;
