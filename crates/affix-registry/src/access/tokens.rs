//! The token cache of one credential at one registry, by repository and actions.
//!
//! Concurrent requests share one fetch. Tokens are renewed before they expire and dropped when they
//! are rejected.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::access::challenge::TokenService;
use crate::access::secret::Secret;
use crate::error::RegistryError;
use crate::oci::Repository;

/// The actions that a token must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Actions {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
    /// Deleting. Only deletions request it.
    Delete,
}

impl Actions {
    const fn list(self) -> &'static [&'static str] {
        match self {
            Self::Pull => &["pull"],
            Self::Push => &["pull", "push"],
            Self::Delete => &["pull", "delete"],
        }
    }

    /// Returns the `scope` parameters for `repository`, with those of the registry's challenge.
    /// `delete` and `*` are omitted unless the request is a deletion, so that tokens have no
    /// needless rights.
    pub(crate) fn scopes(self, repository: &Repository, challenge_scope: &str) -> Vec<String> {
        const MAX_SCOPES: usize = 4;
        let own = format!("repository:{repository}");
        let mut actions: Vec<&str> = self.list().to_vec();
        let mut others = Vec::new();
        for scope in challenge_scope
            .split_ascii_whitespace()
            .filter(|scope| scope.len() <= 512)
        {
            match scope.rsplit_once(':') {
                Some((name, requested)) if name == own => {
                    for action in requested.split(',').filter(|action| !action.is_empty()) {
                        let excessive = self != Self::Delete && matches!(action, "delete" | "*");
                        if !excessive && !actions.contains(&action) {
                            actions.push(action);
                        }
                    }
                }
                _ if others.len() < MAX_SCOPES && !others.iter().any(|other| other == scope) => {
                    others.push(scope.to_owned());
                }
                _ => {}
            }
        }
        others.insert(0, format!("{own}:{}", actions.join(",")));
        others
    }
}

/// A token from the token service.
pub(crate) struct Token {
    pub(crate) secret: Secret,
    /// Validity, counted from the token's request.
    pub(crate) lifetime: Duration,
}

type Key = (Repository, Actions);

/// Maximum number of cached tokens, apart from those that requests wait for.
const MAX_TOKENS: usize = 1024;

/// The token cache.
#[derive(Default)]
pub(crate) struct Tokens {
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
}

/// The state of one key.
#[derive(Default)]
struct Entry {
    /// Locked while a token is fetched.
    state: tokio::sync::Mutex<State>,
    /// The last two tokens. Requests with them may be in flight, and messages of their answers must
    /// be redacted, also during a fetch.
    recent: Mutex<[Option<Secret>; 2]>,
}

#[derive(Default)]
struct State {
    token: Option<(Secret, Instant)>,
    failed: Option<(Instant, TokenService, RegistryError)>,
    /// The scope of the registry's last challenge.
    challenge_scope: String,
}

impl Tokens {
    /// Returns the token of a key from the cache, or calls `fetch` with the token service and the
    /// scope of the challenge. Returns `None` if there is no `current` token service.
    ///
    /// Concurrent callers wait for the same fetch and share its result. They share a failure if
    /// their request began before it, with the same token service.
    pub(crate) async fn get(
        &self,
        (repository, actions): (&Repository, Actions),
        begun: Instant,
        current: impl Fn() -> Option<TokenService>,
        fetch: impl AsyncFnOnce(&TokenService, &str) -> Result<Token, RegistryError>,
    ) -> Result<Option<Secret>, RegistryError> {
        let entry = self.entry(repository, actions);
        let mut state = entry.state.lock().await;
        if let Some((token, until)) = &state.token
            && Instant::now() < *until
        {
            return Ok(Some(token.clone()));
        }
        // Read here, because a 401 may have named another service during the wait.
        let Some(service) = current() else {
            return Ok(None);
        };
        match &state.failed {
            Some((at, failed, error)) if *at >= begun && *failed == service => {
                return Err(error.clone());
            }
            _ => {}
        }
        let started = Instant::now();
        match fetch(&service, &state.challenge_scope).await {
            Ok(token) => {
                state.token = Some((token.secret.clone(), started + usable_for(token.lifetime)));
                state.failed = None;
                let mut recent = entry.recent.lock().unwrap_or_else(PoisonError::into_inner);
                *recent = [
                    Some(token.secret.clone()),
                    std::mem::take(&mut *recent).into_iter().next().flatten(),
                ];
                Ok(Some(token.secret))
            }
            Err(error) => {
                state.failed = Some((Instant::now(), service, error.clone()));
                Err(error)
            }
        }
    }

    /// Drops a rejected token, unless a newer one is cached. Keeps the scope of the challenge.
    pub(crate) async fn challenge(
        &self,
        repository: &Repository,
        actions: Actions,
        refused: Option<&Secret>,
        scope: Option<&str>,
    ) {
        let entry = self.entry(repository, actions);
        let mut state = entry.state.lock().await;
        if state
            .token
            .as_ref()
            .is_some_and(|(token, _)| Some(token) == refused)
        {
            state.token = None;
        }
        if let Some(scope) = scope.filter(|scope| scope.len() <= 2048) {
            scope.clone_into(&mut state.challenge_scope);
        }
    }

    /// Returns the tokens of recent requests, for redaction.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |entry: &Arc<Entry>| {
            entry
                .recent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        entries.values().flat_map(recent).flatten().collect()
    }

    fn entry(&self, repository: &Repository, actions: Actions) -> Arc<Entry> {
        let key = (repository.clone(), actions);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_TOKENS && !entries.contains_key(&key) {
            let now = Instant::now();
            entries.retain(|_, entry| {
                entry.state.try_lock().map_or(true, |state| {
                    state.token.as_ref().is_some_and(|(_, until)| now < *until)
                })
            });
            // A token service may issue a token per repository. Evicted tokens are fetched again.
            if entries.len() >= MAX_TOKENS {
                entries.retain(|_, entry| Arc::strong_count(entry) > 1);
            }
        }
        Arc::clone(entries.entry(key).or_default())
    }
}

