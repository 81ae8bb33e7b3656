//! The plan: for each entry of the image, what is to be done. A pure function of what was observed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::api::{OnConflict, Reason};
use affix_registry::oci::{Descriptor, Digest, ImageManifest};

use super::adoption::{self, Existing, listed_created, stated_created};
use super::content::TargetContent;
use super::end_of_life::EndOfLifeDate;
use super::future_mark::FutureMark;
use super::intent::MarkKeys;
use super::problem::Problem;
use super::time::Created;

/// How many referrers of one subject are read to find an equal one.
pub const MOST_CANDIDATES: usize = 8;
/// The same for signatures, of which each takes two requests.
pub const MOST_SIGNATURES: usize = 20;

/// What the resource's status knows of one subject from earlier passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Hash of the content that was last pushed or about to be.
    pub content: Option<Digest>,
    /// Its time.
    pub created: Option<Created>,
    /// Its manifest.
    pub attachment: Option<Digest>,
    /// Whether this resource made that manifest (or was about to).
    pub made: bool,
    /// Whether this generation of the spec has already outranked somebody else's mark here.
    pub superseded: bool,
}

/// What is wanted on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// Fixed content: equal manifests are found by comparing.
    Content {
        /// The content.
        content: TargetContent,
        /// Where it is an end-of-life mark: how readers rank marks.
        mark: Option<MarkKeys>,
    },
    /// A signature: random bytes; the caller verified which of the listed ones count as equal.
    Signature {
        /// Hash of all that decides what is signed: key, annotations, expiry.
        content: Digest,
        /// The artifact type that listings show.
        artifact_type: String,
        /// Those that verify.
        verified: Vec<Existing>,
    },
}

/// What was observed about one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The target.
    pub subject: Descriptor,
    /// What is wanted there.
    pub wanted: Listed,
    /// The subject's referrers, or why they could not be listed.
    pub listing: Result<Vec<Descriptor>, Problem>,
    /// Manifests that were read because the listing did not settle what they are.
    pub fetched: BTreeMap<Digest, ImageManifest>,
    /// From status.
    pub known: Known,
    /// Digests of what this resource made on this subject, in earlier generations too.
    pub ours: BTreeSet<Digest>,
}

/// What is to be done on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: this attachment is there and counts. `made`: this resource made it.
    Keep {
        /// Which one.
        existing: Existing,
        /// Whether this resource made it; otherwise it is adopted.
        made: bool,
    },
    /// Push the content with this time.
    Attach {
        /// For `created`.
        created: Created,
        /// Whether this outranks a newer mark of somebody else.
        supersedes: bool,
    },
    /// This target cannot be attached to.
    Refuse(Problem),
}

/// One target's part of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPlan {
    /// What is to be done.
    pub action: Action,
    /// Attachments of ours on this subject that are no longer wanted once the action is done.
    pub remove: Vec<Digest>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// The plan of a pass, target by target in the order of the image.
pub type Plan = Vec<TargetPlan>;

/// The attachments on a target that equal what is wanted there, whoever made them; the one that stays comes first.
#[must_use]
pub fn equal(observed: &Observed) -> Vec<Existing> {
    match (&observed.listing, &observed.wanted) {
        (Err(_), _) => Vec::new(),
        (Ok(entries), Listed::Content { content, .. }) => {
            adoption::equals(content, &observed.subject, entries, &observed.fetched)
        }
        (Ok(_), Listed::Signature { verified, .. }) => {
            let mut verified = verified.clone();
            adoption::sort(&mut verified);
            verified
        }
    }
}

