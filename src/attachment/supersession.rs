//! What a tag leaves behind when it moves: the history of moves, their dates, and which manifests are out of use. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{Reason, Superseded, TargetState};
use affix_registry::oci::{ArtifactType, Digest, ImageManifest, Tag};

use super::adoption::stated_created;
use super::content::TargetContent;
use super::end_of_life::EndOfLifeDate;
use super::intent::MarkKeys;
use super::time::Created;

/// How many moves are remembered, as many as status takes; the oldest finished ones are forgotten first.
pub const MOST_MOVES: usize = 64;

/// `endOfLife.whenSuperseded`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supersession {
    /// Type of the marks.
    pub artifact_type: ArtifactType,
    /// The annotation that holds the date.
    pub annotation: String,
    /// More annotations.
    pub annotations: BTreeMap<String, String>,
    /// From the move to the date.
    pub grace: Duration,
    /// From the move to the mark.
    pub settle: Duration,
    /// Which other tags keep what they reach in use.
    pub unless_tagged: TagFilter,
    /// Digests that the tag is known to have left.
    pub previous: Vec<Digest>,
}

impl Supersession {
    /// The mark of a given date.
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

    /// The date of the newest of `manifests` that are marks on `subject` as affix writes them for this resource, whatever their date. What
    /// claims to be made after `now` is none.
    #[must_use]
    pub fn date_among<'a>(
        &self,
        subject: &Digest,
        manifests: impl IntoIterator<Item = &'a ImageManifest>,
        now: Timestamp,
    ) -> Option<EndOfLifeDate> {
        let dated = manifests.into_iter().filter_map(|manifest| {
            let date: EndOfLifeDate = manifest.annotations.get(&self.annotation)?.parse().ok()?;
            let created = stated_created(manifest).filter(|created| created.instant() <= now)?;
            self.mark(&date)
                .0
                .equals(subject, manifest)
                .then_some((created, date))
        });
        dated
            .max_by(|(a, earlier), (b, later)| (a, earlier.instant()).cmp(&(b, later.instant())))
            .map(|(_, date)| date)
    }
}

/// Patterns of tags, `*` and `?` as in a shell, `!` in front for tags that do not count. The last pattern that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter(Vec<(bool, String)>);

impl TagFilter {
    /// The filter of these patterns.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let parse = |pattern: &str| {
            pattern
                .strip_prefix('!')
                .map_or_else(|| (true, pattern.to_owned()), |not| (false, not.to_owned()))
        };
        let mut patterns: Vec<(bool, String)> = patterns.into_iter().map(parse).collect();
        // Only exceptions: from every tag.
        if patterns.iter().all(|(counts, _)| !counts) && !patterns.is_empty() {
            patterns.insert(0, (true, "*".to_owned()));
        }
        Self(patterns)
    }

    /// Whether no tag counts, so that none need be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what `tag` reaches is in use. Tags that hold referrers or signatures never count.
    #[must_use]
    pub fn counts(&self, tag: &Tag) -> bool {
        !tag.is_referrers_tag()
            && self
                .0
                .iter()
                .rev()
                .find(|(_, pattern)| glob(pattern.as_bytes(), tag.as_str().as_bytes()))
                .is_some_and(|(counts, _)| *counts)
    }
}

/// Matches in time proportional to the product of the lengths, whatever the pattern.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen, mut retry) = (0, 0, None);
    while let Some(byte) = text.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    at = after;
                    seen = from + 1;
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// The history after the tag was seen at `current`. `before` is where it was last seen. A move is dated when it is seen; a
/// digest that the tag names again leaves the history.
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
        .filter(|left| left.digest != current.to_string())
        .cloned()
        .collect();
    for left in before
        .into_iter()
        .chain(previous)
        .filter(|left| *left != current)
    {
        let digest = left.to_string();
        if history.iter().any(|known| known.digest == digest) {
            continue;
        }
        history.push(Superseded {
            digest,
            moved_at: Time(Created::at(now).instant()),
            date: None,
            state: TargetState::Pending,
            reason: None,
            message: None,
        });
    }
    while history.len() > MOST_MOVES {
        // What the spec names would be taken for a new move, with a new date, if it were forgotten.
        let forgettable = |left: &Superseded| {
            !previous
                .iter()
                .any(|named| named.to_string() == left.digest)
        };
        let oldest = history
            .iter()
            .position(|left| is_done(left) && forgettable(left));
        history.remove(
            oldest
                .or_else(|| history.iter().position(forgettable))
                .unwrap_or(0),
        );
    }
    history
}

