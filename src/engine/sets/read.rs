//! Reads one repository of a set: the list of its tags, their digests, and the indexes that the computation needs.
//!
//! The list is read whole or not at all. At rest it is the only request for immutable tags; mutable tags cost one HEAD each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::api::{Reason, RepositoryStatus};
use crate::attachment::EndOfLifeDate;
use crate::attachment::sets::{
    ExistingChild, MAX_TAGS_IN_USE, SetPolicy, SetRepository, TagState, remembered,
};
use crate::engine::failure::Failure;
use crate::engine::observe::tags_in_use::{CONCURRENCY, read_root};
use crate::engine::passes::run::Engine;
use affix_registry::oci::{Digest, Tag};
use affix_registry::{Access, ErrorKind, Locator, Session};

use super::recovered;

/// The maximum number of tags of a repository, which bounds the memory of a pass.
const MAX_LISTED: usize = 100_000;

/// The manifests that images reach, by the digest of the image. Content-addressed, so that an entry never changes.
///
/// One cache belongs to one set, because different sets may have different access. A pass keeps the entries that it used.
#[derive(Debug, Default)]
pub struct ReachCache(Mutex<BTreeMap<Digest, Arc<BTreeSet<Digest>>>>);

impl ReachCache {
    fn get(&self, root: &Digest) -> Option<Arc<BTreeSet<Digest>>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(root).cloned()
    }

    fn insert(&self, root: Digest, reaches: Arc<BTreeSet<Digest>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(root, reaches);
    }

    /// Drops the entries of images that `wanted` does not hold.
    pub fn retain(&self, wanted: &BTreeSet<Digest>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|root, _| wanted.contains(root));
    }
}

/// A repository to read.
#[derive(Debug)]
pub struct RepositoryReading<'a> {
    /// The parsed spec of the set.
    pub policy: &'a SetPolicy,
    /// The repository.
    pub repository: &'a SetRepository,
    /// The access to its registry.
    pub access: &'a Access,
    /// Its status of the previous pass.
    pub previous: Option<&'a RepositoryStatus>,
    /// The children of the set, of all repositories.
    pub children: &'a [ExistingChild],
    /// The number of new marks that the user accepts.
    pub confirmed: Option<usize>,
    /// The indexes that earlier passes read.
    pub cache: &'a ReachCache,
    /// The maximum time.
    pub timeout: Duration,
    /// The time of the pass.
    pub now: Timestamp,
}

/// The tags of a repository, and the manifests that they reach.
#[derive(Debug, Clone)]
pub struct RepositoryRead {
    /// Its tags.
    pub state: TagState,
    /// The manifests that each image reaches that the computation needs.
    pub reaches: BTreeMap<Digest, BTreeSet<Digest>>,
    /// The dates of marks of an earlier pass.
    pub recovered: BTreeMap<Digest, EndOfLifeDate>,
    /// The number of requests to the registry, without those for tokens.
    pub requests: u64,
}

impl Engine {
    /// Reads a repository of a set. It writes nothing.
    ///
    /// # Errors
    /// The failure for which nothing changes in this repository: a page or a tag that cannot be read, `LimitExceeded` for too many tags,
    /// `NotFound` for a repository that is gone or that lists no tag although it had some.
    pub async fn read_repository(
        &self,
        reading: &RepositoryReading<'_>,
    ) -> Result<RepositoryRead, Failure> {
        let options = self.options();
        let limit = options.bounded(reading.timeout);
        let deadline = Instant::now() + limit;
        let SetRepository {
            host, repository, ..
        } = reading.repository;
        let session = self
            .registries()
            .open(host, repository, reading.access.clone())?
            .until(deadline);
        let read = timeout_at(deadline, self.read(&session, reading)).await;
        read.unwrap_or_else(|_| {
            Err(Failure::new(
                Reason::RegistryUnavailable,
                format_args!(
                    "{host} is slow: the tags of {} were not read within {} s (spec.template.spec.timeout)",
                    reading.repository.name,
                    limit.as_secs_f64()
                ),
            ))
        })
    }

