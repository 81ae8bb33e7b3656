//! The client cache: one client for each registry and way to use it, shared by all passes.
//!
//! The key contains everything that a tenant can choose: host, plain HTTP, certificates, proxy and credential, or the tenant where
//! there is no credential. One tenant's proxy or certificate authority therefore never influences another tenant. Only the limit on
//! requests in flight is shared between credentials, since it protects the registry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use crate::access::address_policy::AddressPolicy;
use crate::access::auth::Authenticator;
use crate::access::docker_config::Credential;
use crate::access::secret::Secret;
use crate::client::locks::Locks;
use crate::client::options::{Access, Options};
use crate::client::referrers_support::ReferrersSupport;
use crate::error::RegistryError;
use crate::http::body_memory::ResponseMemoryLimiter;
use crate::http::rate_limit::{ConcurrencyLimiter, RateLimiter};
use crate::http::transport::Transport;
use crate::oci::{Algorithm, Digest, Hasher, Host, Repository, Tag};

/// Clients in the cache, besides those in use.
const MAX_CLIENTS: usize = 1024;
/// The time after which an unused client is removed.
const MAX_IDLE: Duration = Duration::from_mins(30);
/// The limit of [`RegistryClient::longest_rewrite`], since every later rewrite waits for that time.
const MAX_REWRITE: Duration = Duration::from_secs(3);

/// Connections, tokens, limits and capabilities of one registry.
pub(crate) struct RegistryClient {
    /// The key in the cache.
    pub(crate) identity: Digest,
    pub(crate) transport: Transport,
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) auth: Authenticator,
    pub(crate) support: ReferrersSupport,
    /// The longest time from reading a tag to having written it, in microseconds.
    longest_rewrite: AtomicU64,
    /// The process rewrites a tag in one task at a time.
    rewrites: Locks<(Repository, Tag)>,
    last_used: Mutex<Instant>,
}

impl RegistryClient {
    /// Returns the longest time from the GET of a rewritten tag to the response of its PUT, at most 3 s.
    pub(crate) fn longest_rewrite(&self) -> Duration {
        Duration::from_micros(self.longest_rewrite.load(Ordering::Relaxed)).min(MAX_REWRITE)
    }

    /// Records the duration of a rewrite.
    pub(crate) fn record_rewrite(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest_rewrite.fetch_max(micros, Ordering::Relaxed);
    }

    /// Returns the lock of a tag with a list of entries.
    pub(crate) fn rewrite_lock(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Arc<tokio::sync::Mutex<()>> {
        self.rewrites.of((repository.clone(), tag.clone()))
    }

    fn last_used(&self) -> Instant {
        *self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, now: Instant) {
        *self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// The clients of the process.
#[derive(Default)]
pub(crate) struct ClientCache {
    clients: Mutex<HashMap<Digest, Arc<RegistryClient>>>,
    limiters: Mutex<HashMap<Digest, Weak<ConcurrencyLimiter>>>,
    memory: ResponseMemoryLimiter,
}

impl ClientCache {
    /// Returns the client for this host and access.
    ///
    /// # Errors
    /// `HostNotAllowed`, and the errors of [`Transport::new`].
    pub(crate) fn get(
        &self,
        options: &Options,
        base: &Url,
        host: &Host,
        repository: &Repository,
        access: &Access,
    ) -> Result<Arc<RegistryClient>, RegistryError> {
        let credential = access.credentials.find(host, repository).map_err(|why| {
            RegistryError::InvalidAccess {
                what: "the docker config",
                why,
            }
        })?;
        let route = route_key(base, access);
        let key = credential_key(&route, &credential, &access.tenant);
        let now = Instant::now();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            client.touch(now);
            return Ok(Arc::clone(client));
        }
        evict(&mut clients, now);
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
        let limiter = self.limiter(route, options.max_requests_per_registry);
        let client = Arc::new(RegistryClient {
            identity: key.clone(),
            transport: Transport::new(base.clone(), policy, options, access, self.memory.clone())?,
            rate_limiter: RateLimiter::new(limiter, options.max_pause),
            auth: Authenticator::new(credential, access),
            support: ReferrersSupport::default(),
            longest_rewrite: AtomicU64::new(0),
            rewrites: Locks::default(),
            last_used: Mutex::new(now),
        });
        clients.insert(key, Arc::clone(&client));
        Ok(client)
    }

    /// Returns the concurrency limiter that all credentials of a route share.
    fn limiter(&self, route: Digest, max_in_flight: usize) -> Arc<ConcurrencyLimiter> {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        let entry = limiters.entry(route).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(ConcurrencyLimiter::new(max_in_flight));
            *entry = Arc::downgrade(&fresh);
            fresh
        })
    }
}

