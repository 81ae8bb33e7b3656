//! Registry look-ups for the images of pods. A tag is resolved to its digest for every review (not
//! cached). The marks of a digest are cached per credential.

mod failure;
mod turns;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use self::turns::{Place, Turn, Turns};
use crate::admission::options::Lookups;
use crate::admission::pods::trust::LifecycleTrust;
use crate::admission::review::budget::Budget;
use crate::admission::review::single_flight::{SingleFlightCache, Source};
use crate::engine::{LifecycleReport, LifecycleRules, LifecycleType, MAX_REQUESTS, read_lifecycle};
use affix_registry::oci::{Digest, Reference, Repository, Tag};
use affix_registry::{
    Access, ErrorKind, HostPattern, Keychain, Locator, Registries, RegistryError, Session,
};

pub(crate) use self::failure::LookupFailure;
pub(crate) use self::turns::Requester;

/// Time limit of a look-up. It continues after the review has given up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Period in which a repository is not queried again after a failure.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// Minimum wait of a review after which a missing answer is a failure that other reviews share. A direct
/// caller must not make a registry appear dead with a review that gives up early.
const MIN_WAIT: Duration = Duration::from_millis(500);

/// Identity of the registry session, repository and subject. Look-ups of dry runs are separate, because
/// they yield to others.
type Key<T> = (Digest, Repository, T, bool);
/// The subject of a look-up of marks, and the identity of the trusted keys.
type MarksSubject = (Digest, Option<Digest>);
/// The requests of a look-up.
type Work<T> = BoxFuture<'static, Result<T, RegistryError>>;
/// The result of a look-up of marks.
type MarksResult = Result<Arc<LifecycleReport>, LookupFailure>;

/// Looks up images in registries.
pub(crate) struct RegistryLookup {
    registries: Registries,
    types: Arc<[LifecycleType]>,
    trust: Option<Arc<LifecycleTrust>>,
    insecure: Vec<HostPattern>,
    tags: Arc<SingleFlightCache<Key<Tag>, Result<Digest, LookupFailure>>>,
    marks: Arc<SingleFlightCache<Key<MarksSubject>, MarksResult>>,
    state: Arc<LookupState>,
}

/// The state of all look-ups.
struct LookupState {
    turns: Arc<Turns>,
    /// Failed repositories, with time and cause. The key is not the whole registry: a tenant whose own
    /// image fails must not block the images of others.
    recent_failures: Mutex<HashMap<(Digest, Repository), (Instant, LookupFailure)>>,
}

/// A session for the repository of one image.
#[derive(Clone)]
pub(crate) struct ImageSession {
    session: Session,
    has_login: bool,
}

/// The origin and the limits of a look-up.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) requester: &'a Requester,
    pub(crate) budget: Budget,
    pub(crate) now: Timestamp,
}

impl RegistryLookup {
    pub(crate) fn new(
        registries: Registries,
        options: &Lookups,
        trust: Option<Arc<LifecycleTrust>>,
    ) -> Self {
        let max_requests = registries.options().max_requests_per_registry;
        let max_per_host = (max_requests / MAX_REQUESTS).max(1);
        Self {
            registries,
            types: options.lifecycle_types.clone().into(),
            trust,
            insecure: options.insecure_registries.clone(),
            tags: SingleFlightCache::new(Duration::ZERO),
            marks: SingleFlightCache::new(options.cache_ttl),
            state: Arc::new(LookupState {
                turns: Arc::new(Turns::new(max_per_host)),
                recent_failures: Mutex::default(),
            }),
        }
    }

    /// Returns whether only signed dates are enforced.
    pub(crate) const fn requires_signatures(&self) -> bool {
        self.trust.is_some()
    }

    fn rules(&self) -> LifecycleRules {
        LifecycleRules {
            types: Arc::clone(&self.types),
            trust: self.trust.as_ref().map(|trust| trust.current()),
        }
    }

    /// Opens a session without sending a request.
    ///
    /// # Errors
    /// The registry is not allowed.
    pub(crate) fn open(
        &self,
        reference: &Reference,
        credentials: Keychain,
    ) -> Result<ImageSession, LookupFailure> {
        let insecure = self
            .insecure
            .iter()
            .any(|pattern| pattern.matches(&reference.host));
        let has_login = !credentials.is_empty();
        let access = Access {
            credentials,
            insecure,
            ..Access::default()
        };
        self.registries
            .open(&reference.host, &reference.repository, access)
            .map(|session| ImageSession { session, has_login })
            .map_err(|error| LookupFailure::of(&error, has_login))
    }

    /// Returns the cached marks of an image.
    pub(crate) fn cached(
        &self,
        image: &ImageSession,
        digest: &Digest,
    ) -> Option<Arc<LifecycleReport>> {
        let subject = subject(digest, &self.rules());
        // A dry run has asked without a login, or with one that every pod may use.
        [false, true]
            .into_iter()
            .find_map(|is_dry_run| self.marks.cached(&image.key(&subject, is_dry_run)))
            .and_then(Result::ok)
    }

    /// Resolves a tag to its digest.
    ///
    /// # Errors
    /// The registry does not answer, or refuses.
    pub(crate) async fn resolve(
        &self,
        image: &ImageSession,
        origin: Origin<'_>,
        tag: &Tag,
    ) -> Result<Digest, LookupFailure> {
        let key = image.key(tag, origin.requester.is_dry_run);
        let work = {
            let tag = tag.clone();
            move |session: Session| {
                let head = async move { session.head(&Locator::Tag(tag)).await };
                head.map_ok(|head| head.digest).boxed()
            }
        };
        self.shared(&self.tags, key, image, origin, work).await
    }

