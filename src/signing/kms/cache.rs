//! Values that a service issues, shared by all passes of the process.

use std::sync::{Arc, Mutex, PoisonError};

use affix_registry::oci::Digest;
use tokio::time::Instant;

use super::error::SigningError;

/// The maximum number of values of one kind in the cache.
const MAX_VALUES: usize = 1024;

/// Values by their key. The least recently used one is dropped.
pub(super) struct Cache<T> {
    /// In the order of use, the last used one at the end.
    entries: Mutex<Vec<(Digest, Arc<Shared<T>>)>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<T> Cache<T> {
    /// Returns the value under `key`, which may be empty.
    pub(super) fn get(&self, key: &Digest) -> Arc<Shared<T>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().position(|(cached, _)| cached == key);
        let entry = found.map_or_else(
            || (key.clone(), Arc::default()),
            |position| entries.remove(position),
        );
        let excess = (entries.len() + 1).saturating_sub(MAX_VALUES);
        entries.drain(..excess);
        let value = Arc::clone(&entry.1);
        entries.push(entry);
        value
    }
}

/// One value. Concurrent callers share one request for it, and its failure.
pub(super) struct Shared<T> {
    /// Locked during a request.
    state: tokio::sync::Mutex<State<T>>,
}

struct State<T> {
    value: Option<T>,
    is_expired: bool,
    failed: Option<(Instant, SigningError)>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            state: tokio::sync::Mutex::new(State {
                value: None,
                is_expired: false,
                failed: None,
            }),
        }
    }
}

impl<T: Clone> Shared<T> {
    /// Returns the value if `is_usable`, else the result of `request`. Callers that began before a request failed share its failure.
    pub(super) async fn get(
        &self,
        begun: Instant,
        is_usable: impl Fn(&T) -> bool,
        request: impl AsyncFnOnce() -> Result<T, SigningError>,
    ) -> Result<T, SigningError> {
        let mut state = self.state.lock().await;
        let usable = state.value.as_ref().filter(|value| is_usable(value));
        if let Some(value) = usable.filter(|_| !state.is_expired) {
            return Ok(value.clone());
        }
        match &state.failed {
            Some((at, error)) if *at >= begun => return Err(error.clone()),
            _ => {}
        }
        match request().await {
            Ok(value) => {
                *state = State {
                    value: Some(value.clone()),
                    is_expired: false,
                    failed: None,
                };
                Ok(value)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Returns the last value, whether it is usable or not.
    pub(super) async fn last(&self) -> Option<T> {
        self.state.lock().await.value.clone()
    }

    /// Ends the use of the value if it is one that failed. [`last`](Self::last) still returns it.
    pub(super) async fn expire_if(&self, has_failed: impl Fn(&T) -> bool) {
        let mut state = self.state.lock().await;
        state.is_expired |= state.value.as_ref().is_some_and(has_failed);
    }
}
