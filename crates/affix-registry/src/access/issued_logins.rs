//! The cache of the login that a [`LoginSource`](crate::LoginSource) issues for one registry.
//!
//! Concurrent requests share one request to the source. A login is replaced shortly before its end, and when the registry
//! refuses it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::access::auth::basic;
use crate::access::login_source::IssuedLogin;
use crate::access::secret::Secret;
use crate::error::RegistryError;

/// The least age of a login that is replaced when the registry refuses it. A younger one would be refused again, and each
/// request would cost the service one more login.
const MIN_AGE: Duration = Duration::from_secs(10);
/// The least and the greatest time for which a login is used. A clock that differs from the service's must not cause a login
/// for each request.
const MIN_USE: Duration = Duration::from_secs(60);
const MAX_USE: Duration = Duration::from_hours(12);
/// The greatest time before the end of a login in which it is not used.
const MAX_MARGIN: Duration = Duration::from_mins(5);
/// Secrets that are redacted, besides those of the current login.
const MAX_REDACTED: usize = 32;

/// The login of one registry, as a request sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CurrentLogin {
    /// `user:password` in base64.
    pub(crate) basic: Secret,
    issued: Instant,
}

/// The cached login.
#[derive(Default)]
pub(crate) struct IssuedLogins {
    /// Locked while a login is issued.
    state: tokio::sync::Mutex<State>,
    /// The secrets of the last login and of its exchange, which messages must not contain.
    redacted: Mutex<Vec<Secret>>,
    /// The end of the use of the last login.
    until: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    login: Option<(CurrentLogin, Instant)>,
    failed: Option<(Instant, RegistryError)>,
}

impl IssuedLogins {
    /// Returns the login from the cache, or from `issue`. Concurrent callers share one call and its failure, if they began
    /// before it ended.
    pub(crate) async fn get(
        &self,
        begun: Instant,
        issue: impl AsyncFnOnce() -> Result<IssuedLogin, RegistryError>,
    ) -> Result<CurrentLogin, RegistryError> {
        let mut state = self.state.lock().await;
        if let Some((login, until)) = &state.login
            && Instant::now() < *until
        {
            return Ok(login.clone());
        }
        match &state.failed {
            Some((at, error)) if *at >= begun => return Err(error.clone()),
            _ => {}
        }
        let issued = Instant::now();
        match issue().await {
            Ok(login) => {
                let current = CurrentLogin {
                    basic: basic(&login.username, &login.password),
                    issued,
                };
                self.redact(&login.password);
                self.redact(&current.basic);
                let until = issued + usable_for(login.lifetime);
                *lock(&self.until) = Some(until);
                *state = State {
                    login: Some((current.clone(), until)),
                    failed: None,
                };
                Ok(current)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Drops a login that the registry refused. Returns whether another one may be accepted: a newer one is cached, or the
    /// refused one was not new.
    pub(crate) async fn refuse(&self, refused: &CurrentLogin) -> bool {
        let mut state = self.state.lock().await;
        match &state.login {
            Some((login, _)) if login == refused => {
                let is_old = refused.issued.elapsed() >= MIN_AGE;
                if is_old {
                    state.login = None;
                    *lock(&self.until) = None;
                }
                is_old
            }
            _ => true,
        }
    }

    /// Returns whether a login is in use.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        lock(&self.until).is_some_and(|until| now < until)
    }

    /// Redacts a secret in messages.
    pub(crate) fn redact(&self, secret: &Secret) {
        let mut redacted = lock(&self.redacted);
        redacted.retain(|known| known != secret);
        redacted.push(secret.clone());
        let excess = redacted.len().saturating_sub(MAX_REDACTED);
        redacted.drain(..excess);
    }

    /// Returns the secrets that messages must not contain.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        lock(&self.redacted).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns how long a login is used.
fn usable_for(lifetime: Duration) -> Duration {
    let lifetime = lifetime.min(MAX_USE);
    (lifetime - (lifetime / 4).min(MAX_MARGIN)).max(MIN_USE)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Service {
        logins: IssuedLogins,
        issued: AtomicU32,
        lifetime: Duration,
        fails: bool,
    }

    impl Service {
        fn new(lifetime: Duration, fails: bool) -> Arc<Self> {
            Arc::new(Self {
                lifetime,
                fails,
                ..Self::default()
            })
        }

        async fn get(&self) -> Result<CurrentLogin, RegistryError> {
            let issue = async || {
                let n = self.issued.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                if self.fails {
                    return Err(RegistryError::LoginRefused { why: n.to_string() });
                }
                Ok(IssuedLogin {
                    username: "user".to_owned(),
                    password: n.to_string().into(),
                    lifetime: self.lifetime,
                })
            };
            self.logins.get(Instant::now(), issue).await
        }

        fn issued(&self) -> u32 {
            self.issued.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parallel_requests_share_one_login_and_one_refusal() {
        for fails in [false, true] {
            let service = Service::new(Duration::from_hours(1), fails);
            let waiting: Vec<_> = (0..20)
                .map(|_| {
                    let service = Arc::clone(&service);
                    tokio::spawn(async move { service.get().await })
                })
                .collect();
            let mut results = Vec::new();
            for one in waiting {
                results.push(one.await.unwrap());
            }
            assert_eq!(service.issued(), 1, "fails: {fails}");
            assert!(results.windows(2).all(|pair| pair.first() == pair.last()));
            // A later request asks again after a failure.
            tokio::time::advance(Duration::from_millis(1)).await;
            let again = service.get().await;
            assert_eq!(again.is_err(), fails);
            assert_eq!(service.issued(), 1 + u32::from(fails));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_is_used_until_shortly_before_its_end() {
        for (lifetime, used) in [
            (Duration::from_hours(12), Duration::from_mins(12 * 60 - 5)),
            (Duration::from_hours(24), Duration::from_mins(12 * 60 - 5)),
            (Duration::from_mins(8), Duration::from_mins(6)),
            // The clock of the service is behind.
            (Duration::ZERO, Duration::from_mins(1)),
        ] {
            let service = Service::new(lifetime, false);
            let first = service.get().await.unwrap();
            assert!(service.logins.is_current(Instant::now()));
            tokio::time::advance(used - Duration::from_secs(1)).await;
            assert_eq!(service.get().await.unwrap(), first, "{lifetime:?}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!service.logins.is_current(Instant::now()));
            assert_ne!(service.get().await.unwrap(), first, "{lifetime:?}");
            assert_eq!(service.issued(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_replaced_unless_it_is_new() {
        let service = Service::new(Duration::from_hours(1), false);
        let first = service.get().await.unwrap();
        assert!(!service.logins.refuse(&first).await, "it is new");
        assert_eq!(service.get().await.unwrap(), first);
        tokio::time::advance(MIN_AGE).await;
        assert!(service.logins.refuse(&first).await);
        let second = service.get().await.unwrap();
        assert_ne!(second, first);
        // A slower request with the first login does not end the second.
        assert!(service.logins.refuse(&first).await);
        assert_eq!(service.get().await.unwrap(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn the_secrets_of_an_exchange_are_redacted_and_bounded() {
        let service = Service::new(Duration::from_hours(1), false);
        for n in 0..3 * MAX_REDACTED {
            service.logins.redact(&n.to_string().into());
        }
        let login = service.get().await.unwrap();
        let secrets = service.logins.secrets();
        assert!(secrets.contains(&login.basic) && secrets.contains(&"0".into()));
        assert_eq!(secrets.len(), MAX_REDACTED);
    }
}