/// Plans one target. `now` is the time of the pass.
#[must_use]
pub fn plan(observed: &Observed, on_conflict: OnConflict, now: Timestamp) -> TargetPlan {
    let mut plan = TargetPlan {
        action: Action::Refuse(Problem::new(Reason::Progressing, "not planned")),
        remove: Vec::new(),
        notes: Vec::new(),
    };
    let entries = match &observed.listing {
        Ok(entries) => entries,
        Err(problem) => {
            plan.action = Action::Refuse(problem.clone());
            return plan;
        }
    };
    let equals = equal(observed);
    let (artifact_type, content_hash) = match &observed.wanted {
        Listed::Content { content, .. } => (content.artifact_type.as_str(), content.hash()),
        Listed::Signature {
            content,
            artifact_type,
            ..
        } => (artifact_type.as_str(), content.clone()),
    };
    let same_content = observed.known.content.as_ref() == Some(&content_hash);
    // What claims to be made in the future counts only where this resource made it, by a clock that was ahead.
    let newest_of_type = adoption::of_type(entries, &observed.fetched, artifact_type)
        .filter_map(|entry| Some((created_of(entry, &observed.fetched)?, &entry.digest)))
        .filter(|(created, digest)| created.instant() <= now || observed.ours.contains(*digest))
        .map(|(created, _)| created)
        .max();
    let fresh = || {
        newest_of_type.map_or(Created::at(now), |newest| {
            Created::at(now).max(newest.next())
        })
    };
    let ranking = match &observed.wanted {
        Listed::Content {
            mark: Some(keys),
            content,
        } => rank(observed, entries, content, keys, &equals, same_content, now),
        _ => Ranking {
            outranked: Outranked::No,
            rival: None,
            notes: Vec::new(),
        },
    };
    plan.notes = ranking.notes;
    // Readers take the newest mark, so an equal one that is older than a rival defends nothing.
    let outlives = |created: Option<Created>| {
        ranking
            .rival
            .is_none_or(|rival| created.is_some_and(|created| created > rival))
    };
    plan.action = match (
        ranking.outranked,
        equals.iter().find(|existing| outlives(existing.created)),
    ) {
        (Outranked::Ours, _) => Action::Attach {
            created: fresh(),
            supersedes: false,
        },
        (Outranked::Foreign(conflict), _) => {
            let ours_stood =
                !equals.is_empty() || (same_content && observed.known.attachment.is_some());
            match (ours_stood, on_conflict, observed.known.superseded) {
                (false, ..) => Action::Attach {
                    created: fresh(),
                    supersedes: false,
                },
                (true, OnConflict::Supersede, false) => Action::Attach {
                    created: fresh(),
                    supersedes: true,
                },
                (true, ..) => Action::Refuse(conflict),
            }
        }
        (Outranked::No, Some(existing)) => Action::Keep {
            made: observed.ours.contains(&existing.digest)
                || remade(observed, existing, same_content),
            existing: existing.clone(),
        },
        // The time of a signature is the time of signing; its bytes would be others all the same.
        (Outranked::No, None) if matches!(observed.wanted, Listed::Signature { .. }) => {
            Action::Attach {
                created: Created::at(now),
                supersedes: false,
            }
        }
        // A crash between the note in status and the push, or a loss: the same bytes again.
        (Outranked::No, None) => {
            let known = observed
                .known
                .created
                .filter(|created| same_content && outlives(Some(*created)));
            Action::Attach {
                created: known.unwrap_or_else(fresh),
                supersedes: false,
            }
        }
    };
    let stays = match (&plan.action, &observed.wanted) {
        (Action::Refuse(_), _) => return plan,
        (Action::Keep { existing, .. }, _) => Some(existing.digest.clone()),
        (Action::Attach { created, .. }, Listed::Content { content, .. }) => Some(
            content
                .attach_to(&observed.subject, *created)
                .digest()
                .clone(),
        ),
        (Action::Attach { .. }, Listed::Signature { .. }) => None,
    };
    let is_listed = |ours: &&Digest| entries.iter().any(|entry| entry.digest == **ours);
    plan.remove = observed
        .ours
        .iter()
        .filter(|ours| Some(*ours) != stays.as_ref())
        .filter(is_listed)
        .cloned()
        .collect();
    plan
}

/// Whether an equal manifest is the one that status said would be pushed.
fn remade(observed: &Observed, existing: &Existing, same_content: bool) -> bool {
    let Listed::Content { content, .. } = &observed.wanted else {
        return false;
    };
    same_content
        && observed.known.made
        && observed.known.created.is_some_and(|created| {
            content.attach_to(&observed.subject, created).digest() == &existing.digest
        })
}

fn created_of(entry: &Descriptor, fetched: &BTreeMap<Digest, ImageManifest>) -> Option<Created> {
    fetched
        .get(&entry.digest)
        .map_or_else(|| listed_created(entry), stated_created)
}

