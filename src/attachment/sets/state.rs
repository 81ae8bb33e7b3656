//! The first step: the tags of a repository, compared with those of the previous pass.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use semver::Version;

use crate::api::{LeftImage, RepositoryStatus};
use crate::attachment::{Created, EndOfLifeDate};
use affix_registry::glob;
use affix_registry::oci::{Digest, Tag};

use super::keep::kept;
use super::policy::{LifecyclePolicy, SetPolicy};
use super::range::version_of;

/// The maximum number of images that tags have left, which is the limit of the status field.
const MAX_LEFT: usize = 100;

/// The life of a selected tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// It is alive, until a date of the calendar if there is one.
    Alive(Option<EndOfLifeDate>),
    /// It fell out of `keep` at this time.
    Fallen(Timestamp),
    /// The calendar ended it on this date.
    Ended(EndOfLifeDate),
}

/// A tag that matters to the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TagRecord {
    pub(super) digest: Digest,
    /// The life of a selected tag; `None` for a tag that only keeps its image in use.
    pub(super) life: Option<Life>,
    pub(super) version: Option<Version>,
    /// The time since which the list of tags lacks it.
    pub(super) vanished: Option<Timestamp>,
}

/// An image that a tag has left and that no tag names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) digest: Digest,
    pub(super) tag: Tag,
    pub(super) since: Timestamp,
    pub(super) is_selected: bool,
    pub(super) is_settled: bool,
}

/// An image that is out of life, so that it gets a child unless something alive reaches all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The tags that name it or have left it.
    pub(super) tags: BTreeSet<Tag>,
    /// The date of its marks, if no child has fixed one.
    pub(super) date: EndOfLifeDate,
    /// True if the calendar gave the date, so that it replaces the date of a child.
    pub(super) is_calendar: bool,
}

/// The tags of one repository at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagState {
    /// The number of tags in the list.
    pub(super) listed: usize,
    pub(super) tags: BTreeMap<Tag, TagRecord>,
    pub(super) left: Vec<Left>,
    pub(super) in_use: BTreeSet<Digest>,
    pub(super) candidates: BTreeMap<Digest, Candidate>,
    /// Images with a child that would be alive if a vanished tag were gone. Their marks stay, and no mark is added.
    pub(super) frozen: BTreeSet<Digest>,
    pub(super) has_lifecycle: bool,
}

impl TagState {
    /// Compares the tags of a repository with those of the previous pass. `tags` are the digests of all tags that
    /// [`SetPolicy::considers`]; `listed` is the number of all tags. `marked` are the images that have a child, which proves that they
    /// settled before.
    #[must_use]
    pub fn observe(
        policy: &SetPolicy,
        tags: &BTreeMap<Tag, Digest>,
        listed: usize,
        previous: Option<&RepositoryStatus>,
        marked: &BTreeSet<Digest>,
        now: Timestamp,
    ) -> Self {
        // Status has whole seconds.
        let now = Created::at(now).instant();
        let nothing = RepositoryStatus::default();
        let previous = previous.unwrap_or(&nothing);
        let mut state = Self {
            listed,
            has_lifecycle: policy.lifecycle.is_some(),
            ..Self::default()
        };
        state.add_tags(policy, tags, previous, now);
        let Some(lifecycle) = &policy.lifecycle else {
            return state;
        };
        state.add_lives(lifecycle, previous, marked, now);
        state.add_left(policy, lifecycle, previous, now);
        state.judge(lifecycle, marked, now);
        state
    }

    /// Returns the images whose indexes the second step needs. It needs none if no image is out of life and the repository has no children.
    #[must_use]
    pub fn roots_to_read(&self, has_children: bool) -> BTreeSet<Digest> {
        if self.candidates.is_empty() && !(has_children && self.has_lifecycle) {
            return BTreeSet::new();
        }
        let roots = self.in_use.iter().chain(self.candidates.keys());
        roots.chain(&self.frozen).cloned().collect()
    }

    /// Removes an image that the registry lacks although a tag named it before. No mark can be attached to it.
    pub fn forget(&mut self, gone: &Digest) {
        self.left.retain(|left| left.digest != *gone);
        self.in_use.remove(gone);
        self.candidates.remove(gone);
    }

    /// Returns whether a listed tag names an image.
    #[must_use]
    pub fn is_named(&self, digest: &Digest) -> bool {
        self.tags.values().any(|tag| tag.digest == *digest)
    }