    /// Returns the marks of an image and its platforms, possibly from the cache.
    ///
    /// # Errors
    /// The registry does not answer, or refuses.
    pub(crate) async fn marks(
        &self,
        image: &ImageSession,
        origin: Origin<'_>,
        digest: &Digest,
    ) -> Result<(Arc<LifecycleReport>, Source), LookupFailure> {
        if let Some(report) = self.cached(image, digest) {
            return Ok((report, Source::Cache));
        }
        let rules = self.rules();
        let key = image.key(&subject(digest, &rules), origin.requester.is_dry_run);
        let work = {
            let (digest, now) = (digest.clone(), origin.now);
            move |session: Session| {
                let read = async move { read_lifecycle(&session, &digest, &rules, now).await };
                read.map_ok(Arc::new).boxed()
            }
        };
        self.shared(&self.marks, key, image, origin, work)
            .await
            .map(|report| (report, Source::Lookup))
    }

    /// Joins the look-up of `key` that is in flight, or starts it with a turn of its own.
    async fn shared<T, V>(
        &self,
        cache: &Arc<SingleFlightCache<Key<T>, Result<V, LookupFailure>>>,
        key: Key<T>,
        image: &ImageSession,
        origin: Origin<'_>,
        work: impl FnOnce(Session) -> Work<V> + Send + 'static,
    ) -> Result<V, LookupFailure>
    where
        Key<T>: Clone + Eq + Hash + Send + 'static,
        V: Clone + Send + Sync + 'static,
    {
        self.state.recent_failure(image)?;
        let Budget { deadline, limit } = origin.budget;
        let began = Instant::now();
        let answer = if let Some(pending) = cache.pending(&key) {
            timeout_at(deadline, pending).await
        } else {
            // The turn is acquired before the look-up starts: a review that gives up here leaves no task
            // behind.
            let place = image.place();
            let turn = self.state.turns.acquire(origin.requester, &place);
            let turn = timeout_at(deadline, turn).await.map_err(|_| busy())?;
            let (state, image) = (Arc::clone(&self.state), image.clone());
            let start = || async move { state.run(turn, &image, work).await };
            timeout_at(deadline, cache.get(key, Result::is_ok, start))
                .await
                .map(|(answer, _)| answer)
        };
        match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(LookupFailure::new(
                "the look-up panicked",
                "please report this bug",
            )),
            Err(_) => {
                let failure =
                    LookupFailure::new(format!("no answer within {limit:?}"), "try again");
                if began.elapsed() >= MIN_WAIT {
                    self.state.record_failure(image, &failure);
                }
                Err(failure)
            }
        }
    }
}

impl ImageSession {
    fn key<T: Clone>(&self, subject: &T, is_dry_run: bool) -> Key<T> {
        let (identity, repository) = self.failure_key();
        (identity, repository, subject.clone(), is_dry_run)
    }

    fn place(&self) -> Place {
        Place {
            host: self.session.host().clone(),
            repository: self.session.repository().clone(),
        }
    }

    /// Returns the key of a failed repository.
    fn failure_key(&self) -> (Digest, Repository) {
        (
            self.session.identity().clone(),
            self.session.repository().clone(),
        )
    }
}

fn subject(digest: &Digest, rules: &LifecycleRules) -> MarksSubject {
    let trust = rules.trust.as_ref().map(|trust| trust.id.clone());
    (digest.clone(), trust)
}

fn busy() -> LookupFailure {
    LookupFailure::new("the webhook is busy", "try again")
}

impl LookupState {
    /// Returns the failure of a repository that did not answer a moment ago.
    fn recent_failure(&self, image: &ImageSession) -> Result<(), LookupFailure> {
        let recent_failures = self
            .recent_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match recent_failures.get(&image.failure_key()) {
            Some((at, failure)) if at.elapsed() < FAILURE_TTL => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    fn record_failure(&self, image: &ImageSession, failure: &LookupFailure) {
        let mut recent_failures = self
            .recent_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recent_failures.retain(|_, (at, _)| at.elapsed() < FAILURE_TTL);
        recent_failures.insert(image.failure_key(), (Instant::now(), failure.clone()));
    }

    /// Runs one look-up until its time limit, or until another takes its turn, and records a failure.
    async fn run<T>(
        &self,
        turn: Turn,
        image: &ImageSession,
        work: impl FnOnce(Session) -> Work<T>,
    ) -> Result<T, LookupFailure> {
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let place = image.place();
        let result = tokio::select! {
            biased;
            result = timeout_at(deadline, work(image.session.clone().until(deadline))) => result,
            () = turn.taken() => {
                if !turn.is_slow() {
                    return Err(busy());
                }
                let failure = LookupFailure::new("no answer", "check the registry");
                self.record_failure(image, &failure);
                return Err(failure);
            }
        };
        let failure = match result {
            Ok(Ok(answer)) => {
                self.turns.answered(&place);
                self.recent_failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&image.failure_key());
                return Ok(answer);
            }
            Ok(Err(error)) => {
                let failure = LookupFailure::of(&error, image.has_login);
                if is_answer(&error) {
                    self.turns.answered(&place);
                }
                if error.kind() != ErrorKind::RegistryUnavailable {
                    return Err(failure);
                }
                failure
            }
            Err(_) => LookupFailure::new(
                format!("no answer within {LOOKUP_TIMEOUT:?}"),
                "check the registry",
            ),
        };
        self.record_failure(image, &failure);
        Err(failure)
    }
}

/// Returns whether the host has answered with an error of the registry's API.
const fn is_answer(error: &RegistryError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::LoginRefused
            | ErrorKind::AccessDenied
            | ErrorKind::NotFound
            | ErrorKind::RateLimited
    )
}
