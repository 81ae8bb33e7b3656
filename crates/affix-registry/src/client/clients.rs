//! What is known of one registry under one way of asking it, shared by all passes that ask it so.
//!
//! The key is everything that a tenant can choose: host, plain HTTP, certificates, proxy and credential. What one tenant's
//! proxy or authority makes of a registry is therefore never believed by another. Only the cap on parallel requests is shared
//! between credentials, since it is the registry that it spares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use url::Url;

use crate::access::address_policy::AddressPolicy;
use crate::access::auth::Authenticator;
use crate::access::docker_config::Credential;
use crate::client::options::{Access, ListingSource, Options};
use crate::error::RegistryError;
use crate::http::body_memory::Budget;
use crate::http::rate_limit::{Places, Throttle};
use crate::http::transport::Transport;
use crate::oci::{Algorithm, Digest, Hasher, Host, Repository};

/// Locks by name, each for as long as somebody holds or waits for it.
struct Locks<K>(Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + std::hash::Hash> Locks<K> {
    fn of(&self, key: K) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = locks.entry(key).or_default();
        lock.upgrade().unwrap_or_else(|| {
            let fresh = Arc::default();
            *lock = Arc::downgrade(&fresh);
            fresh
        })
    }
}

/// Connections, tokens, pauses and knowledge of one registry.
pub(crate) struct Upstream {
    /// The key of this way of asking.
    pub(crate) identity: Digest,
    pub(crate) transport: Transport,
    pub(crate) throttle: Throttle,
    pub(crate) auth: Authenticator,
    pub(crate) support: Support,
    /// The longest time from reading a fallback tag to having written it, in microseconds.
    longest_rewrite: AtomicU64,
    /// One rewrite of a tag at a time within the process.
    rewrites: Locks<(Repository, Digest)>,
    last_used: Mutex<Instant>,
}

impl Upstream {
    /// The longest time from a GET sent to its PUT answered, by what was seen so far. However long a stall was, no more than 3 s of it
    /// are believed, since every later rewrite waits for as long.
    pub(crate) fn longest_rewrite(&self) -> Duration {
        Duration::from_micros(self.longest_rewrite.load(Ordering::Relaxed))
            .min(Duration::from_secs(3))
    }

    pub(crate) fn rewrite_took(&self, time: Duration) {
        self.longest_rewrite.fetch_max(
            u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// The lock of one fallback tag.
    pub(crate) fn rewrite_lock(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Arc<tokio::sync::Mutex<()>> {
        self.rewrites.of((repository.clone(), subject.clone()))
    }
}

/// Whether repositories have the referrers API.
#[derive(Default)]
pub(crate) struct Support {
    known: Mutex<HashMap<Repository, (ListingSource, Instant)>>,
    probes: Locks<Repository>,
}

impl Support {
    /// How long a registry without the API is not asked again whether it has one.
    const BELIEVED: Duration = Duration::from_hours(1);
    /// Repositories of which something is remembered; a forgotten one is asked again.
    const MOST: usize = 10_000;

    /// What is known at `now`.
    pub(crate) fn of(&self, repository: &Repository, now: Instant) -> Option<ListingSource> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (source, at) = known.get(repository)?;
        (*source == ListingSource::Api || now.duration_since(*at) < Self::BELIEVED)
            .then_some(*source)
    }

    /// Begins to find out; [`found_out`](Self::found_out) waits until the guard is dropped. `None` where somebody else has begun.
    pub(crate) fn find_out(&self, repository: &Repository) -> Option<OwnedMutexGuard<()>> {
        self.probes.of(repository.clone()).try_lock_owned().ok()
    }

    /// Waits for whoever finds out. What comes of it may be nothing.
    pub(crate) async fn found_out(&self, repository: &Repository) {
        let probe = self.probes.of(repository.clone());
        drop(probe.lock().await);
    }

    /// The API answered: from now on that is how this repository keeps its referrers.
    pub(crate) fn has_api(&self, repository: &Repository, now: Instant) {
        self.learn(repository, ListingSource::Api, now);
    }

    /// There is no API; does not undo that it once answered.
    pub(crate) fn lacks_api(&self, repository: &Repository, now: Instant) {
        self.learn(repository, ListingSource::FallbackTag, now);
    }

    fn learn(&self, repository: &Repository, source: ListingSource, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST && !known.contains_key(repository) {
            known.retain(|_, (source, at)| {
                *source == ListingSource::Api && now.duration_since(*at) < Self::BELIEVED * 24
            });
            // Who may name repositories of a registry of his own must not fill the memory: the older half goes.
            if known.len() >= Self::MOST {
                let mut times: Vec<Instant> = known.values().map(|(_, at)| *at).collect();
                let middle = *times.select_nth_unstable(Self::MOST / 2).1;
                known.retain(|_, (_, at)| *at > middle);
            }
        }
        let entry = known.entry(repository.clone()).or_insert((source, now));
        if entry.0 == ListingSource::FallbackTag || source == ListingSource::Api {
            *entry = (source, now);
        }
    }
}

/// Upstreams that are kept while nobody uses them.
const MOST: usize = 1024;

/// All of them.
#[derive(Default)]
pub(crate) struct Upstreams {
    known: Mutex<HashMap<Digest, Arc<Upstream>>>,
    places: Mutex<HashMap<Digest, Weak<Places>>>,
    budget: Budget,
}

impl Upstreams {
    /// The one for this host and access. Those that nobody used for half an hour are let go, and earlier where there are very many: who
    /// has a domain of his own has any number of hosts.
    pub(crate) fn get(
        &self,
        options: &Options,
        base: &Url,
        host: &Host,
        repository: &Repository,
        access: &Access,
    ) -> Result<Arc<Upstream>, RegistryError> {
        const IDLE: Duration = Duration::from_mins(30);
        let credential = access.credentials.find(host, repository);
        let way = way_key(base, access);
        let key = credential_key(&way, &credential);
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = known.get(&key) {
            *upstream
                .last_used
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = now;
            return Ok(Arc::clone(upstream));
        }
        known.retain(|_, upstream| {
            let last = *upstream
                .last_used
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::strong_count(upstream) > 1 || now.duration_since(last) < IDLE
        });
        if known.len() >= MOST {
            let last = |upstream: &Upstream| {
                *upstream
                    .last_used
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
            };
            let mut times: Vec<Instant> = known.values().map(|upstream| last(upstream)).collect();
            let middle = *times.select_nth_unstable(MOST / 2).1;
            known.retain(|_, upstream| Arc::strong_count(upstream) > 1 || last(upstream) > middle);
        }
        let policy = AddressPolicy {
            deny_private_networks: options.deny_private_networks,
            allow_loopback: options.allow_loopback,
            denied_addresses: options.denied_addresses.clone(),
            denied_servers: options.denied_servers.clone(),
            ..AddressPolicy::default()
        };
        policy
            .check_url(base)
            .map_err(|refused| RegistryError::HostNotAllowed {
                host: host.to_string(),
                why: refused.why,
            })?;
        let upstream = Arc::new(Upstream {
            identity: key.clone(),
            transport: Transport::new(base.clone(), policy, options, access, self.budget.clone())?,
            throttle: Throttle::new(
                self.places(way, options.max_requests_per_registry),
                options.max_pause,
            ),
            auth: Authenticator::new(credential, access),
            support: Support::default(),
            longest_rewrite: AtomicU64::new(0),
            rewrites: Locks::default(),
            last_used: Mutex::new(now),
        });
        known.insert(key, Arc::clone(&upstream));
        Ok(upstream)
    }

    fn places(&self, way: Digest, most: usize) -> Arc<Places> {
        let mut known = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, places| places.strong_count() > 0);
        let entry = known.entry(way).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Places::new(most));
            *entry = Arc::downgrade(&fresh);
            fresh
        })
    }
}

