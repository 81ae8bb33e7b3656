//! Who may work now: so many passes at once, so many of them on one registry, and a lane of its own for what somebody waits for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns for passes. A registry that does not answer can hold up no more than its own share, and a resource that somebody
/// has just changed never waits behind interval checks.
#[derive(Debug)]
pub(super) struct Lanes {
    routine: Lane,
    express: Lane,
}

#[derive(Debug)]
struct Lane {
    all: Arc<Semaphore>,
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// Whether nobody waits for what is done in it.
    pub(super) routine: bool,
    _host: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    /// `concurrent` passes at once in each lane, at most a quarter of them (four at least) on one registry.
    pub(super) fn new(concurrent: usize) -> Self {
        let lane = || {
            let concurrent = concurrent.max(1);
            Lane { all: Arc::new(Semaphore::new(concurrent)), per_host: (concurrent / 4).max(4).min(concurrent), hosts: Mutex::default() }
        };
        Self { routine: lane(), express: lane() }
    }

    /// Waits for a turn on `host`; `express` for what somebody waits for.
    pub(super) async fn turn(&self, host: &str, express: bool) -> Turn {
        let lane = if express { &self.express } else { &self.routine };
        let host = {
            let mut hosts = lane.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.retain(|_, semaphore| Arc::strong_count(semaphore) > 1 || semaphore.available_permits() < lane.per_host);
            hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(lane.per_host))).clone()
        };
        // The share of the registry first: a pass that waits for its registry must not hold a turn of all.
        let host = host.acquire_owned().await.ok();
        let all = Arc::clone(&lane.all).acquire_owned().await.ok();
        Turn { routine: !express, _host: host, _all: all }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_registry_that_hangs_leaves_turns_to_the_others() {
        let lanes = Lanes::new(16);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(lanes.turn("dead.example.com", false).now_or_never().unwrap());
        }
        assert!(lanes.turn("dead.example.com", false).now_or_never().is_none());
        assert!(lanes.turn("alive.example.com", false).now_or_never().is_some());
        held.pop();
        assert!(lanes.turn("dead.example.com", false).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_somebody_waits_for_does_not_queue_behind_interval_checks() {
        let lanes = Lanes::new(4);
        let mut held = Vec::new();
        for host in ["a", "b", "c", "d"] {
            held.push(lanes.turn(host, false).now_or_never().unwrap());
        }
        assert!(lanes.turn("e", false).now_or_never().is_none());
        assert!(lanes.turn("e", true).now_or_never().is_some());
    }
}
