//! The content of the registry: repositories with manifests, blobs, tags and uploads. It is
//! independent of HTTP.
//!
//! A [`Store`] is a handle: clones share the content. Two servers may share one, as a registry and
//! its host for blob uploads do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use super::digest::{Algorithm, digest, fallback_tag};
use super::lock;
use super::quirk::Lag;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The content of a registry.
#[derive(Clone, Default)]
pub struct Store {
    data: Arc<Mutex<Data>>,
}

/// A manifest as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its digest, by the algorithm it was pushed with.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Manifest {
    /// The manifest as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// `mediaType`, `digest` and `size`.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    /// The digests of the manifests that this one lists.
    pub(super) fn children(&self) -> Vec<String> {
        let json = self.json();
        let entries = json
            .get("manifests")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| entry.get("digest")?.as_str().map(str::to_owned))
            .collect()
    }
}

#[derive(Default)]
pub(super) struct Data {
    repositories: BTreeMap<String, Repository>,
    clock: u64,
}

#[derive(Default)]
pub(super) struct Repository {
    pub(super) manifests: BTreeMap<String, Held>,
    pub(super) tags: BTreeMap<String, Tag>,
    pub(super) blobs: BTreeMap<String, Bytes>,
    pub(super) uploads: BTreeMap<String, Vec<u8>>,
}

pub(super) struct Held {
    pub(super) manifest: Manifest,
    pub(super) subject: Option<String>,
    order: u64,
    unseen: Unseen,
}

/// A tag, with the old value that lagging readers see.
pub(super) struct Tag {
    digest: String,
    before: Option<String>,
    unseen: Unseen,
}

/// The rest of a lag.
struct Unseen {
    reads: u32,
    until: Option<Instant>,
}

impl Unseen {
    fn new(lag: Lag) -> Self {
        Self {
            reads: lag.reads,
            until: Instant::now().checked_add(lag.time),
        }
    }

    /// Counts a read; whether it sees the new state.
    fn read(&mut self) -> bool {
        if self.until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let seen = self.reads == 0;
        self.reads = self.reads.saturating_sub(1);
        seen
    }
}

impl Tag {
    /// The digest that a reader sees, if any.
    pub(super) fn read(&mut self) -> Option<String> {
        if self.unseen.read() {
            Some(self.digest.clone())
        } else {
            self.before.clone()
        }
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest
    }
}

impl Repository {
    /// The manifests with this subject that a reader sees, in the order of their push.
    pub(super) fn read_referrers(&mut self, subject: &str) -> Vec<Manifest> {
        let named = self
            .manifests
            .values_mut()
            .filter(|held| held.subject.as_deref() == Some(subject));
        let mut seen: Vec<_> = named
            .filter_map(|held| held.unseen.read().then_some(&*held))
            .collect();
        seen.sort_by_key(|held| held.order);
        seen.into_iter().map(|held| held.manifest.clone()).collect()
    }

    /// Returns true if an index of the repository lists `digest`.
    pub(super) fn references(&self, digest: &str) -> bool {
        self.manifests
            .values()
            .any(|held| held.manifest.children().iter().any(|child| child == digest))
    }

    /// Takes a manifest and the tags that name it away; whether it was there.
    pub(super) fn remove(&mut self, digest: &str) -> bool {
        self.tags.retain(|_, tag| tag.digest != digest);
        self.manifests.remove(digest).is_some()
    }
}

impl Data {
    pub(super) fn repository(&mut self, name: &str) -> Option<&mut Repository> {
        self.repositories.get_mut(name)
    }

    pub(super) fn repository_or_new(&mut self, name: &str) -> &mut Repository {
        self.repositories.entry(name.to_owned()).or_default()
    }

    /// A number that was not given before.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Keeps a manifest, and points a tag at it.
    pub(super) fn insert(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        manifest: Manifest,
        lags: (Lag, Lag),
    ) {
        let order = self.tick();
        let subject = manifest
            .json()
            .pointer("/subject/digest")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let repository = self.repository_or_new(repository);
        let digest = manifest.digest.clone();
        let (listing_lag, tag_lag) = lags;
        repository
            .manifests
            .entry(digest.clone())
            .or_insert_with(|| Held {
                manifest,
                subject,
                order,
                unseen: Unseen::new(listing_lag),
            });
        if let Some(tag) = tag {
            let before = repository.tags.get(tag).map(|tag| tag.digest.clone());
            let unseen = if before.as_ref() == Some(&digest) {
                Lag::default()
            } else {
                tag_lag
            };
            repository.tags.insert(
                tag.to_owned(),
                Tag {
                    digest,
                    before,
                    unseen: Unseen::new(unseen),
                },
            );
        }
    }
}