/// Collects parts so that no two lists of parts look alike.
struct Key(Hasher);

impl Key {
    fn new() -> Self {
        Self(Hasher::new(Algorithm::Sha256))
    }

    fn part(mut self, part: Option<&[u8]>) -> Self {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        self.0.update(&length.to_be_bytes());
        self.0.update(part.unwrap_or_default());
        self
    }
}

fn way_key(base: &Url, access: &Access) -> Digest {
    let (client, proxy) = (access.tls.client.as_ref(), access.proxy.as_ref());
    Key::new()
        .part(Some(base.as_str().as_bytes()))
        .part(access.tls.ca_pem.as_deref())
        .part(client.map(|client| client.certificate_pem.as_slice()))
        .part(client.map(|client| client.key_pem.expose()))
        .part(proxy.map(|proxy| proxy.address.as_bytes()))
        .part(
            proxy
                .and_then(|proxy| proxy.username.as_deref())
                .map(str::as_bytes),
        )
        .part(
            proxy
                .and_then(|proxy| proxy.password.as_ref())
                .map(crate::access::secret::Secret::expose),
        )
        .0
        .finish()
}

fn credential_key(way: &Digest, credential: &Credential) -> Digest {
    let (kind, name, secret) = match credential {
        Credential::Anonymous => ("anonymous", None, None),
        Credential::Basic { username, password } => {
            ("basic", Some(username.as_bytes()), Some(password.expose()))
        }
        Credential::Identity(token) => ("identity", None, Some(token.expose())),
        Credential::Registry(token) => ("registry", None, Some(token.expose())),
    };
    Key::new()
        .part(Some(way.hex().as_bytes()))
        .part(Some(kind.as_bytes()))
        .part(name)
        .part(secret)
        .0
        .finish()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn any_number_of_hosts_leaves_a_bounded_number_of_upstreams_and_those_in_use() {
        let (upstreams, options) = (Upstreams::default(), Options::default());
        let open = |nth: usize| {
            let host = format!("r{nth}.example.com");
            let base = format!("http://{host}/v2/").parse().unwrap();
            let access = Access {
                insecure: true,
                ..Access::default()
            };
            upstreams
                .get(
                    &options,
                    &base,
                    &host.parse().unwrap(),
                    &"team/app".parse().unwrap(),
                    &access,
                )
                .unwrap()
        };
        let used = open(0);
        for nth in 1..5 * MOST / 2 {
            tokio::time::advance(Duration::from_millis(1)).await;
            open(nth);
        }
        let many = upstreams.known.lock().unwrap().len();
        assert!((MOST / 2..=MOST).contains(&many), "{many}");
        assert!(Arc::ptr_eq(&used, &open(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_of_repositories_is_bounded_and_the_newest_stay() {
        let support = Support::default();
        let repository = |nth: usize| format!("team/app-{nth}").parse::<Repository>().unwrap();
        let all = 5 * Support::MOST / 2;
        for nth in 0..all {
            tokio::time::advance(Duration::from_millis(1)).await;
            support.has_api(&repository(nth), Instant::now());
            support.has_api(&repository(nth), Instant::now());
        }
        let many = support.known.lock().unwrap().len();
        assert!(
            (Support::MOST / 2..=Support::MOST).contains(&many),
            "{many}"
        );
        let newest = all - Support::MOST / 2 + 1..all;
        assert!(newest.into_iter().all(|nth| support.of(&repository(nth), Instant::now()) == Some(ListingSource::Api)));
    }
}
