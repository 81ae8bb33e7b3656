//! Finds the referrers of a subject that equal the desired content.
//!
//! A listing entry is only a candidate, and its manifest decides. The manifest is not fetched if the desired content with the
//! `created` time of the entry hashes to the digest of the entry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::{Descriptor, Digest, annotation};

use super::fetched_referrer::{FetchedReferrer, MAX_VALUE_CHARS};
use crate::attachment::content::TargetContent;
use crate::attachment::mark::MarkKeys;
use crate::attachment::time::Created;

/// A referrer that the registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The time in its annotations, if any.
    pub created: Option<Created>,
}

/// Returns the listing entries that can have `artifact_type`.
fn candidates<'a>(
    entries: &'a [Descriptor],
    artifact_type: &str,
) -> impl Iterator<Item = &'a Descriptor> {
    entries
        .iter()
        .filter(move |entry| entry.may_have_type(artifact_type))
}

/// Returns the candidates without those whose fetched manifest has another type.
pub(super) fn of_type<'a>(
    entries: &'a [Descriptor],
    fetched: &BTreeMap<Digest, FetchedReferrer>,
    artifact_type: &str,
) -> impl Iterator<Item = &'a Descriptor> {
    let is_other = move |entry: &Descriptor| {
        fetched
            .get(&entry.digest)
            .is_some_and(|referrer| !referrer.has_type)
    };
    candidates(entries, artifact_type).filter(move |entry| !is_other(entry))
}

/// Returns true if the listing alone proves that `candidate` is `content` on `subject`.
pub(super) fn is_proven(
    content: &TargetContent,
    subject: &Descriptor,
    candidate: &Descriptor,
) -> bool {
    let created = Created::from_entry(candidate);
    let Some(created) = created.or(content
        .fixes_created()
        .then_some(Created::at(Timestamp::UNIX_EPOCH)))
    else {
        return false;
    };
    content.could_list_as(&candidate.annotations)
        && content.attach_to(subject, created).digest() == &candidate.digest
}

/// Returns the referrers that the listing alone proves to equal `content`. Their manifests are not fetched.
#[must_use]
pub fn proven(
    content: &TargetContent,
    subject: &Descriptor,
    entries: &[Descriptor],
) -> Vec<Digest> {
    let equal = candidates(entries, content.artifact_type.as_str())
        .filter(|entry| is_proven(content, subject, entry));
    equal.map(|entry| entry.digest.clone()).collect()
}

/// Returns the creation time of a referrer, from its manifest if that was fetched.
pub(super) fn created(
    entry: &Descriptor,
    fetched: &BTreeMap<Digest, FetchedReferrer>,
) -> Option<Created> {
    fetched
        .get(&entry.digest)
        .map_or_else(|| Created::from_entry(entry), |referrer| referrer.created)
}

/// A referrer whose manifest is necessary for a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The digest of its manifest.
    pub digest: Digest,
    /// True if it may outrank the own mark, so that it must be read even if an equal attachment was found.
    pub may_outrank: bool,
}

/// Returns the referrers whose manifests are necessary to plan `content` on `subject`: the listing neither proves nor
/// disproves that they are equal.
///
/// Any newer mark of its type outranks an end-of-life mark. If `mark` is given, the result therefore includes the marks whose
/// entries lack their time or type. Attachments in `ours` come first, then entries that show most of `content`, then the
/// newest: the caller stops once it has found an equal one.
#[must_use]
pub fn to_fetch(
    content: &TargetContent,
    mark: Option<&MarkKeys>,
    subject: &Descriptor,
    ours: &BTreeSet<Digest>,
    entries: &[Descriptor],
) -> Vec<Candidate> {
    let mut open: Vec<(&Descriptor, bool)> = candidates(entries, content.artifact_type.as_str())
        .filter_map(|entry| {
            let is_proven = is_proven(content, subject, entry);
            let unproven = content.could_list_as(&entry.annotations) && !is_proven;
            let may_outrank = mark.is_some_and(|keys| {
                let untyped = entry.listed_type().is_none()
                    && entry.annotations.contains_key(&keys.annotation);
                Created::from_entry(entry).is_none() || (untyped && !is_proven)
            });
            (unproven || may_outrank).then_some((entry, may_outrank))
        })
        .collect();
    open.sort_by_cached_key(|(entry, _)| {
        let agrees = content
            .could_list_as(&entry.annotations)
            .then_some(entry.annotations.len());
        (
            !ours.contains(&entry.digest),
            Reverse(agrees),
            Reverse(Created::from_entry(entry)),
            entry.digest.clone(),
        )
    });
    open.dedup_by(|(a, _), (b, _)| a.digest == b.digest);
    let candidate = |(entry, may_outrank): (&Descriptor, bool)| Candidate {
        digest: entry.digest.clone(),
        may_outrank,
    };
    open.into_iter().map(candidate).collect()
}

