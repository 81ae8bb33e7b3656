//! The entries of a tag during an update: the change, foreign entries, and lost entries.

use std::collections::{HashMap, HashSet};

use super::{TagChange, TagContent, TagDocument};
use crate::error::RegistryError;
use crate::oci::{Digest, RawDocument, RawEntry};

/// Maximum number of times that a lost entry is restored. An entry that is lost more often is being
/// removed by its owner.
const MAX_RESTORES: u32 = 3;

/// The entries that an update has read, and the change that it applies to them.
pub(super) struct Entries {
    add: Vec<RawEntry>,
    remove: Vec<Digest>,
    /// All entries of all reads, in order.
    seen: Vec<RawEntry>,
    seen_ids: HashSet<Digest>,
    /// Results of HEAD requests for the content of entries that were dropped.
    exists: HashMap<Digest, bool>,
    restores: HashMap<Digest, u32>,
    /// Foreign entries that the registry rejected because their content does not exist.
    dropped: Vec<Digest>,
}

impl Entries {
    pub(super) fn new(kind: &impl TagDocument, change: &TagChange) -> Self {
        Self {
            add: change.add.iter().map(|added| kind.entry(added)).collect(),
            remove: change.remove.clone(),
            seen: Vec::new(),
            seen_ids: HashSet::new(),
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
    pub(super) fn record(&mut self, tag: Option<&TagContent>) {
        for entry in tag.iter().flat_map(|tag| &tag.document.entries) {
            if entry
                .id()
                .is_some_and(|id| self.seen_ids.insert(id.clone()))
            {
                self.seen.push(entry.clone());
            }
        }
    }

    /// Returns the document with the change applied, or `None` if nothing changes.
    pub(super) async fn merge(
        &mut self,
        kind: &impl TagDocument,
        current: Option<&TagContent>,
    ) -> Result<Option<RawDocument>, RegistryError> {
        let lost_entries = self.lost_entries(kind, current).await?;
        for entry in &lost_entries {
            if let Some(id) = entry.id() {
                *self.restores.entry(id.clone()).or_default() += 1;
            }
        }
        let mut document = current.map_or_else(|| kind.empty(), |tag| tag.document.clone());
        let stays = |id: &Digest| !self.remove.contains(id) && !self.dropped.contains(id);
        document
            .entries
            .retain(|entry| entry.id().is_none_or(stays));
        document.entries.extend(lost_entries);
        for wanted in &self.add {
            if wanted.id().is_some_and(|id| !document.contains(id)) {
                document.entries.push(wanted.clone());
            }
        }
        let same = current.map_or(document.entries.is_empty(), |tag| {
            tag.document.entries == document.entries
        });
        Ok((!same).then_some(document))
    }

    /// Returns entries of earlier reads that are no longer listed and whose content exists. A
    /// concurrent writer dropped them.
    async fn lost_entries(
        &mut self,
        kind: &impl TagDocument,
        current: Option<&TagContent>,
    ) -> Result<Vec<RawEntry>, RegistryError> {
        let listed: HashSet<&Digest> = current
            .iter()
            .flat_map(|tag| &tag.document.entries)
            .filter_map(RawEntry::id)
            .collect();
        let mut lost_entries = Vec::new();
        for entry in self.seen.clone() {
            let (Some(id), Some(digest)) = (entry.id(), entry.digest()) else {
                continue;
            };
            let is_removed = self.remove.contains(id) || self.dropped.contains(id);
            let not_restored = self
                .restores
                .get(id)
                .is_some_and(|restores| *restores >= MAX_RESTORES);
            if !listed.contains(id)
                && !is_removed
                && !not_restored
                && self.has_content(kind, digest).await?
            {
                lost_entries.push(entry);
            }
        }
        Ok(lost_entries)
    }

    async fn has_content(
        &mut self,
        kind: &impl TagDocument,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        if let Some(known) = self.exists.get(digest) {
            return Ok(*known);
        }
        let exists = kind.has_content(digest).await?;
        self.exists.insert(digest.clone(), exists);
        Ok(exists)
    }

    /// After a rejection, marks foreign entries without content for removal. If there are none,
    /// returns the rejection.
    pub(super) async fn drop_dangling(
        &mut self,
        kind: &impl TagDocument,
        refusal: RegistryError,
        merged: &RawDocument,
    ) -> Result<(), RegistryError> {
        const MAX_CHECKED: usize = 100;
        let named = refusal
            .answer()
            .map(|answer| answer.unknown.as_slice())
            .unwrap_or_default();
        let listed = || {
            let mut seen = HashSet::new();
            let digests = merged.entries.iter().filter_map(RawEntry::digest);
            digests.filter(move |digest| seen.insert(*digest))
        };
        let mut candidates: Vec<&Digest> =
            listed().filter(|digest| named.contains(digest)).collect();
        if candidates.is_empty() {
            candidates = listed().take(MAX_CHECKED).collect();
        }
        let mut gone = HashSet::new();
        for digest in candidates {
            if !kind.has_content(digest).await? {
                gone.insert(digest);
            }
        }
        let is_gone =
            |entry: &&RawEntry| entry.digest().is_some_and(|digest| gone.contains(digest));
        let ours: Vec<Digest> = self
            .add
            .iter()
            .filter(is_gone)
            .filter_map(|entry| entry.digest().cloned())
            .collect();
        if !ours.is_empty() {
            return Err(RegistryError::Dangling {
                operation: kind.operation().clone(),
                digests: ours,
            });
        }
        if gone.is_empty() {
            return Err(refusal);
        }
        let foreign = merged.entries.iter().filter(is_gone);
        self.dropped
            .extend(foreign.filter_map(|entry| entry.id().cloned()));
        Ok(())
    }

    /// Returns true if the tag contains the change and no entry was lost.
    pub(super) async fn is_satisfied(
        &mut self,
        kind: &impl TagDocument,
        current: Option<&TagContent>,
    ) -> Result<bool, RegistryError> {
        let lists = |id: &Digest| {
            let mut entries = current.iter().flat_map(|tag| &tag.document.entries);
            entries.any(|entry| entry.id() == Some(id))
        };
        let added = self
            .add
            .iter()
            .filter_map(RawEntry::id)
            .all(|wanted| current.is_some_and(|tag| tag.document.contains(wanted)));
        let removed = !self.remove.iter().any(lists) && !self.dropped.iter().any(lists);
        Ok(added && removed && self.lost_entries(kind, current).await?.is_empty())
    }
}
