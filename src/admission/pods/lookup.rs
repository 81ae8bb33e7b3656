//! Asking registries about the images of pods: from a tag to its digest (never remembered), from a digest to its marks
//! (remembered for a while, apart for each credential).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join, try_join_all};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::admission::options::LifecycleType;
use crate::admission::options::Lookups;
use crate::admission::pods::lifecycle_report::{Facts, OfPlatform};
use crate::admission::pods::mark::Mark;
use crate::admission::review::single_flight::{Flights, From};
use crate::attachment::{EntryKind, Image};
use affix_registry::oci::{Descriptor, Digest, Manifest, Platform, Reference, Repository, Tag};
use affix_registry::{
    Access, ErrorKind, HostPattern, Keychain, Locator, Registries, RegistryError, Session,
};

/// How long a look-up may take that nobody waits for any more.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a registry that did not answer is not asked again.
const SPARED: Duration = Duration::from_secs(5);
/// Look-ups under way at once, and those for pods of one namespace: a registry that a tenant has made slow holds up no others.
const AT_ONCE: usize = 128;
const AT_ONCE_FOR_ONE: usize = 16;
/// Platforms of one image that are asked about.
const MOST_PLATFORMS: usize = 32;
/// Characters of a platform that can be one; a longer one is what a hostile registry would have kept here.
const MOST_OF_A_PLATFORM: usize = 128;
/// Referrers of one manifest that are read where the listing does not say what they say.
const MOST_READ: usize = 8;

/// Why nothing is known, for a warning.
pub(crate) type Unknown = Arc<str>;

/// The way to a registry, a repository there, and what is asked about.
type Key<T> = (Digest, Repository, T);
/// What was learned of an image.
type Learned = Result<Arc<Facts>, Unknown>;

/// Asks registries.
pub(crate) struct Lookup {
    registries: Registries,
    types: Arc<[LifecycleType]>,
    insecure: Vec<HostPattern>,
    tags: Arc<Flights<Key<Tag>, Result<Digest, Unknown>>>,
    marks: Arc<Flights<Key<Digest>, Learned>>,
    shared: Arc<Shared>,
}

/// What look-ups share while they are under way.
struct Shared {
    permits: Semaphore,
    /// The permits of each namespace that has look-ups under way.
    of_namespaces: Mutex<HashMap<Box<str>, Arc<Semaphore>>>,
    /// Repositories whose registry did not answer about them, with when and what was said. Not whole registries: whoever can make
    /// one fail on an image of his own would keep it from being asked about those of others.
    spared: Mutex<HashMap<(Digest, Repository), (Instant, Unknown)>>,
}

/// One image's registry, and the login for it.
pub(crate) struct Asked(Session);

impl Lookup {
    pub(crate) fn new(registries: Registries, options: &Lookups) -> Self {
        Self {
            registries,
            types: options.lifecycle_types.clone().into(),
            insecure: options.insecure_registries.clone(),
            tags: Flights::new(Duration::ZERO),
            marks: Flights::new(options.cache_ttl),
            shared: Arc::new(Shared {
                permits: Semaphore::new(AT_ONCE),
                of_namespaces: Mutex::default(),
                spared: Mutex::default(),
            }),
        }
    }

    /// Opens the way to an image's registry; asks nothing yet.
    ///
    /// # Errors
    /// When the registry may not be asked, or has not answered a moment ago.
    pub(crate) fn open(
        &self,
        reference: &Reference,
        credentials: Keychain,
    ) -> Result<Asked, Unknown> {
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
            .map_err(|error| say(&error))?;
        let spared = self
            .shared
            .spared
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match spared.get(&asked_about(&session)) {
            Some((at, why)) if at.elapsed() < SPARED => Err(Arc::clone(why)),
            _ => Ok(Asked(session)),
        }
    }

    /// What a tag names now.
    ///
    /// # Errors
    /// When the registry does not say.
    pub(crate) async fn resolve(
        &self,
        asked: &Asked,
        namespace: &str,
        tag: &Tag,
    ) -> Result<Digest, Unknown> {
        let session = &asked.0;
        let key = (
            session.identity().clone(),
            session.repository().clone(),
            tag.clone(),
        );
        let turn = self.shared.turn(namespace).await;
        let look_up = || {
            let (session, shared, tag) = (session.clone(), Arc::clone(&self.shared), tag.clone());
            async move {
                let _turn = turn;
                shared
                    .run(&session, async |session| {
                        session
                            .head(&Locator::Tag(tag))
                            .await
                            .map(|head| head.digest)
                    })
                    .await
            }
        };
        let (answer, _) = self.tags.get(key, |_| false, look_up).await;
        answer.unwrap_or_else(panicked)
    }