impl Store {
    /// Locks the content.
    pub(super) fn data(&self) -> MutexGuard<'_, Data> {
        lock(&self.data)
    }

    /// Makes an empty repository.
    pub fn create(&self, repository: &str) {
        self.data().repository_or_new(repository);
    }

    /// Stores `bytes` as a manifest, tagged if `tag` is given, and returns its sha256 digest.
    /// Nothing is checked.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> String {
        self.put_manifest_by(Algorithm::Sha256, repository, tag, media_type, bytes)
    }

    /// As [`put_manifest`](Self::put_manifest), with the digest by `algorithm`.
    pub fn put_manifest_by(
        &self,
        algorithm: Algorithm,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> String {
        let bytes = bytes.into();
        let digest = algorithm.digest(&bytes);
        let manifest = Manifest {
            digest: digest.clone(),
            media_type: media_type.to_owned(),
            bytes,
        };
        self.data()
            .insert(repository, tag, manifest, (Lag::default(), Lag::default()));
        digest
    }

    /// Serves `bytes` under a digest that is not theirs.
    pub fn put_manifest_as(
        &self,
        repository: &str,
        digest: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) {
        let manifest = Manifest {
            digest: digest.to_owned(),
            media_type: media_type.to_owned(),
            bytes: bytes.into(),
        };
        self.data()
            .insert(repository, None, manifest, (Lag::default(), Lag::default()));
    }

    /// Keeps `bytes` as a blob and gives its sha256 digest.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        self.data()
            .repository_or_new(repository)
            .blobs
            .insert(digest.clone(), bytes);
        digest
    }

    /// Points a tag at a digest, whether there is such a manifest or not.
    pub fn put_tag(&self, repository: &str, tag: &str, digest: &str) {
        let pointer = Tag {
            digest: digest.to_owned(),
            before: None,
            unseen: Unseen::new(Lag::default()),
        };
        self.data()
            .repository_or_new(repository)
            .tags
            .insert(tag.to_owned(), pointer);
    }

    /// Takes a manifest away, with the tags that name it and nothing else: an index or fallback tag that lists it is left dangling.
    pub fn delete_manifest(&self, repository: &str, digest: &str) -> bool {
        self.data()
            .repository(repository)
            .is_some_and(|repository| repository.remove(digest))
    }

    /// Takes a tag away.
    pub fn delete_tag(&self, repository: &str, tag: &str) -> bool {
        self.data()
            .repository(repository)
            .is_some_and(|repository| repository.tags.remove(tag).is_some())
    }

    /// Takes a blob away.
    pub fn delete_blob(&self, repository: &str, digest: &str) -> bool {
        self.data()
            .repository(repository)
            .is_some_and(|repository| repository.blobs.remove(digest).is_some())
    }

    /// Returns a manifest by tag or digest, regardless of lags.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        let mut data = self.data();
        let repository = data.repository(repository)?;
        let digest = repository
            .tags
            .get(reference)
            .map_or(reference, Tag::digest);
        repository
            .manifests
            .get(digest)
            .map(|held| held.manifest.clone())
    }

    /// The bytes that a tag names.
    #[must_use]
    pub fn raw_tag(&self, repository: &str, tag: &str) -> Option<Bytes> {
        let named = self.tag(repository, tag)?;
        self.manifest(repository, &named)
            .map(|manifest| manifest.bytes)
    }

    /// The digest that a tag names.
    #[must_use]
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        self.data()
            .repository(repository)?
            .tags
            .get(tag)
            .map(|tag| tag.digest.clone())
    }

    /// All tags, sorted.
    #[must_use]
    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.data()
            .repository(repository)
            .map(|repository| repository.tags.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// A blob.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.data()
            .repository(repository)?
            .blobs
            .get(digest)
            .cloned()
    }

    /// Returns the number of manifests.
    #[must_use]
    pub fn manifest_count(&self, repository: &str) -> usize {
        self.data()
            .repository(repository)
            .map_or(0, |repository| repository.manifests.len())
    }

    /// Returns every manifest with `digest` as its subject, in the order of push, regardless of
    /// listings and fallback tags.
    #[must_use]
    pub fn referrers(&self, repository: &str, digest: &str) -> Vec<Manifest> {
        let mut data = self.data();
        let Some(repository) = data.repository(repository) else {
            return Vec::new();
        };
        let mut held: Vec<_> = repository
            .manifests
            .values()
            .filter(|held| held.subject.as_deref() == Some(digest))
            .collect();
        held.sort_by_key(|held| held.order);
        held.into_iter().map(|held| held.manifest.clone()).collect()
    }

    /// The entries of the fallback tag of `subject`, as written.
    #[must_use]
    pub fn fallback_entries(&self, repository: &str, subject: &str) -> Vec<Value> {
        let bytes = self
            .raw_tag(repository, &fallback_tag(subject))
            .unwrap_or_default();
        let index: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        index
            .get("manifests")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    }

    /// Acts as another writer between a client's read and write: reads the fallback tag of
    /// `subject`, adds `entry`, and writes it. Returns the digest.
    pub fn append_fallback(&self, repository: &str, subject: &str, entry: Value) -> String {
        let mut entries = self.fallback_entries(repository, subject);
        entries.push(entry);
        self.put_fallback(repository, subject, &entries)
    }

    /// Writes the fallback tag of `subject` with these entries and no others. Gives the digest.
    pub fn put_fallback(&self, repository: &str, subject: &str, entries: &[Value]) -> String {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.put_manifest(
            repository,
            Some(&fallback_tag(subject)),
            INDEX,
            index.to_string(),
        )
    }
}