enum Outranked {
    /// Ours is the newest, or nothing says otherwise.
    No,
    /// By an older version of ours, or by nobody yet: another one was made in the same second, and it is for us to make ours the newest.
    Ours,
    /// By somebody else's.
    Foreign(Problem),
}

/// How our mark stands among the others on its subject.
struct Ranking {
    outranked: Outranked,
    /// The time of the newest mark that says something else, outranked or not.
    rival: Option<Created>,
    notes: Vec<String>,
}

/// A mark that says something else than ours; the greatest is the one that readers take.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rival<'a> {
    created: Created,
    is_foreign: bool,
    digest: &'a Digest,
    date: &'a str,
}

/// A mark that says what ours says. Of those of one instant the one with the lowest digest stands for all.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Defence<'a> {
    created: Created,
    digest: Reverse<&'a Digest>,
}

/// Whether readers, who take the newest mark, take another one than ours. The order of the listing decides nothing.
fn rank(
    observed: &Observed,
    entries: &[Descriptor],
    content: &TargetContent,
    keys: &MarkKeys,
    equals: &[Existing],
    same_content: bool,
    now: Timestamp,
) -> Ranking {
    let known = observed
        .known
        .attachment
        .as_ref()
        .zip(observed.known.created)
        .filter(|_| same_content);
    let equal = equals
        .iter()
        .filter_map(|existing| Some((&existing.digest, existing.created?)));
    let mut defence = equal
        .chain(known)
        .map(|(digest, created)| Defence {
            created,
            digest: Reverse(digest),
        })
        .max();
    let mut rival: Option<Rival<'_>> = None;
    let mut notes = BTreeSet::new();
    for entry in adoption::of_type(entries, &observed.fetched, content.artifact_type.as_str()) {
        if equals
            .iter()
            .any(|existing| existing.digest == entry.digest)
        {
            continue;
        }
        let stated = observed
            .fetched
            .get(&entry.digest)
            .map_or(&entry.annotations, |manifest| &manifest.annotations);
        let (Some(created), Some(date)) = (
            created_of(entry, &observed.fetched),
            stated.get(&keys.annotation),
        ) else {
            continue;
        };
        let is_foreign = !observed.ours.contains(&entry.digest);
        let agrees = is_foreign
            && date
                .parse::<EndOfLifeDate>()
                .is_ok_and(|date| date.instant() == keys.date.instant());
        if is_foreign && created.instant() > now {
            if !agrees {
                notes.insert(FutureMark {
                    created,
                    digest: entry.digest.clone(),
                });
            }
        } else if agrees {
            // The same instant, written differently: readers are not misled.
            defence = defence.max(Some(Defence {
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
    let outranked = match (&rival, &defence) {
        (Some(rival), Some(defence)) if defence.created > rival.created => Outranked::No,
        (Some(rival), _) if !rival.is_foreign => Outranked::Ours,
        // Both listed before either was there. One of the two must give way, and both know which: the greater digest. A time that the
        // spec gives cannot be moved.
        (Some(rival), Some(defence))
            if defence.created == rival.created
                && defence.digest.0 < rival.digest
                && !content.fixes_created() =>
        {
            Outranked::Ours
        }
        (Some(rival), defence) => {
            let is_tied = defence
                .as_ref()
                .is_some_and(|defence| defence.created == rival.created);
            Outranked::Foreign(conflict(observed, rival, is_tied, keys))
        }
        (None, _) => Outranked::No,
    };
    Ranking {
        outranked,
        rival: rival.map(|rival| rival.created),
        notes: notes.iter().map(ToString::to_string).collect(),
    }
}

fn conflict(observed: &Observed, rival: &Rival<'_>, is_tied: bool, keys: &MarkKeys) -> Problem {
    let rank = if is_tied {
        "in the same second as ours"
    } else {
        "which is newer than ours"
    };
    Problem::new(
        Reason::Conflict,
        format_args!(
            "somebody else marked {} with {:?} at {} ({}), {rank} with {:?}: agree on one date, or set spec.endOfLife.onConflict: Supersede",
            observed.subject.digest,
            affix_registry::oci::cut(rival.date),
            rival.created,
            rival.digest,
            keys.date.as_str(),
        ),
    )
}

#[cfg(test)]
mod tests;