/// Returns how long a token is used. The last 10 s, or the last quarter of a short lifetime, are
/// not used. The maximum is one hour.
fn usable_for(lifetime: Duration) -> Duration {
    let lifetime = lifetime.min(Duration::from_hours(1));
    lifetime - (lifetime / 4).min(Duration::from_secs(10))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn repository() -> Repository {
        "team/app".parse().unwrap()
    }

    fn service() -> Option<TokenService> {
        Some(TokenService {
            realm: "https://auth.example.com/token".to_owned(),
            service: None,
        })
    }

    struct Service {
        tokens: Tokens,
        requested: AtomicU32,
        fails: bool,
    }

    impl Service {
        fn new(fails: bool) -> Arc<Self> {
            Arc::new(Self {
                tokens: Tokens::default(),
                requested: AtomicU32::new(0),
                fails,
            })
        }

        async fn get(&self, actions: Actions) -> Result<Secret, RegistryError> {
            let now = Instant::now();
            self.tokens
                .get((&repository(), actions), now, service, async |_, _| {
                    let n = self.requested.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if self.fails {
                        return Err(RegistryError::InvalidAccess {
                            what: "x",
                            why: n.to_string(),
                        });
                    }
                    Ok(Token {
                        secret: Secret::new(n.to_string()),
                        lifetime: Duration::from_mins(1),
                    })
                })
                .await
                .map(Option::unwrap)
        }

        async fn get_many(self: &Arc<Self>, many: u32) -> Vec<Result<Secret, RegistryError>> {
            let waiting: Vec<_> = (0..many)
                .map(|_| {
                    let service = Arc::clone(self);
                    tokio::spawn(async move { service.get(Actions::Pull).await })
                })
                .collect();
            let mut results = Vec::new();
            for one in waiting {
                results.push(one.await.unwrap());
            }
            results
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parallel_requests_share_one_fetch_and_its_failure() {
        for fails in [false, true] {
            let service = Service::new(fails);
            let results = service.get_many(20).await;
            assert_eq!(service.requested.load(Ordering::Relaxed), 1);
            assert!(results.windows(2).all(|pair| pair.first() == pair.last()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_it_ends_and_after_it_was_refused() {
        let service = Service::new(false);
        let first = service.get(Actions::Pull).await.unwrap();
        tokio::time::advance(Duration::from_secs(49)).await;
        assert_eq!(service.get(Actions::Pull).await.unwrap(), first);
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = service.get(Actions::Pull).await.unwrap();
        assert_ne!(second, first);
        service
            .tokens
            .challenge(&repository(), Actions::Pull, Some(&first), None)
            .await;
        assert_eq!(
            service.get(Actions::Pull).await.unwrap(),
            second,
            "only the refused token is forgotten"
        );
        service
            .tokens
            .challenge(&repository(), Actions::Pull, Some(&second), None)
            .await;
        assert_ne!(service.get(Actions::Pull).await.unwrap(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn reading_writing_and_deleting_have_tokens_of_their_own() {
        let service = Service::new(false);
        for actions in [Actions::Pull, Actions::Push, Actions::Delete] {
            service.get(actions).await.unwrap();
        }
        assert_eq!(service.requested.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn recent_tokens_are_redacted_also_during_another_fetch() {
        let service = Service::new(false);
        let first = service.get(Actions::Pull).await.unwrap();
        for refused in [false, true] {
            if refused {
                service
                    .tokens
                    .challenge(&repository(), Actions::Pull, Some(&first), None)
                    .await;
            } else {
                tokio::time::advance(Duration::from_mins(2)).await;
            }
            let mut fetching = std::pin::pin!(service.get(Actions::Pull));
            assert!(futures::poll!(fetching.as_mut()).is_pending());
            assert!(
                service.tokens.secrets().contains(&first),
                "refused: {refused}"
            );
        }
        let second = service.get(Actions::Pull).await.unwrap();
        assert_eq!(service.tokens.secrets(), [second, first]);
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_repositories_has_a_bounded_number_of_tokens() {
        let tokens = Tokens::default();
        for nth in 0..3 * MAX_TOKENS {
            let fetch = async |_: &TokenService, _: &str| {
                Ok(Token {
                    secret: Secret::new(nth.to_string()),
                    lifetime: Duration::from_hours(24),
                })
            };
            let repository = format!("team/app-{nth}").parse().unwrap();
            let key = (&repository, Actions::Pull);
            tokens
                .get(key, Instant::now(), service, fetch)
                .await
                .unwrap();
        }
        assert!(
            tokens.secrets().len() <= MAX_TOKENS,
            "{}",
            tokens.secrets().len()
        );
    }

    #[test]
    fn delete_is_asked_for_only_to_delete() {
        let challenge =
            "repository:team/app:pull,delete,* repository:other:pull registry:catalog:*";
        let scopes = |actions: Actions| actions.scopes(&repository(), challenge).join(" ");
        assert_eq!(
            scopes(Actions::Pull),
            "repository:team/app:pull repository:other:pull registry:catalog:*"
        );
        assert_eq!(
            scopes(Actions::Push),
            "repository:team/app:pull,push repository:other:pull registry:catalog:*"
        );
        assert!(scopes(Actions::Delete).starts_with("repository:team/app:pull,delete,* "));
        assert_eq!(
            Actions::Pull.scopes(&repository(), ""),
            ["repository:team/app:pull"]
        );
    }
}
