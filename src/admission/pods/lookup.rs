//! Registry look-ups for the images of pods. A tag is resolved to its digest for every review (not
//! cached). The marks of a digest are cached per credential.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join, try_join_all};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::admission::options::LifecycleType;
use crate::admission::options::Lookups;
use crate::admission::pods::lifecycle_report::{LifecycleReport, PlatformReport};
use crate::admission::pods::mark::Mark;
use crate::admission::review::single_flight::{SingleFlightCache, Source};
use crate::attachment::{EntryKind, Image};
use affix_registry::oci::{Descriptor, Digest, Manifest, Platform, Reference, Repository, Tag};
use affix_registry::{
    Access, ErrorKind, HostPattern, Keychain, Locator, Registries, RegistryError, Session,
};

/// Time limit of a look-up. It continues after the review has given up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Period in which a repository is not queried again after a failure.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// Concurrent look-ups in total and per namespace. One namespace with a slow registry cannot block the
/// others.
const MAX_LOOKUPS: usize = 128;
const MAX_LOOKUPS_PER_NAMESPACE: usize = 16;
/// Maximum number of platforms per image.
const MAX_PLATFORMS: usize = 32;
/// Maximum length of a platform name. A hostile registry could fill the cache with longer ones.
const MAX_PLATFORM_CHARS: usize = 128;
/// Maximum number of referrers whose manifests are read because the listing lacks type or annotation.
const MAX_MANIFESTS_READ: usize = 8;

/// The cause of a failed look-up, for a warning.
pub(crate) type FailureMessage = Arc<str>;

/// Identity of the registry session, repository and subject.
type Key<T> = (Digest, Repository, T);
/// The result of a look-up of marks.
type MarksResult = Result<Arc<LifecycleReport>, FailureMessage>;

/// Looks up images in registries.
pub(crate) struct RegistryLookup {
    registries: Registries,
    types: Arc<[LifecycleType]>,
    insecure: Vec<HostPattern>,
    tags: Arc<SingleFlightCache<Key<Tag>, Result<Digest, FailureMessage>>>,
    marks: Arc<SingleFlightCache<Key<Digest>, MarksResult>>,
    state: Arc<LookupState>,
}

/// The state of all look-ups.
struct LookupState {
    permits: Semaphore,
    /// The permits of each namespace with look-ups in flight.
    namespace_permits: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
    /// Failed repositories, with time and cause. The key is not the whole registry: a tenant whose own
    /// image fails must not block the images of others.
    recent_failures: Mutex<HashMap<(Digest, Repository), (Instant, FailureMessage)>>,
}

/// A session for the repository of one image.
pub(crate) struct ImageSession(Session);

impl RegistryLookup {
    pub(crate) fn new(registries: Registries, options: &Lookups) -> Self {
        Self {
            registries,
            types: options.lifecycle_types.clone().into(),
            insecure: options.insecure_registries.clone(),
            tags: SingleFlightCache::new(Duration::ZERO),
            marks: SingleFlightCache::new(options.cache_ttl),
            state: Arc::new(LookupState {
                permits: Semaphore::new(MAX_LOOKUPS),
                namespace_permits: Mutex::default(),
                recent_failures: Mutex::default(),
            }),
        }
    }

    /// Opens a session without sending a request.
    ///
    /// # Errors
    /// The registry is not allowed, or the repository has just failed.
    pub(crate) fn open(
        &self,
        reference: &Reference,
        credentials: Keychain,
    ) -> Result<ImageSession, FailureMessage> {
        let insecure = self
            .insecure
            .iter()
            .any(|pattern| pattern.matches(&reference.host));
        let access = Access {
            credentials,
            insecure,
            ..Access::default()
        };
        let session = self
            .registries
            .open(&reference.host, &reference.repository, access)
            .map_err(|error| message(&error))?;
        let recent_failures = self
            .state
            .recent_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match recent_failures.get(&failure_key(&session)) {
            Some((at, message)) if at.elapsed() < FAILURE_TTL => Err(Arc::clone(message)),
            _ => Ok(ImageSession(session)),
        }
    }

