//! The opened keys of a process.
//!
//! An encrypted key takes 150 to 200 ms and 64 MiB to open, so that happens away from the threads that serve the network, one at
//! a time, and what came of it is kept for as long as the Secret holds the same bytes. A key that was rotated has another name,
//! so it is never served from here; what nobody asked for longest is dropped, and wiped.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::signing::{KeyError, Signer};
use affix_registry::oci::Digest;

use super::signing_key::SigningKey;

/// How many opened keys are kept.
const MOST: usize = 64;

type Opened = Result<Arc<dyn Signer>, KeyError>;

/// Opens keys and keeps them.
pub(super) struct Signers {
    /// The one asked for last at the end.
    kept: Mutex<Vec<(Digest, Opened)>>,
    turn: Arc<Semaphore>,
}

impl Default for Signers {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Signers {
    /// The signer of a key, opened now or before. A failure is kept as well: the same bytes fail again, but for one that is not
    /// the bytes' own.
    pub(super) async fn open(&self, key: &SigningKey, now: Timestamp) -> Opened {
        let name = key.fingerprint();
        if let Some(opened) = name.as_ref().and_then(|name| self.find(name)) {
            return opened;
        }
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else {
            return Err(KeyError::Unable);
        };
        // Somebody else may have opened it meanwhile.
        if let Some(opened) = name.as_ref().and_then(|name| self.find(name)) {
            return opened;
        }
        let key = key.clone();
        let work = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, also where nobody waits for it any more.
            let _turn = turn;
            key.open(now)
        });
        let opened = work.await.unwrap_or(Err(KeyError::Unable));
        if let (Some(name), false) = (name, matches!(opened, Err(KeyError::Unable))) {
            self.keep(name, opened.clone());
        }
        opened
    }

    fn find(&self, name: &Digest) -> Option<Opened> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let position = kept.iter().position(|(kept, _)| kept == name)?;
        let found = kept.remove(position);
        let opened = found.1.clone();
        kept.push(found);
        Some(opened)
    }

    fn keep(&self, name: Digest, opened: Opened) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(kept, _)| *kept != name);
        let excess = (kept.len() + 1).saturating_sub(MOST);
        kept.drain(..excess);
        kept.push((name, opened));
    }
}
