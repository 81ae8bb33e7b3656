//! The connection limiter, with eviction of idle connections.
//!
//! Idle connections must not lock out the API server (threat T19). At the limit, a new connection
//! evicts the longest idle one. Connections that never carried a review are evicted first. A connection
//! with a review in flight is never evicted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Limits the number of open connections.
#[derive(Debug)]
pub(crate) struct ConnectionLimiter {
    max: usize,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, ConnectionState>,
}

#[derive(Debug)]
struct ConnectionState {
    /// Reviews in flight.
    reviews: usize,
    /// The connection has carried a review.
    had_review: bool,
    idle_since: Instant,
    evict: CancellationToken,
}

/// The slot of one connection. Dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    limiter: Arc<ConnectionLimiter>,
    id: u64,
    evict: CancellationToken,
}

/// A review in flight on a connection.
#[derive(Debug)]
pub(crate) struct ReviewGuard(Arc<ConnectionSlot>);

impl ConnectionLimiter {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            connections: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a free slot, if necessary by evicting an idle connection. Returns `None` if every
    /// connection has a review in flight.
    pub(crate) fn acquire(self: &Arc<Self>) -> Option<Arc<ConnectionSlot>> {
        let mut connections = self.lock();
        if connections.open.len() >= self.max {
            let idle = connections
                .open
                .iter()
                .filter(|(_, connection)| connection.reviews == 0);
            let (&id, _) = idle.min_by_key(|(id, connection)| {
                (connection.had_review, connection.idle_since, **id)
            })?;
            if let Some(connection) = connections.open.remove(&id) {
                connection.evict.cancel();
            }
        }
        let (id, evict) = (connections.next, CancellationToken::new());
        connections.next += 1;
        connections.open.insert(
            id,
            ConnectionState {
                reviews: 0,
                had_review: false,
                idle_since: Instant::now(),
                evict: evict.clone(),
            },
        );
        Some(Arc::new(ConnectionSlot {
            limiter: Arc::clone(self),
            id,
            evict,
        }))
    }
}

impl ConnectionSlot {
    /// Completes when the connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.evict.cancelled().await;
    }

    /// Marks a review as in flight until the returned guard is dropped.
    pub(crate) fn start_review(self: &Arc<Self>) -> ReviewGuard {
        if let Some(connection) = self.limiter.lock().open.get_mut(&self.id) {
            connection.reviews += 1;
            connection.had_review = true;
        }
        ReviewGuard(Arc::clone(self))
    }
}

impl Drop for ReviewGuard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.limiter.lock().open.get_mut(&self.0.id) {
            connection.reviews = connection.reviews.saturating_sub(1);
            connection.idle_since = Instant::now();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limiter.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    async fn later() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn unused_connections_are_evicted_first_then_the_longest_idle_one() {
        let limiter = ConnectionLimiter::new(3);
        let early = limiter.acquire().unwrap();
        drop(early.start_review());
        later().await;
        let late = limiter.acquire().unwrap();
        drop(late.start_review());
        later().await;
        let silent = limiter.acquire().unwrap();
        let is_evicted = |slot: &ConnectionSlot| slot.evicted().now_or_never().is_some();

        let fourth = limiter.acquire().unwrap();
        drop(fourth.start_review());
        assert_eq!(
            (is_evicted(&early), is_evicted(&late), is_evicted(&silent)),
            (false, false, true)
        );
        let _fifth = limiter.acquire().unwrap().start_review();
        assert_eq!(
            (is_evicted(&early), is_evicted(&late), is_evicted(&fourth)),
            (true, false, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_review_in_flight_is_not_evicted() {
        let limiter = ConnectionLimiter::new(2);
        let (first, second) = (limiter.acquire().unwrap(), limiter.acquire().unwrap());
        let (_once, twice) = (
            first.start_review(),
            [second.start_review(), second.start_review()],
        );
        assert!(limiter.acquire().is_none());
        let [one, other] = twice;
        drop(one);
        assert!(limiter.acquire().is_none());
        drop(other);
        assert!(limiter.acquire().is_some() && second.evicted().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_connection_frees_its_slot() {
        let limiter = ConnectionLimiter::new(1);
        let first = limiter.acquire().unwrap();
        let start_review = first.start_review();
        drop((first, start_review));
        let second = limiter.acquire().unwrap();
        assert!(second.evicted().now_or_never().is_none());
    }
}
