//! The rank of a resource's own end-of-life mark among the marks on its subject. Readers take the newest mark.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::api::Reason;
use affix_registry::oci::{Descriptor, Digest, cut};

use super::adoption::{self, Existing};
use super::observed::Observed;
use crate::attachment::content::TargetContent;
use crate::attachment::future_mark::FutureMark;
use crate::attachment::mark::MarkKeys;
use crate::attachment::problem::Problem;
use crate::attachment::time::{Created, EndOfLifeDate};

/// The mark that outranks the own mark, if any.
pub(super) enum Outranked {
    /// No mark outranks it.
    No,
    /// An older mark of this resource, or a tie that this resource must break with a newer mark.
    Own,
    /// A foreign mark. The problem describes the conflict.
    Foreign(Problem),
}

/// The rank of the own mark.
pub(super) struct Ranking {
    pub(super) outranked: Outranked,
    /// The time of the newest mark with another date, even if it does not outrank the own mark.
    pub(super) rival: Option<Created>,
    pub(super) notes: Vec<FutureMark>,
}

impl Ranking {
    /// Returns the rank of content that is not a mark.
    pub(super) const fn unranked() -> Self {
        Self {
            outranked: Outranked::No,
            rival: None,
            notes: Vec::new(),
        }
    }
}

/// A mark with another date than the own mark. The greatest is the one that readers take.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rival<'a> {
    created: Created,
    is_foreign: bool,
    digest: &'a Digest,
    date: &'a str,
}

/// A mark with the date of the own mark. Among marks of one instant, the lowest digest counts.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ally<'a> {
    created: Created,
    digest: Reverse<&'a Digest>,
}

/// The marks on a subject, seen from the own mark.
struct Marks<'a> {
    ally: Option<Ally<'a>>,
    rival: Option<Rival<'a>>,
    future: BTreeSet<FutureMark>,
}

/// Ranks the own mark. The order of the listing has no influence.
pub(super) fn rank(
    observed: &Observed,
    entries: &[Descriptor],
    content: &TargetContent,
    keys: &MarkKeys,
    equals: &[Existing],
    same_content: bool,
    now: Timestamp,
) -> Ranking {
    let marks = collect(observed, entries, content, keys, equals, same_content, now);
    let outranked = match (&marks.rival, &marks.ally) {
        (Some(rival), Some(ally)) if ally.created > rival.created => Outranked::No,
        (Some(rival), _) if !rival.is_foreign => Outranked::Own,
        // Two resources listed before either had pushed. The mark with the lower digest is made again, and both resources
        // can compute which one that is. A time that the spec gives cannot change.
        (Some(rival), Some(ally))
            if ally.created == rival.created
                && ally.digest.0 < rival.digest
                && !content.fixes_created() =>
        {
            Outranked::Own
        }
        (Some(rival), ally) => {
            let is_tied = ally
                .as_ref()
                .is_some_and(|ally| ally.created == rival.created);
            Outranked::Foreign(conflict(observed, rival, is_tied, keys))
        }
        (None, _) => Outranked::No,
    };
    Ranking {
        outranked,
        rival: marks.rival.map(|rival| rival.created),
        notes: marks.future.into_iter().collect(),
    }
}

fn collect<'a>(
    observed: &'a Observed,
    entries: &'a [Descriptor],
    content: &'a TargetContent,
    keys: &MarkKeys,
    equals: &'a [Existing],
    same_content: bool,
    now: Timestamp,
) -> Marks<'a> {
    let last_applied = observed
        .known
        .attachment
        .as_ref()
        .zip(observed.known.created)
        .filter(|_| same_content);
    let mut ally = equals
        .iter()
        .filter_map(|existing| Some((&existing.digest, existing.created?)))
        .chain(last_applied)
        .map(|(digest, created)| Ally {
            created,
            digest: Reverse(digest),
        })
        .max();
    let mut rival: Option<Rival<'_>> = None;
    let mut future = BTreeSet::new();
    for entry in adoption::of_type(entries, &observed.fetched, content.artifact_type.as_str()) {
        if equals
            .iter()
            .any(|existing| existing.digest == entry.digest)
        {
            continue;
        }
        let date = observed.fetched.get(&entry.digest).map_or_else(
            || entry.annotations.get(&keys.annotation),
            |referrer| referrer.date.as_ref(),
        );
        let (Some(created), Some(date)) = (adoption::created(entry, &observed.fetched), date)
        else {
            continue;
        };
        let is_foreign = !observed.ours.contains(&entry.digest);
        // Readers act on the instant, so a foreign mark can write the same date in another form.
        let agrees = is_foreign
            && date
                .parse::<EndOfLifeDate>()
                .is_ok_and(|date| date.instant() == keys.date.instant());
        if is_foreign && created.instant() > now {
            if !agrees {
                future.insert(FutureMark {
                    created,
                    digest: entry.digest.clone(),
                });
            }
        } else if agrees {
            ally = ally.max(Some(Ally {
                created,
                digest: Reverse(&entry.digest),
            }));
        } else {
            rival = rival.max(Some(Rival {
                created,
                is_foreign,
                digest: &entry.digest,
                date,
            }));
        }
    }
    Marks {
        ally,
        rival,
        future,
    }
}

fn conflict(observed: &Observed, rival: &Rival<'_>, is_tied: bool, keys: &MarkKeys) -> Problem {
    let rank = if is_tied {
        "in the same second as the mark of this resource"
    } else {
        "which is newer than the mark of this resource"
    };
    Problem::new(
        Reason::Conflict,
        format_args!(
            "a foreign mark has the date {:?} on {}, set at {} ({}), {rank} with {:?}: agree on one date, or set spec.endOfLife.onConflict: Supersede",
            cut(rival.date),
            observed.subject.digest,
            rival.created,
            rival.digest,
            keys.date.as_str(),
        ),
    )
}