/// Removes the entries and annotations of a listing that a plan does not use.
///
/// A pass holds a listing in memory until its end, and the registry controls the size. `to_read` are the candidates of
/// [`to_fetch`] that the caller may fetch. Entries in `ours` are always kept.
#[must_use]
pub fn condensed(
    content: &TargetContent,
    mark: Option<&MarkKeys>,
    subject: &Descriptor,
    to_read: &[Candidate],
    ours: &BTreeSet<Digest>,
    now: Timestamp,
    mut entries: Vec<Descriptor>,
) -> Vec<Descriptor> {
    let to_read: BTreeSet<&Digest> = to_read.iter().map(|candidate| &candidate.digest).collect();
    let is_read = |entry: &Descriptor| to_read.contains(&entry.digest);
    let newest = candidates(&entries, content.artifact_type.as_str())
        .filter(|entry| !is_read(entry))
        .filter_map(|entry| Some((Created::from_entry(entry)?, entry.digest.clone())))
        .filter(|(created, digest)| created.instant() <= now || ours.contains(digest))
        .max()
        .map(|(_, digest)| digest);
    entries.retain(|entry| {
        let ranks = mark.is_some_and(|mark| entry.annotations.contains_key(&mark.annotation))
            && Created::from_entry(entry).is_some();
        let counts = ranks
            || is_read(entry)
            || newest.as_ref() == Some(&entry.digest)
            || is_proven(content, subject, entry);
        ours.contains(&entry.digest)
            || (entry.may_have_type(content.artifact_type.as_str()) && counts)
    });
    for entry in &mut entries {
        let kept = std::mem::take(&mut entry.annotations)
            .into_iter()
            .filter_map(|(key, mut value)| {
                let is_ours = content.annotations.get(&key) == Some(&value);
                let ranks =
                    key == annotation::CREATED || mark.is_some_and(|mark| mark.annotation == key);
                if !is_ours && value.len() > MAX_VALUE_CHARS {
                    value = value.chars().take(MAX_VALUE_CHARS).collect();
                }
                (is_ours || ranks).then_some((key, value))
            });
        entry.annotations = kept.collect();
        entry.media_type = String::new();
        entry.platform = None;
    }
    entries.shrink_to_fit();
    entries
}

/// Returns all referrers that equal `content` on `subject`, the one to keep first: the earliest `created`, then the lowest
/// digest. `fetched` holds the referrers of [`to_fetch`] that were read.
pub(super) fn equals(
    content: &TargetContent,
    subject: &Descriptor,
    entries: &[Descriptor],
    fetched: &BTreeMap<Digest, FetchedReferrer>,
) -> Vec<Existing> {
    let mut found: Vec<Existing> = of_type(entries, fetched, content.artifact_type.as_str())
        .filter_map(|entry| match fetched.get(&entry.digest) {
            Some(referrer) => referrer.is_equal.then(|| Existing {
                digest: entry.digest.clone(),
                created: referrer.created,
            }),
            None => is_proven(content, subject, entry).then(|| Existing {
                digest: entry.digest.clone(),
                created: Created::from_entry(entry),
            }),
        })
        .collect();
    sort(&mut found);
    found
}

/// Sorts equal attachments by priority. The first one is the one to keep.
pub(super) fn sort(found: &mut Vec<Existing>) {
    found.sort_by(|a, b| {
        (a.created.is_none(), a.created, &a.digest).cmp(&(
            b.created.is_none(),
            b.created,
            &b.digest,
        ))
    });
    found.dedup_by(|a, b| a.digest == b.digest);
}