    async fn read(
        &self,
        session: &Session,
        reading: &RepositoryReading<'_>,
    ) -> Result<RepositoryRead, Failure> {
        let (tags, listed) = list(session, reading).await?;
        let tags = resolve(session, reading, tags).await?;
        let name = &reading.repository.name;
        let own = reading
            .children
            .iter()
            .filter(|child| child.repository == *name);
        let marked: BTreeSet<Digest> = own.map(|child| child.root.clone()).collect();
        let mut state = TagState::observe(
            reading.policy,
            &tags,
            listed,
            reading.previous,
            &marked,
            reading.now,
        );
        let limits = &self.registries().options().limits;
        let roots = state.roots_to_read(!marked.is_empty());
        let reaches: Vec<(Digest, Option<Arc<BTreeSet<Digest>>>)> = stream::iter(roots)
            .map(|root| async move {
                if let Some(known) = reading.cache.get(&root) {
                    return Ok((root, Some(known)));
                }
                let read = read_root(session, limits, root.clone()).await?;
                if read.is_gone {
                    return Ok((root, None));
                }
                let reaches = Arc::new(read.reaches);
                reading.cache.insert(root.clone(), Arc::clone(&reaches));
                Ok::<_, Failure>((root, Some(reaches)))
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let mut known = BTreeMap::new();
        for (root, reaches) in reaches {
            match reaches {
                Some(reaches) => {
                    known.insert(root, BTreeSet::clone(&reaches));
                }
                None => state.forget(&root),
            }
        }
        let recovered = recovered::dates(session, reading, &state, &marked).await?;
        Ok(RepositoryRead {
            state,
            reaches: known,
            recovered,
            requests: session.requests(),
        })
    }
}

/// Lists the tags that matter. Returns them and the number of all tags.
async fn list(
    session: &Session,
    reading: &RepositoryReading<'_>,
) -> Result<(Vec<Tag>, usize), Failure> {
    let policy = reading.policy;
    let listed = AtomicUsize::new(0);
    let mut tags = session
        .list_tags(MAX_LISTED, |tag| {
            // On a registry without the referrers API, each attachment adds a tag.
            if !tag.is_referrers_tag() {
                listed.fetch_add(1, Ordering::Relaxed);
            }
            policy.considers(tag)
        })
        .await?;
    // A registry that repeats a tag on two pages has it once.
    tags.sort();
    tags.dedup();
    let selected = tags.iter().filter(|tag| policy.tags.selects(tag)).count();
    let in_use = tags.len() - selected;
    if selected > policy.limit {
        return Err(Failure::new(
            Reason::LimitExceeded,
            format_args!(
                "spec.tags selects {selected} tags, more than {} (spec.tags.limit): select fewer tags, or raise the limit",
                policy.limit
            ),
        ));
    }
    if in_use > MAX_TAGS_IN_USE {
        return Err(Failure::new(
            Reason::LimitExceeded,
            format_args!(
                "{in_use} tags that are not selected keep images in use, more than {MAX_TAGS_IN_USE}: leave some out in \
                 spec.lifecycle.unlessTagged"
            ),
        ));
    }
    let listed = listed.into_inner();
    let before = reading.previous.map_or(0, |previous| previous.seen.len());
    if listed == 0 && before > 0 {
        return Err(Failure::new(
            Reason::NotFound,
            format_args!("the registry lists no tag, and {before} selected tags were there before"),
        ));
    }
    Ok((tags, listed))
}

/// Returns the digests of tags. A tag that was deleted in the meantime is left out.
async fn resolve(
    session: &Session,
    reading: &RepositoryReading<'_>,
    tags: Vec<Tag>,
) -> Result<BTreeMap<Tag, Digest>, Failure> {
    let known: BTreeMap<Tag, Digest> = reading
        .previous
        .filter(|_| reading.policy.immutable)
        .map(|previous| remembered(previous).collect())
        .unwrap_or_default();
    let known = &known;
    let heads: Vec<Option<(Tag, Digest)>> = stream::iter(tags)
        .map(|tag| async move {
            if let Some(digest) = known.get(&tag) {
                return Ok(Some((tag, digest.clone())));
            }
            match session.head(&Locator::Tag(tag.clone())).await {
                Ok(head) => Ok(Some((tag, head.digest))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Failure::from(error)),
            }
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    Ok(heads.into_iter().flatten().collect())
}
