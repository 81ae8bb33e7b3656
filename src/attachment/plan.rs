//! The plan: for each entry of the image, what is to be done. A pure function of what was observed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::api::{OnConflict, Reason};
use crate::oci::{Descriptor, Digest, ImageManifest, RawEntry};

use super::adoption::{self, Existing, listed_created, stated_created};
use super::content::TargetContent;
use super::end_of_life::EndOfLifeDate;
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
    pub listing: Result<Vec<RawEntry>, Problem>,
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

/// Plans one target. `now` is the time of the pass.
#[must_use]
pub fn plan(observed: &Observed, on_conflict: OnConflict, now: Timestamp) -> TargetPlan {
    let mut plan =
        TargetPlan { action: Action::Refuse(Problem::new(Reason::Progressing, "not planned")), remove: Vec::new(), notes: Vec::new() };
    let entries = match &observed.listing {
        Ok(entries) => entries,
        Err(problem) => {
            plan.action = Action::Refuse(problem.clone());
            return plan;
        }
    };
    let (equals, artifact_type, content_hash) = match &observed.wanted {
        Listed::Content { content, .. } => {
            (adoption::equals(content, &observed.subject, entries, &observed.fetched), content.artifact_type.as_str(), content.hash())
        }
        Listed::Signature { content, artifact_type, verified } => {
            let mut verified = verified.clone();
            adoption::sort(&mut verified);
            (verified, artifact_type.as_str(), content.clone())
        }
    };
    let same_content = observed.known.content.as_ref() == Some(&content_hash);
    let newest_of_type = adoption::of_type(entries, artifact_type)
        .filter_map(|entry| created_of(entry, &observed.fetched))
        .filter(|created| created.instant() <= now)
        .max();
    let fresh = || newest_of_type.map_or(Created::at(now), |newest| Created::at(now).max(newest.next()));
    let outranked = match &observed.wanted {
        Listed::Content { mark: Some(keys), content } => outranking(observed, entries, content, keys, &equals, now, &mut plan.notes),
        _ => Outranked::No,
    };
    plan.action = match (outranked, equals.first()) {
        (Outranked::Ours, _) => Action::Attach { created: fresh(), supersedes: false },
        (Outranked::Foreign(conflict), existing) => {
            let ours_stood = existing.is_some() || (same_content && observed.known.attachment.is_some());
            match (ours_stood, on_conflict, observed.known.superseded && same_content) {
                (false, ..) => Action::Attach { created: fresh(), supersedes: false },
                (true, OnConflict::Supersede, false) => Action::Attach { created: fresh(), supersedes: true },
                (true, ..) => Action::Refuse(conflict),
            }
        }
        (Outranked::No, Some(existing)) => Action::Keep {
            made: observed.ours.contains(&existing.digest) || remade(observed, existing, same_content),
            existing: existing.clone(),
        },
        // The time of a signature is the time of signing; its bytes would be others all the same.
        (Outranked::No, None) if matches!(observed.wanted, Listed::Signature { .. }) => {
            Action::Attach { created: Created::at(now), supersedes: false }
        }
        // A crash between the note in status and the push, or a loss: the same bytes again.
        (Outranked::No, None) => {
            Action::Attach { created: observed.known.created.filter(|_| same_content).unwrap_or_else(fresh), supersedes: false }
        }
    };
    let kept = match &plan.action {
        Action::Keep { existing, .. } => Some(&existing.digest),
        _ => None,
    };
    if !matches!(plan.action, Action::Refuse(_)) {
        plan.remove = observed
            .ours
            .iter()
            .filter(|ours| Some(*ours) != kept && entries.iter().any(|entry| entry.digest() == Some(ours)))
            .cloned()
            .collect();
    }
    plan
}

/// Whether an equal manifest is the one that status said would be pushed.
fn remade(observed: &Observed, existing: &Existing, same_content: bool) -> bool {
    let Listed::Content { content, .. } = &observed.wanted else { return false };
    same_content
        && observed.known.made
        && observed.known.created.is_some_and(|created| content.attach_to(&observed.subject, created).digest() == &existing.digest)
}

fn created_of(entry: &Descriptor, fetched: &BTreeMap<Digest, ImageManifest>) -> Option<Created> {
    fetched.get(&entry.digest).map_or_else(|| listed_created(entry), stated_created)
}

enum Outranked {
    /// Ours is the newest, or nothing says otherwise.
    No,
    /// By an older version of ours.
    Ours,
    /// By somebody else's.
    Foreign(Problem),
}

/// Whether readers, who take the newest mark, take another one than ours.
fn outranking(
    observed: &Observed,
    entries: &[RawEntry],
    content: &TargetContent,
    keys: &MarkKeys,
    equals: &[Existing],
    now: Timestamp,
    notes: &mut Vec<String>,
) -> Outranked {
    // Readers rank by time, so of several equal marks the newest defends the date.
    let ours_at = equals.iter().filter_map(|existing| existing.created).filter(|created| created.instant() <= now).max();
    let ours_at = ours_at.or(observed.known.created.filter(|_| observed.known.content.as_ref() == Some(&content.hash())));
    let mut newest: Option<(Created, &Descriptor, Option<String>)> = None;
    for entry in adoption::of_type(entries, content.artifact_type.as_str()) {
        if equals.iter().any(|existing| existing.digest == entry.digest) {
            continue;
        }
        let stated = observed.fetched.get(&entry.digest).map_or(&entry.annotations, |manifest| &manifest.annotations);
        let (Some(created), Some(date)) = (created_of(entry, &observed.fetched), stated.get(&keys.annotation)) else { continue };
        if created.instant() > now {
            notes.push(format!("the mark {} claims to be made in the future ({created}); it is ignored", entry.digest));
            continue;
        }
        if newest.as_ref().is_none_or(|(seen, ..)| *seen < created) {
            newest = Some((created, entry, Some(date.clone())));
        }
    }
    let Some((created, entry, date)) = newest else { return Outranked::No };
    if ours_at.is_some_and(|ours| created < ours) {
        return Outranked::No;
    }
    let same_instant =
        date.as_deref().and_then(|date| date.parse::<EndOfLifeDate>().ok()).is_some_and(|date| date.instant() == keys.date.instant());
    if observed.ours.contains(&entry.digest) {
        return if ours_at.is_some() || !same_instant { Outranked::Ours } else { Outranked::No };
    }
    if same_instant {
        return Outranked::No;
    }
    Outranked::Foreign(Problem::new(
        Reason::Conflict,
        format_args!(
            "somebody else marked {} with {:?} at {created} ({}), which is newer than ours with {:?}: agree on one date, or set endOfLife.onConflict: Supersede",
            observed.subject.digest,
            crate::oci::cut(date.as_deref().unwrap_or_default()),
            entry.digest,
            keys.date.as_str(),
        ),
    ))
}