    /// Returns the images out of life without a child, with the date that they would get. An earlier pass may have marked them.
    pub fn undated<'a>(
        &'a self,
        marked: &'a BTreeSet<Digest>,
    ) -> impl Iterator<Item = (&'a Digest, &'a EndOfLifeDate)> {
        self.candidates
            .iter()
            .filter(|(digest, candidate)| !candidate.is_calendar && !marked.contains(*digest))
            .map(|(digest, candidate)| (digest, &candidate.date))
    }

    fn add_tags(
        &mut self,
        policy: &SetPolicy,
        tags: &BTreeMap<Tag, Digest>,
        previous: &RepositoryStatus,
        now: Timestamp,
    ) {
        let record = |digest: &Digest, tag: &Tag, vanished| TagRecord {
            digest: digest.clone(),
            life: policy.tags.selects(tag).then_some(Life::Alive(None)),
            version: version_of(tag),
            vanished,
        };
        for (tag, digest) in tags.iter().filter(|(tag, _)| policy.considers(tag)) {
            self.tags.insert(tag.clone(), record(digest, tag, None));
        }
        for (tag, digest) in remembered(previous) {
            if self.tags.contains_key(&tag) || !policy.considers(&tag) {
                continue;
            }
            let known = previous.vanished.get(tag.as_str());
            let since = known.map_or(now, |since| since.0);
            if super::after(since, policy.settle()) > now {
                let record = record(&digest, &tag, Some(since));
                self.tags.insert(tag, record);
            }
        }
    }

    fn add_lives(
        &mut self,
        lifecycle: &LifecyclePolicy,
        previous: &RepositoryStatus,
        marked: &BTreeSet<Digest>,
        now: Timestamp,
    ) {
        let selected = self.tags.iter().filter(|(_, tag)| tag.life.is_some());
        let selected: Vec<(&Tag, &TagRecord, &Version)> = selected
            .filter_map(|(tag, record)| Some((tag, record, record.version.as_ref()?)))
            .collect();
        let kept_of = |counts: &dyn Fn(&TagRecord) -> bool| {
            let counted = selected.iter().filter(|(_, record, _)| counts(record));
            let versions = counted.map(|(tag, _, version)| (*tag, (*version).clone()));
            kept(&versions.collect(), lifecycle.keep)
        };
        let kept = kept_of(&|_| true);
        // A newer tag that vanished puts nothing more out of life. A mark stays until the tag is gone for the settle time.
        let kept_by_list = kept_of(&|record| record.vanished.is_none());
        let is_kept = |tag: &Tag, record: &TagRecord| {
            kept.contains(tag) || (kept_by_list.contains(tag) && !marked.contains(&record.digest))
        };
        let life = |tag: &Tag, record: &TagRecord, version: &Version| {
            let mut release = version.clone();
            release.pre = semver::Prerelease::EMPTY;
            let cycle = lifecycle
                .cycles
                .iter()
                .find(|(range, _)| range.matches(&release));
            let is_alive = lifecycle
                .alive
                .iter()
                .any(|pattern| glob(pattern, tag.as_str()));
            match cycle {
                Some((_, date)) if date.instant() <= now.as_duration() => Life::Ended(date.clone()),
                Some((_, date)) => Life::Alive(Some(date.clone())),
                None if is_alive || is_kept(tag, record) => Life::Alive(None),
                None => {
                    let known = previous.out_of_life.get(tag.as_str());
                    match (known, record.vanished) {
                        (Some(since), _) => Life::Fallen(since.0),
                        (None, None) => Life::Fallen(now),
                        // A tag that vanished does not fall out.
                        (None, Some(_)) => Life::Alive(None),
                    }
                }
            }
        };
        let lives: Vec<(Tag, Life)> = selected
            .iter()
            .map(|(tag, record, version)| ((*tag).clone(), life(tag, record, version)))
            .collect();
        let frozen = lives.iter().zip(&selected);
        let frozen = frozen.filter(|((tag, life), (_, record, _))| {
            matches!(life, Life::Fallen(_))
                && kept_by_list.contains(tag)
                && marked.contains(&record.digest)
        });
        self.frozen = frozen
            .map(|(_, (_, record, _))| record.digest.clone())
            .collect();
        for (tag, life) in lives {
            if let Some(record) = self.tags.get_mut(&tag) {
                record.life = Some(life);
            }
        }
    }

    fn add_left(
        &mut self,
        policy: &SetPolicy,
        lifecycle: &LifecyclePolicy,
        previous: &RepositoryStatus,
        now: Timestamp,
    ) {
        let known = previous.left.iter().filter_map(|left| {
            Some((
                left.digest.parse().ok()?,
                left.tag.parse().ok()?,
                left.since.0,
            ))
        });
        let moved = remembered(previous).filter_map(|(tag, digest)| {
            let current = self.tags.get(&tag)?;
            (current.digest != digest).then_some((digest, tag, now))
        });
        let all: Vec<(Digest, Tag, Timestamp)> = known.chain(moved).collect();
        let mut digests = BTreeSet::new();
        for (digest, tag, since) in all {
            let is_selected = policy.tags.selects(&tag);
            let is_settled = lifecycle.is_settled(since, now);
            let matters = is_selected || !is_settled;
            if !self.is_named(&digest) && matters && digests.insert(digest.clone()) {
                self.left.push(Left {
                    digest,
                    tag,
                    since,
                    is_selected,
                    is_settled,
                });
            }
        }
        let excess = self.left.len().saturating_sub(MAX_LEFT);
        self.left.drain(..excess);
    }

    /// Decides which images are in use and which are out of life.
    fn judge(&mut self, lifecycle: &LifecyclePolicy, marked: &BTreeSet<Digest>, now: Timestamp) {
        let mut by_digest: BTreeMap<&Digest, Vec<(&Tag, &TagRecord)>> = BTreeMap::new();
        for (tag, record) in &self.tags {
            by_digest
                .entry(&record.digest)
                .or_default()
                .push((tag, record));
        }
        for (digest, tags) in by_digest {
            let dates = tags.iter().map(|(_, record)| match &record.life {
                Some(Life::Ended(date)) => Some((date.clone(), true)),
                Some(Life::Fallen(since)) => {
                    let is_settled = marked.contains(digest) || lifecycle.is_settled(*since, now);
                    is_settled.then(|| (lifecycle.date(*since), false))
                }
                Some(Life::Alive(_)) | None => None,
            });
            let dates: Option<Vec<(EndOfLifeDate, bool)>> = dates.collect();
            let latest = dates.and_then(|dates| {
                dates
                    .into_iter()
                    .max_by_key(|(date, is_calendar)| (date.instant(), *is_calendar))
            });
            let Some((date, is_calendar)) = latest else {
                self.in_use.insert(digest.clone());
                continue;
            };
            // A tag that vanished is not out of life.
            if self.frozen.contains(digest)
                || tags.iter().all(|(_, record)| record.vanished.is_some())
            {
                continue;
            }
            let tags = tags.iter().map(|(tag, _)| (*tag).clone()).collect();
            self.candidates.insert(
                digest.clone(),
                Candidate {
                    tags,
                    date,
                    is_calendar,
                },
            );
        }
        for left in &self.left {
            if !left.is_settled && !marked.contains(&left.digest) {
                self.in_use.insert(left.digest.clone());
            } else if left.is_selected {
                self.candidates.insert(
                    left.digest.clone(),
                    Candidate {
                        tags: BTreeSet::from([left.tag.clone()]),
                        date: lifecycle.date(left.since),
                        is_calendar: false,
                    },
                );
            }
        }
    }

    /// Returns the number of tags that status remembers.
    pub(super) fn remembered(&self) -> usize {
        self.tags.len()
    }

    /// Writes what the next pass needs to know.
    pub(super) fn save(&self, status: &mut RepositoryStatus) {
        let count = |number: usize| i64::try_from(number).ok();
        let is_selected = |record: &&TagRecord| record.life.is_some();
        let listed = self.tags.values().filter(|tag| tag.vanished.is_none());
        status.tags = count(self.listed);
        status.selected = count(listed.filter(is_selected).count());
        for (tag, record) in &self.tags {
            let (tag, digest) = (tag.to_string(), record.digest.to_string());
            if let Some(Life::Fallen(since)) = &record.life {
                status.out_of_life.insert(tag.clone(), Time(*since));
            }
            if let Some(since) = record.vanished {
                status.vanished.insert(tag.clone(), Time(since));
            }
            let seen = if record.life.is_some() {
                &mut status.seen
            } else {
                &mut status.in_use
            };
            seen.insert(tag, digest);
        }
        status.left = self
            .left
            .iter()
            .map(|left| LeftImage {
                digest: left.digest.to_string(),
                tag: left.tag.to_string(),
                since: Time(left.since),
            })
            .collect();
    }
}

/// Returns the tags of the previous pass with their digests.
#[must_use = "iterators are lazy"]
pub fn remembered(previous: &RepositoryStatus) -> impl Iterator<Item = (Tag, Digest)> + '_ {
    previous
        .seen
        .iter()
        .chain(&previous.in_use)
        .filter_map(|(tag, digest)| Some((tag.parse().ok()?, digest.parse().ok()?)))
}