    /// Resolves a tag to its digest.
    ///
    /// # Errors
    /// The registry does not answer, or refuses.
    pub(crate) async fn resolve(
        &self,
        image: &ImageSession,
        namespace: &str,
        tag: &Tag,
    ) -> Result<Digest, FailureMessage> {
        let session = &image.0;
        let key = (
            session.identity().clone(),
            session.repository().clone(),
            tag.clone(),
        );
        let namespace_permit = self.state.namespace_permit(namespace).await;
        let fetch = || {
            let (session, state, tag) = (session.clone(), Arc::clone(&self.state), tag.clone());
            async move {
                let _permit = namespace_permit;
                state
                    .run(&session, async |session| {
                        session
                            .head(&Locator::Tag(tag))
                            .await
                            .map(|head| head.digest)
                    })
                    .await
            }
        };
        let (answer, _) = self.tags.get(key, |_| false, fetch).await;
        answer.unwrap_or_else(panicked)
    }

    /// Returns the marks of an image and its platforms, possibly from the cache.
    ///
    /// # Errors
    /// The registry does not answer, or refuses.
    pub(crate) async fn marks(
        &self,
        image: &ImageSession,
        namespace: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<(Arc<LifecycleReport>, Source), FailureMessage> {
        let session = &image.0;
        let key = (
            session.identity().clone(),
            session.repository().clone(),
            digest.clone(),
        );
        if let Some(answer) = self.marks.cached(&key) {
            return answer.map(|report| (report, Source::Cache));
        }
        let namespace_permit = self.state.namespace_permit(namespace).await;
        let fetch = || {
            let (session, state, types, digest) = (
                session.clone(),
                Arc::clone(&self.state),
                Arc::clone(&self.types),
                digest.clone(),
            );
            async move {
                let _permit = namespace_permit;
                state
                    .run(&session, async |session| {
                        read_lifecycle(session, &digest, &types, now)
                            .await
                            .map(Arc::new)
                    })
                    .await
            }
        };
        let (answer, from) = self.marks.get(key, Result::is_ok, fetch).await;
        answer.unwrap_or_else(panicked).map(|report| (report, from))
    }
}

fn panicked<T>() -> Result<T, FailureMessage> {
    Err("the look-up panicked: please report this bug".into())
}

fn message(error: &RegistryError) -> FailureMessage {
    error.to_string().into()
}

/// Returns the key of a failed repository.
fn failure_key(session: &Session) -> (Digest, Repository) {
    (session.identity().clone(), session.repository().clone())
}

impl LookupState {
    /// Acquires a look-up permit of `namespace`. It is acquired before the look-up starts, because
    /// other namespaces may share the look-up and must not wait for this permit.
    async fn namespace_permit(&self, namespace: &str) -> Option<OwnedSemaphorePermit> {
        let permits = {
            let mut all = self
                .namespace_permits
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, permits| Arc::strong_count(permits) > 1);
            Arc::clone(
                all.entry(namespace.into())
                    .or_insert_with(|| Arc::new(Semaphore::new(MAX_LOOKUPS_PER_NAMESPACE))),
            )
        };
        permits.acquire_owned().await.ok()
    }

    /// Runs one look-up within the time limit and records a failure.
    async fn run<T>(
        &self,
        session: &Session,
        work: impl AsyncFnOnce(&Session) -> Result<T, RegistryError>,
    ) -> Result<T, FailureMessage> {
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let Ok(_permit) = timeout_at(deadline, self.permits.acquire()).await else {
            return Err("too many look-ups in flight: try again".into());
        };
        let session = session.clone().until(deadline);
        let message: FailureMessage = match timeout_at(deadline, work(&session)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if error.kind() != ErrorKind::RegistryUnavailable => {
                return Err(message(&error));
            }
            Ok(Err(error)) => message(&error),
            Err(_) => format!(
                "{} did not answer within {} s",
                session.host(),
                LOOKUP_TIMEOUT.as_secs()
            )
            .into(),
        };
        let mut recent_failures = self
            .recent_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recent_failures.retain(|_, (at, _)| at.elapsed() < FAILURE_TTL);
        recent_failures.insert(
            failure_key(&session),
            (Instant::now(), Arc::clone(&message)),
        );
        Err(message)
    }
}

