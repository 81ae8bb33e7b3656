//! The content of a fallback tag during an update: the change, foreign entries, and lost entries.

use std::collections::{HashMap, HashSet};

use crate::client::session::Session;
use crate::error::{Operation, RegistryError};
use crate::oci::{Descriptor, Digest, RawEntry, RawIndex};
use crate::protocol::referrers::FallbackTag;

/// A change to the list of referrers in a fallback tag.
#[derive(Debug, Clone, Default)]
pub struct FallbackChange {
    /// Entries to add. An entry whose digest is listed is not added again. The manifests must
    /// exist.
    pub add: Vec<Descriptor>,
    /// Digests of entries to remove.
    pub remove: Vec<Digest>,
}

/// Maximum number of times that a lost entry is restored. An entry that is lost more often is being
/// removed by its owner.
const MAX_RESTORES: u32 = 3;

/// The entries that an update has read, and the change that it applies to them.
pub(super) struct FallbackEntries<'a> {
    session: &'a Session,
    change: FallbackChange,
    /// All entries of all reads, in order.
    seen: Vec<RawEntry>,
    /// Results of HEAD requests for manifests whose entries were dropped.
    exists: HashMap<Digest, bool>,
    restores: HashMap<Digest, u32>,
    /// Foreign entries that the registry rejected because their manifests do not exist.
    dropped: Vec<Digest>,
}

impl<'a> FallbackEntries<'a> {
    pub(super) fn new(session: &'a Session, change: FallbackChange) -> Self {
        Self {
            session,
            change,
            seen: Vec::new(),
            exists: HashMap::new(),
            restores: HashMap::new(),
            dropped: Vec::new(),
        }
    }

    /// Returns the foreign entries that were removed.
    pub(super) fn into_dropped(self) -> Vec<Digest> {
        self.dropped
    }

    /// Records the entries of a read.
    pub(super) fn record(&mut self, tag: Option<&FallbackTag>) {
        for entry in tag.iter().flat_map(|tag| &tag.index.entries) {
            if entry.digest().is_some()
                && !self
                    .seen
                    .iter()
                    .any(|known| known.digest() == entry.digest())
            {
                self.seen.push(entry.clone());
            }
        }
    }

    /// Returns the list with the change applied, or `None` if nothing changes.
    pub(super) async fn merge(
        &mut self,
        current: Option<&FallbackTag>,
    ) -> Result<Option<RawIndex>, RegistryError> {
        let lost_entries = self.lost_entries(current).await?;
        for entry in &lost_entries {
            if let Some(digest) = entry.digest() {
                *self.restores.entry(digest.clone()).or_default() += 1;
            }
        }
        let mut index = current.map(|tag| tag.index.clone()).unwrap_or_default();
        let stays = |digest: &Digest| {
            !self.change.remove.contains(digest) && !self.dropped.contains(digest)
        };
        index
            .entries
            .retain(|entry| entry.digest().is_none_or(stays));
        index.entries.extend(lost_entries);
        for wanted in &self.change.add {
            if !index.contains(&wanted.digest) {
                index.entries.push(RawEntry::from(wanted));
            }
        }
        let same = current.map_or(index.entries.is_empty(), |tag| {
            tag.index.entries == index.entries
        });
        Ok((!same).then_some(index))
    }

    /// Returns entries of earlier reads that are no longer listed and whose manifests exist. A
    /// concurrent writer dropped them.
    async fn lost_entries(
        &mut self,
        current: Option<&FallbackTag>,
    ) -> Result<Vec<RawEntry>, RegistryError> {
        let listed: HashSet<Digest> = current
            .iter()
            .flat_map(|tag| &tag.index.entries)
            .filter_map(|entry| entry.digest().cloned())
            .collect();
        let mut lost_entries = Vec::new();
        for entry in self.seen.clone() {
            let Some(digest) = entry.digest() else {
                continue;
            };
            let is_removed = self.change.remove.contains(digest) || self.dropped.contains(digest);
            let not_restored = self
                .restores
                .get(digest)
                .is_some_and(|restores| *restores >= MAX_RESTORES);
            if !listed.contains(digest)
                && !is_removed
                && !not_restored
                && self.manifest_exists(digest).await?
            {
                lost_entries.push(entry);
            }
        }
        Ok(lost_entries)
    }

    async fn manifest_exists(&mut self, digest: &Digest) -> Result<bool, RegistryError> {
        if let Some(known) = self.exists.get(digest) {
            return Ok(*known);
        }
        let exists = self.session.has_manifest(digest).await?;
        self.exists.insert(digest.clone(), exists);
        Ok(exists)
    }

    /// After a rejection, marks foreign entries without a manifest for removal. If there are none,
    /// returns the rejection.
    pub(super) async fn drop_dangling(
        &mut self,
        operation: &Operation,
        refusal: RegistryError,
        merged: &RawIndex,
    ) -> Result<(), RegistryError> {
        const MAX_CHECKED: usize = 100;
        let listed: Vec<Digest> = merged
            .entries
            .iter()
            .filter_map(|entry| entry.digest().cloned())
            .collect();
        let named = refusal
            .answer()
            .map(|answer| answer.unknown.as_slice())
            .unwrap_or_default();
        let mut candidates: Vec<Digest> = named
            .iter()
            .filter(|digest| listed.contains(digest))
            .cloned()
            .collect();
        if candidates.is_empty() {
            candidates = listed.into_iter().take(MAX_CHECKED).collect();
        }
        let mut gone = Vec::new();
        for digest in candidates {
            if !self.session.has_manifest(&digest).await? {
                gone.push(digest);
            }
        }
        if gone.is_empty() {
            return Err(refusal);
        }
        let is_ours = |digest: &Digest| {
            self.change
                .add
                .iter()
                .any(|wanted| wanted.digest == *digest)
        };
        let (ours, foreign): (Vec<_>, Vec<_>) = gone.into_iter().partition(is_ours);
        if !ours.is_empty() {
            return Err(RegistryError::Dangling {
                operation: operation.clone(),
                digests: ours,
            });
        }
        self.dropped.extend(foreign);
        Ok(())
    }

    /// Returns true if the tag contains the change and no entry was lost.
    pub(super) async fn is_satisfied(
        &mut self,
        current: Option<&FallbackTag>,
    ) -> Result<bool, RegistryError> {
        let names = |digest: &Digest| {
            current.is_some_and(|tag| {
                tag.index
                    .entries
                    .iter()
                    .any(|entry| entry.digest() == Some(digest))
            })
        };
        let added = self
            .change
            .add
            .iter()
            .all(|wanted| current.is_some_and(|tag| tag.index.contains(&wanted.digest)));
        let removed = !self.change.remove.iter().any(names) && !self.dropped.iter().any(names);
        Ok(added && removed && self.lost_entries(current).await?.is_empty())
    }
}