    /// The marks on an image and on its platforms, as they are at `now` or were a while ago.
    ///
    /// # Errors
    /// When the registry does not say.
    pub(crate) async fn marks(
        &self,
        asked: &Asked,
        namespace: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<(Arc<Facts>, From), Unknown> {
        let session = &asked.0;
        let key = (
            session.identity().clone(),
            session.repository().clone(),
            digest.clone(),
        );
        if let Some(answer) = self.marks.known(&key) {
            return answer.map(|facts| (facts, From::Memory));
        }
        let turn = self.shared.turn(namespace).await;
        let look_up = || {
            let (session, shared, types, digest) = (
                session.clone(),
                Arc::clone(&self.shared),
                Arc::clone(&self.types),
                digest.clone(),
            );
            async move {
                let _turn = turn;
                shared
                    .run(&session, async |session| {
                        gather(session, &digest, &types, now).await.map(Arc::new)
                    })
                    .await
            }
        };
        let (answer, from) = self.marks.get(key, Result::is_ok, look_up).await;
        answer.unwrap_or_else(panicked).map(|facts| (facts, from))
    }
}

fn panicked<T>() -> Result<T, Unknown> {
    Err("affix failed on it, which is a bug of affix".into())
}

fn say(error: &RegistryError) -> Unknown {
    error.to_string().into()
}

/// What is spared where it did not answer.
fn asked_about(session: &Session) -> (Digest, Repository) {
    (session.identity().clone(), session.repository().clone())
}

impl Shared {
    /// A turn for a look-up for a pod of `namespace`. Waited for before the look-up begins, which others may share: they must not
    /// wait for this namespace's turn.
    async fn turn(&self, namespace: &str) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = self
                .of_namespaces
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
            Arc::clone(
                all.entry(namespace.into())
                    .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_FOR_ONE))),
            )
        };
        turns.acquire_owned().await.ok()
    }

    /// Runs one look-up within its time, and spares a registry that did not answer.
    async fn run<T>(
        &self,
        session: &Session,
        work: impl AsyncFnOnce(&Session) -> Result<T, RegistryError>,
    ) -> Result<T, Unknown> {
        let deadline = Instant::now() + LONGEST;
        let Ok(_permit) = timeout_at(deadline, self.permits.acquire()).await else {
            return Err("too many look-ups are under way".into());
        };
        let session = session.clone().until(deadline);
        let why: Unknown = match timeout_at(deadline, work(&session)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if error.kind() != ErrorKind::RegistryUnavailable => {
                return Err(say(&error));
            }
            Ok(Err(error)) => say(&error),
            Err(_) => format!(
                "{} did not answer within {} s",
                session.host(),
                LONGEST.as_secs()
            )
            .into(),
        };
        let mut spared = self.spared.lock().unwrap_or_else(PoisonError::into_inner);
        spared.retain(|_, (at, _)| at.elapsed() < SPARED);
        spared.insert(asked_about(&session), (Instant::now(), Arc::clone(&why)));
        Err(why)
    }
}

/// Reads an image and the marks on it and on its platforms: two waves of requests.
async fn gather(
    session: &Session,
    digest: &Digest,
    types: &[LifecycleType],
    now: Timestamp,
) -> Result<Facts, RegistryError> {
    let locator = Locator::Digest(digest.clone());
    let (fetched, mark) = try_join(
        session.manifest(&locator),
        newest(session, digest, types, now),
    )
    .await?;
    let platforms = match &fetched.manifest {
        Manifest::Image(_) => Vec::new(),
        Manifest::Index(index) => {
            let most = index.manifests.len() + 1;
            let image = Image::lay_out(
                &fetched.descriptor(),
                &fetched.manifest,
                &BTreeMap::new(),
                None,
                most,
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
                .take(MOST_PLATFORMS)
                .collect();
            let marks = try_join_all(
                found
                    .iter()
                    .map(|(digest, _)| newest(session, digest, types, now)),
            )
            .await?;
            let each = found.into_iter().zip(marks);
            each.flat_map(|((digest, platforms), mark)| {
                let plausible = platforms
                    .into_iter()
                    .filter(|platform| platform.to_string().len() <= MOST_OF_A_PLATFORM);
                plausible.map(move |platform| OfPlatform {
                    platform,
                    digest: digest.clone(),
                    mark: mark.clone(),
                })
            })
            .collect()
        }
    };
    Ok(Facts {
        digest: digest.clone(),
        mark,
        platforms,
    })
}

/// The mark that readers take on one manifest.
async fn newest(
    session: &Session,
    subject: &Digest,
    types: &[LifecycleType],
    now: Timestamp,
) -> Result<Option<Mark>, RegistryError> {
    let marks = try_join_all(
        types
            .iter()
            .map(|kind| of_type(session, subject, kind, now)),
    )
    .await?;
    Ok(Mark::newest(marks.into_iter().flatten()))
}

async fn of_type(
    session: &Session,
    subject: &Digest,
    kind: &LifecycleType,
    now: Timestamp,
) -> Result<Vec<Mark>, RegistryError> {
    let listing = session
        .referrers(subject, Some(&kind.artifact_type))
        .await?;
    let says_all = |entry: &Descriptor| {
        entry.stated_type().is_some() && entry.annotations.contains_key(&*kind.annotation)
    };
    let (listed, open): (Vec<_>, Vec<_>) =
        listing.entries.iter().partition(|entry| says_all(entry));
    let mut marks: Vec<Mark> = listed
        .iter()
        .filter_map(|entry| Mark::read(&entry.annotations, kind, now))
        .collect();
    // Some registries list neither type nor annotations: then the manifest says.
    let read = open.iter().take(MOST_READ).map(|entry| async {
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
