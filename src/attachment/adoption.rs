//! Which of a subject's referrers say what we would say.
//!
//! A listing only nominates: the manifest decides. The manifest need not be fetched where our own bytes, with the
//! candidate's `created`, hash to the candidate's digest: then they are the candidate.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::{Descriptor, Digest, ImageManifest, annotation};

use super::content::TargetContent;
use super::intent::MarkKeys;
use super::time::Created;

/// A referrer of the subject that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its manifest's digest.
    pub digest: Digest,
    /// When it was made, where it says so.
    pub created: Option<Created>,
}

/// Entries of the listing that could be of `artifact_type`.
fn nominated<'a>(
    entries: &'a [Descriptor],
    artifact_type: &str,
) -> impl Iterator<Item = &'a Descriptor> {
    entries
        .iter()
        .filter(move |entry| entry.could_be_of(artifact_type))
}

/// The same without those whose manifests were read and say otherwise.
pub(super) fn of_type<'a>(
    entries: &'a [Descriptor],
    fetched: &BTreeMap<Digest, ImageManifest>,
    artifact_type: &str,
) -> impl Iterator<Item = &'a Descriptor> {
    let is_other = move |entry: &Descriptor| {
        fetched
            .get(&entry.digest)
            .is_some_and(|read| read.effective_artifact_type() != artifact_type)
    };
    nominated(entries, artifact_type).filter(move |entry| !is_other(entry))
}

/// Whether the listing alone proves that `candidate` is our content on `subject`.
pub(super) fn is_proven(
    content: &TargetContent,
    subject: &Descriptor,
    candidate: &Descriptor,
) -> bool {
    let created = listed_created(candidate);
    let Some(created) = created.or(content
        .fixes_created()
        .then_some(Created::at(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)))
    else {
        return false;
    };
    content.could_list_as(&candidate.annotations)
        && content.attach_to(subject, created).digest() == &candidate.digest
}

/// The referrers that the listing alone proves to be our content: nobody has asked for their manifests yet.
#[must_use]
pub fn proven(
    content: &TargetContent,
    subject: &Descriptor,
    entries: &[Descriptor],
) -> Vec<Digest> {
    let equal = nominated(entries, content.artifact_type.as_str())
        .filter(|entry| is_proven(content, subject, entry));
    equal.map(|entry| entry.digest.clone()).collect()
}

/// The `created` that a listing shows for an entry.
pub(super) fn listed_created(entry: &Descriptor) -> Option<Created> {
    entry.annotations.get(annotation::CREATED)?.parse().ok()
}

/// The `created` that a manifest states.
pub(super) fn stated_created(manifest: &ImageManifest) -> Option<Created> {
    manifest.annotations.get(annotation::CREATED)?.parse().ok()
}

/// The referrers whose manifests must be read before `content` can be planned for `subject`: those that the listing neither
/// proves nor contradicts. An end-of-life mark (of which `mark` says the keys) is outranked by any newer one of its type, so there every
/// mark whose listing does not show its time, or not its type, is read as well. Where not all can be read, those come first whose listings
/// show most of what `content` says, then the newest.
#[must_use]
pub fn to_fetch(
    content: &TargetContent,
    mark: Option<&MarkKeys>,
    subject: &Descriptor,
    entries: &[Descriptor],
) -> Vec<Descriptor> {
    let mut open: Vec<Descriptor> = nominated(entries, content.artifact_type.as_str())
        .filter(|entry| {
            let is_proven = is_proven(content, subject, entry);
            let unproven = content.could_list_as(&entry.annotations) && !is_proven;
            let unranked = mark.is_some_and(|keys| {
                let untyped = entry.stated_type().is_none()
                    && entry.annotations.contains_key(&keys.annotation);
                listed_created(entry).is_none() || (untyped && !is_proven)
            });
            unproven || unranked
        })
        .cloned()
        .collect();
    open.sort_by_cached_key(|entry| {
        let agrees = content
            .could_list_as(&entry.annotations)
            .then_some(entry.annotations.len());
        (
            Reverse(agrees),
            Reverse(listed_created(entry)),
            entry.digest.clone(),
        )
    });
    open.dedup_by(|a, b| a.digest == b.digest);
    open
}

/// Leaves of a listing what a plan can read of it: those of its entries that may count, with those of their annotations that may.
///
/// A listing is kept for the rest of its pass, and whoever runs the registry decides how much stands in it. `to_read` is what will be
/// fetched of [`to_fetch`]; what is in `ours` is kept, whatever it is.
#[must_use]
pub fn condensed(
    content: &TargetContent,
    mark: Option<&MarkKeys>,
    subject: &Descriptor,
    to_read: &[Descriptor],
    ours: &BTreeSet<Digest>,
    now: Timestamp,
    mut entries: Vec<Descriptor>,
) -> Vec<Descriptor> {
    const LONGEST: usize = 256;
    let is_read = |entry: &Descriptor| to_read.iter().any(|read| read.digest == entry.digest);
    let newest = nominated(&entries, content.artifact_type.as_str())
        .filter(|entry| !is_read(entry))
        .filter_map(|entry| Some((listed_created(entry)?, entry.digest.clone())))
        .filter(|(created, digest)| created.instant() <= now || ours.contains(digest))
        .max()
        .map(|(_, digest)| digest);
    entries.retain(|entry| {
        let ranks = mark.is_some_and(|mark| entry.annotations.contains_key(&mark.annotation))
            && listed_created(entry).is_some();
        let counts = ranks
            || is_read(entry)
            || newest.as_ref() == Some(&entry.digest)
            || is_proven(content, subject, entry);
        ours.contains(&entry.digest)
            || (entry.could_be_of(content.artifact_type.as_str()) && counts)
    });
    for entry in &mut entries {
        let stated = std::mem::take(&mut entry.annotations)
            .into_iter()
            .filter_map(|(key, mut value)| {
                let is_ours = content.annotations.get(&key) == Some(&value);
                let ranks =
                    key == annotation::CREATED || mark.is_some_and(|mark| mark.annotation == key);
                if !is_ours && value.len() > LONGEST {
                    value = value.chars().take(LONGEST).collect();
                }
                (is_ours || ranks).then_some((key, value))
            });
        entry.annotations = stated.collect();
        entry.media_type = String::new();
        entry.platform = None;
    }
    entries.shrink_to_fit();
    entries
}

/// Whether one of the referrers is known to be our content, so that those that were not read need not be.
#[must_use]
pub fn is_found(
    content: &TargetContent,
    subject: &Descriptor,
    entries: &[Descriptor],
    fetched: &BTreeMap<Digest, ImageManifest>,
) -> bool {
    !equals(content, subject, entries, fetched).is_empty()
}

/// All referrers that equal `content` on `subject`, the one that stays first: the earliest `created`, then the lowest
/// digest. `fetched` holds what [`to_fetch`] asked for.
pub(super) fn equals(
    content: &TargetContent,
    subject: &Descriptor,
    entries: &[Descriptor],
    fetched: &BTreeMap<Digest, ImageManifest>,
) -> Vec<Existing> {
    let mut found: Vec<Existing> = of_type(entries, fetched, content.artifact_type.as_str())
        .filter_map(|entry| match fetched.get(&entry.digest) {
            Some(manifest) => content.equals(&subject.digest, manifest).then(|| Existing {
                digest: entry.digest.clone(),
                created: stated_created(manifest),
            }),
            None => is_proven(content, subject, entry).then(|| Existing {
                digest: entry.digest.clone(),
                created: listed_created(entry),
            }),
        })
        .collect();
    sort(&mut found);
    found
}

/// The order in which equal attachments stay.
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