/// Removes clients that were unused for long, unless they hold a login that a service has issued. In a full cache it removes the
/// older half of the unused ones: a tenant with a domain has any number of hosts.
fn evict(clients: &mut HashMap<Digest, Arc<RegistryClient>>, now: Instant) {
    clients.retain(|_, client| {
        Arc::strong_count(client) > 1
            || now.duration_since(client.last_used()) < MAX_IDLE
            || client.auth.issued.is_current(now)
    });
    if clients.len() >= MAX_CLIENTS {
        let mut times: Vec<Instant> = clients.values().map(|client| client.last_used()).collect();
        let middle = *times.select_nth_unstable(MAX_CLIENTS / 2).1;
        clients.retain(|_, client| Arc::strong_count(client) > 1 || client.last_used() > middle);
    }
}

/// Hashes a list of parts so that two different lists never have the same input.
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

fn route_key(base: &Url, access: &Access) -> Digest {
    let (client, proxy) = (access.tls.client.as_ref(), access.proxy.as_ref());
    let username = proxy.and_then(|proxy| proxy.username.as_deref());
    let password = proxy.and_then(|proxy| proxy.password.as_ref());
    Key::new()
        .part(Some(base.as_str().as_bytes()))
        .part(access.tls.ca_pem.as_deref())
        .part(client.map(|client| client.certificate_pem.as_slice()))
        .part(client.map(|client| client.key_pem.expose()))
        .part(proxy.map(|proxy| proxy.address.as_bytes()))
        .part(username.map(str::as_bytes))
        .part(password.map(Secret::expose))
        .0
        .finish()
}

fn credential_key(route: &Digest, credential: &Credential, tenant: &str) -> Digest {
    let (kind, name, secret) = match credential {
        Credential::Anonymous => ("anonymous", Some(tenant.as_bytes()), None),
        Credential::Basic { username, password } => {
            ("basic", Some(username.as_bytes()), Some(password.expose()))
        }
        Credential::Identity(token) => ("identity", None, Some(token.expose())),
        Credential::Registry(token) => ("registry", None, Some(token.expose())),
        Credential::Issued(issuer) => ("issued", Some(issuer.0.key().hex().as_bytes()), None),
    };
    Key::new()
        .part(Some(route.hex().as_bytes()))
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
    async fn the_cache_is_bounded_for_any_number_of_hosts_and_keeps_clients_in_use() {
        let (cache, options) = (ClientCache::default(), Options::default());
        let open = |nth: usize| {
            let host = format!("r{nth}.example.com");
            let base = format!("http://{host}/v2/").parse().unwrap();
            let access = Access {
                insecure: true,
                ..Access::default()
            };
            cache
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
        for nth in 1..5 * MAX_CLIENTS / 2 {
            tokio::time::advance(Duration::from_millis(1)).await;
            open(nth);
        }
        let many = cache.clients.lock().unwrap().len();
        assert!((MAX_CLIENTS / 2..=MAX_CLIENTS).contains(&many), "{many}");
        assert!(Arc::ptr_eq(&used, &open(0)));
    }
}