/// The images that will never be marked, since `after`, which followed `before`, had no room for their moves any more.
pub fn forgotten<'a>(
    before: &'a [Superseded],
    after: &'a [Superseded],
    current: &Digest,
) -> impl Iterator<Item = &'a Superseded> {
    let current = current.to_string();
    before.iter().filter(move |left| {
        !is_done(left)
            && left.digest != current
            && !after
                .iter()
                .any(|remembered| remembered.digest == left.digest)
    })
}

/// Whether nothing is left to do for a move.
#[must_use]
pub const fn is_done(left: &Superseded) -> bool {
    matches!(left.state, TargetState::Attached | TargetState::Skipped)
}

/// Whether a move has settled by `now`. What was done stays so, however long a changed spec says to wait.
#[must_use]
pub fn is_settled(left: &Superseded, settle: Duration, now: Timestamp) -> bool {
    is_done(left) || settles_at(left, settle) <= now
}

/// When a move settles.
#[must_use]
pub fn settles_at(left: &Superseded, settle: Duration) -> Timestamp {
    after(left.moved_at.0, settle)
}

fn after(instant: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| instant.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}

fn fixed(left: &Superseded) -> Option<EndOfLifeDate> {
    left.date
        .as_ref()
        .filter(|_| left.state != TargetState::Planned)
        .and_then(|date| date.parse().ok())
}

/// Whether the date of a move is fixed.
#[must_use]
pub fn is_dated(left: &Superseded) -> bool {
    fixed(left).is_some()
}

/// The date of a move: fixed once, the time of the move plus the grace period. What a dry run planned fixes nothing.
#[must_use]
pub fn date_of(left: &Superseded, grace: Duration) -> EndOfLifeDate {
    fixed(left).unwrap_or_else(|| EndOfLifeDate::at(after(left.moved_at.0, grace)))
}

/// What is to happen to one manifest of an image that the tag has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is marked with this date.
    Mark(EndOfLifeDate),
    /// Something that is in use reaches it.
    StillInUse,
}

/// The date of a move of which nothing is fixed, where `found` are the dates of the marks that are there on the manifests of its image: a
/// manifest that a later move left too has that one's date, so the earliest is this move's. A date beyond the one that the move would get
/// now is no earlier pass's.
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

/// The fate of each manifest of the images left, of which `moves` gives the date and the digests, oldest first. What is in several
/// of them was in use until the last one was left, so that one's date counts.
#[must_use]
pub fn fates<'a>(
    moves: impl IntoIterator<Item = (&'a EndOfLifeDate, &'a BTreeSet<Digest>)>,
    in_use: &BTreeSet<Digest>,
) -> BTreeMap<Digest, Fate> {
    let mut fates = BTreeMap::new();
    for (date, digests) in moves {
        for digest in digests {
            let fate = if in_use.contains(digest) {
                Fate::StillInUse
            } else {
                Fate::Mark(date.clone())
            };
            fates.insert(digest.clone(), fate);
        }
    }
    fates
}

