//! The cache of opened signing keys of a process.
//!
//! An encrypted key takes 150 to 200 ms and 64 MiB to open. The cache opens one key at a time on a blocking thread and keeps the result
//! under a hash of the Secret's bytes, so a rotated key is never served from the cache. The least recently used key is dropped and wiped.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::signing::{KeyError, Signer};
use affix_registry::oci::Digest;

use super::signing_key::SigningKey;

/// Maximum number of opened keys in the cache.
const MAX_KEYS: usize = 64;

type Opened = Result<Arc<dyn Signer>, KeyError>;

/// Opens keys and caches the result.
pub(in crate::engine) struct KeyCache {
    /// Entries in the order of use, the last used one at the end.
    entries: Mutex<Vec<(Digest, Opened)>>,
    permits: Arc<Semaphore>,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            permits: Arc::new(Semaphore::new(1)),
        }
    }
}

impl KeyCache {
    /// Returns the signer of a key, from the cache or opened now. A failure that the bytes cause is cached as well.
    pub(in crate::engine) async fn open(&self, key: &SigningKey, now: Timestamp) -> Opened {
        let name = key.fingerprint();
        if let Some(opened) = name.as_ref().and_then(|name| self.find(name)) {
            return opened;
        }
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return Err(KeyError::Unable);
        };
        // Another pass may have opened it in the meantime.
        if let Some(opened) = name.as_ref().and_then(|name| self.find(name)) {
            return opened;
        }
        let key = key.clone();
        let work = tokio::task::spawn_blocking(move || {
            // The permit is held until the work ends, also after the caller was cancelled.
            let _permit = permit;
            key.open(now)
        });
        let opened = work.await.unwrap_or(Err(KeyError::Unable));
        if let (Some(name), false) = (name, matches!(opened, Err(KeyError::Unable))) {
            self.insert(name, opened.clone());
        }
        opened
    }

    fn find(&self, name: &Digest) -> Option<Opened> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let position = entries.iter().position(|(cached, _)| cached == name)?;
        let found = entries.remove(position);
        let opened = found.1.clone();
        entries.push(found);
        Some(opened)
    }

    fn insert(&self, name: Digest, opened: Opened) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(cached, _)| *cached != name);
        let excess = (entries.len() + 1).saturating_sub(MAX_KEYS);
        entries.drain(..excess);
        entries.push((name, opened));
    }
}