/// Reads an image, its marks and the marks of its platforms, in two rounds of requests.
async fn read_lifecycle(
    session: &Session,
    digest: &Digest,
    types: &[LifecycleType],
    now: Timestamp,
) -> Result<LifecycleReport, RegistryError> {
    let locator = Locator::Digest(digest.clone());
    let (fetched, mark) = try_join(
        session.manifest(&locator),
        newest_mark(session, digest, types, now),
    )
    .await?;
    let platforms = match &fetched.manifest {
        Manifest::Image(_) => Vec::new(),
        Manifest::Index(index) => {
            let max = index.manifests.len() + 1;
            let image = Image::from_manifest(
                &fetched.descriptor(),
                &fetched.manifest,
                &BTreeMap::new(),
                None,
                max,
            );
            let entries = image.map(|image| image.entries).unwrap_or_default();
            let found: Vec<(Digest, Vec<Platform>)> = entries
                .into_iter()
                .filter_map(|entry| match entry.kind {
                    EntryKind::Platform(platforms) if !platforms.is_empty() => {
                        Some((entry.subject.digest, platforms))
                    }
                    _ => None,
                })
                .take(MAX_PLATFORMS)
                .collect();
            let marks = try_join_all(
                found
                    .iter()
                    .map(|(digest, _)| newest_mark(session, digest, types, now)),
            )
            .await?;
            let each = found.into_iter().zip(marks);
            each.flat_map(|((digest, platforms), mark)| {
                let plausible = platforms
                    .into_iter()
                    .filter(|platform| platform.to_string().len() <= MAX_PLATFORM_CHARS);
                plausible.map(move |platform| PlatformReport {
                    platform,
                    digest: digest.clone(),
                    mark: mark.clone(),
                })
            })
            .collect()
        }
    };
    Ok(LifecycleReport {
        digest: digest.clone(),
        mark,
        platforms,
    })
}

/// Returns the effective mark of one manifest.
async fn newest_mark(
    session: &Session,
    subject: &Digest,
    types: &[LifecycleType],
    now: Timestamp,
) -> Result<Option<Mark>, RegistryError> {
    let marks = try_join_all(
        types
            .iter()
            .map(|kind| marks_of_type(session, subject, kind, now)),
    )
    .await?;
    Ok(Mark::newest(marks.into_iter().flatten()))
}

async fn marks_of_type(
    session: &Session,
    subject: &Digest,
    kind: &LifecycleType,
    now: Timestamp,
) -> Result<Vec<Mark>, RegistryError> {
    let listing = session
        .referrers(subject, Some(&kind.artifact_type))
        .await?;
    let is_complete = |entry: &Descriptor| {
        entry.listed_type().is_some() && entry.annotations.contains_key(&*kind.annotation)
    };
    let (listed, open): (Vec<_>, Vec<_>) =
        listing.entries.iter().partition(|entry| is_complete(entry));
    let mut marks: Vec<Mark> = listed
        .iter()
        .filter_map(|entry| Mark::read(&entry.annotations, kind, now))
        .collect();
    // Some registries list neither artifact type nor annotations, so the manifest is read.
    let read = open.iter().take(MAX_MANIFESTS_READ).map(|entry| async {
        match session
            .manifest(&Locator::Digest(entry.digest.clone()))
            .await
        {
            Ok(fetched) => Ok(Some(fetched)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    });
    for fetched in join_all(read).await {
        if let Some(Manifest::Image(manifest)) = fetched?.map(|fetched| fetched.manifest)
            && manifest.effective_artifact_type() == kind.artifact_type.as_str()
        {
            marks.extend(Mark::read(&manifest.annotations, kind, now));
        }
    }
    Ok(marks)
}