/// Marks a move as done, waiting or failed.
pub fn conclude(left: &mut Superseded, state: TargetState, why: Option<(Reason, &str)>) {
    left.state = state;
    left.reason = why.map(|(reason, _)| reason.as_str().to_owned());
    left.message = why.map(|(_, message)| crate::api::cut_message(message));
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const NOON: &str = "2026-11-23T12:00:00Z";

    #[test]
    fn a_move_is_dated_when_it_is_seen_and_only_once() {
        let history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
        assert_eq!(
            (history.len(), history[0].digest.clone()),
            (1, digest("a").to_string())
        );
        let later = observe(
            &history,
            Some(&digest("z")),
            &digest("z"),
            &[digest("a")],
            at("2026-11-23T13:00:00Z"),
        );
        assert_eq!(later, history);
        assert_eq!(
            date_of(&history[0], Duration::from_secs(720 * 3600)).as_str(),
            "2026-12-23T12:00:00Z"
        );
    }

    #[test]
    fn a_move_back_before_it_has_settled_leaves_no_trace() {
        let history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
        let ten = Duration::from_secs(600);
        assert!(
            !is_settled(&history[0], ten, at("2026-11-23T12:09:59Z"))
                && is_settled(&history[0], ten, at("2026-11-23T12:10:00Z"))
        );
        let back = observe(
            &history,
            Some(&digest("z")),
            &digest("a"),
            &[],
            at("2026-11-23T12:05:00Z"),
        );
        assert_eq!(
            back.iter()
                .map(|left| left.digest.clone())
                .collect::<Vec<_>>(),
            [digest("z").to_string()]
        );
    }

    #[test]
    fn what_was_done_stays_settled_however_long_a_changed_spec_says_to_wait() {
        let mut history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
        let day = Duration::from_secs(24 * 3600);
        assert!(!is_settled(&history[0], day, at(NOON)));
        conclude(&mut history[0], TargetState::Attached, None);
        assert!(is_settled(&history[0], day, at(NOON)));
    }

    #[test]
    fn a_date_once_fixed_does_not_follow_a_changed_grace_period() {
        let mut history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
        history[0].date = Some("2027-01-01T00:00:00Z".to_owned());
        assert_eq!(
            date_of(&history[0], Duration::ZERO).as_str(),
            "2027-01-01T00:00:00Z"
        );
    }

    #[test]
    fn the_history_is_bounded_and_forgets_what_is_finished_first() {
        let mut history = Vec::new();
        for nth in 0..80 {
            history = observe(
                &history,
                Some(&digest(&format!("{nth}"))),
                &digest("z"),
                &[],
                at(NOON),
            );
            if nth == 3 {
                conclude(&mut history[3], TargetState::Attached, None);
            }
        }
        assert_eq!(history.len(), MOST_MOVES);
        assert!(
            !history
                .iter()
                .any(|left| left.digest == digest("3").to_string())
        );
    }

    #[test]
    fn a_move_that_is_forgotten_undone_is_told_and_one_that_was_done_or_undone_by_the_tag_is_not() {
        let full = |state| {
            let mut history = Vec::new();
            for nth in 0..MOST_MOVES {
                history = observe(
                    &history,
                    Some(&digest(&format!("{nth}"))),
                    &digest("z"),
                    &[],
                    at(NOON),
                );
            }
            conclude(&mut history[0], state, None);
            history
        };
        for (state, told) in [
            (TargetState::Pending, vec![digest("0")]),
            (TargetState::Attached, vec![]),
        ] {
            let before = full(state);
            let after = observe(&before, Some(&digest("z")), &digest("5"), &[], at(NOON));
            assert!(
                forgotten(&before, &after, &digest("5")).next().is_none(),
                "the tag names what has left the history"
            );
            let after = observe(&before, Some(&digest("z")), &digest("y"), &[], at(NOON));
            let forgotten: Vec<&str> = forgotten(&before, &after, &digest("y"))
                .map(|left| left.digest.as_str())
                .collect();
            assert_eq!(
                forgotten,
                told.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "{state:?}"
            );
        }
    }

    #[test]
    fn what_several_images_share_takes_the_date_of_the_last_one_left() {
        let (first, second): (EndOfLifeDate, EndOfLifeDate) =
            ("2026-01-01".parse().unwrap(), "2026-02-01".parse().unwrap());
        let one = BTreeSet::from([digest("a"), digest("b"), digest("c"), digest("d")]);
        let two = BTreeSet::from([digest("z"), digest("c"), digest("d")]);
        let fates = fates(
            [(&first, &one), (&second, &two)],
            &BTreeSet::from([digest("d")]),
        );
        assert_eq!(fates[&digest("b")], Fate::Mark(first));
        assert_eq!(fates[&digest("c")], Fate::Mark(second));
        assert_eq!(fates[&digest("d")], Fate::StillInUse);
    }

    #[test]
    fn tags_count_as_the_last_pattern_that_matches_says() {
        let counts = |patterns: &[&str], tag: &str| {
            TagFilter::new(patterns.iter().copied()).counts(&tag.parse().unwrap())
        };
        assert!(counts(&["*"], "v1") && !counts(&[], "v1"));
        assert!(
            counts(&["v1.*", "!v1.9*"], "v1.2")
                && !counts(&["v1.*", "!v1.9*"], "v1.90")
                && !counts(&["v1.*"], "v2.0")
        );
        assert!(counts(&["!nightly-*"], "v1") && !counts(&["!nightly-*"], "nightly-3"));
        assert!(counts(&["v?"], "v1") && !counts(&["v?"], "v10"));
        let referrers = format!("sha256-{}", digest("a").hex());
        assert!(!counts(&["*"], &referrers) && !counts(&["*"], &format!("{referrers}.sig")));
    }

    proptest::proptest! {
        #[test]
        fn a_glob_of_stars_matches_everything_and_ends(stars in "\\*{1,40}", text in "[a-z.]{0,60}") {
            assert!(glob(stars.as_bytes(), text.as_bytes()));
            assert!(glob(text.as_bytes(), text.as_bytes()));
        }
    }
}
