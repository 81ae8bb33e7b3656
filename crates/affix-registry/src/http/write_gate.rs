//! The write gate: it refuses every write of a process that may not write now.
//!
//! A process can lose the right to write while work is in progress, and a paused process can resume anywhere. The gate therefore
//! decides at the last moment before a write, by the monotonic clock, which continues during a pause (docs/decisions/0020).
//! The gate does not know the source of the right; for the controller it is the leader election.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Concurrent writes; far more than a process has in flight.
const MAX_WRITES: u32 = 1 << 20;

/// Refuses writes unless it is open. Clones are the same gate. The default gate is always open.
#[derive(Debug, Clone)]
pub struct WriteGate {
    state: Arc<Mutex<State>>,
    writes: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Open,
    OpenUntil(Instant),
    Closed,
}

/// The write gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process may not write now: another one may have taken over")]
pub struct Closed;

impl Default for WriteGate {
    fn default() -> Self {
        Self::with(State::Open)
    }
}

impl WriteGate {
    /// Returns a closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self::with(State::Closed)
    }

    fn with(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
            writes: Arc::new(Semaphore::new(MAX_WRITES as usize)),
        }
    }

    /// Opens the gate until `deadline`.
    pub fn open_until(&self, deadline: Instant) {
        self.set(State::OpenUntil(deadline));
    }

    /// Closes the gate. Writes that are in flight may still take effect: see [`settled`](Self::settled).
    pub fn close(&self) {
        self.set(State::Closed);
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Returns whether the gate is open now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open => true,
            State::OpenUntil(deadline) => Instant::now() < deadline,
            State::Closed => false,
        }
    }

    /// Runs one write while the gate is open. The gate is checked each time the work is polled, since a request can wait long for
    /// its connection.
    ///
    /// # Errors
    /// [`Closed`] if the gate is closed. A write in progress may or may not have taken effect.
    pub async fn write<T>(&self, work: impl Future<Output = T>) -> Result<T, Closed> {
        let _in_flight = self.writes.try_acquire().map_err(|_| Closed)?;
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.is_open() {
                work.as_mut().poll(cx).map(Ok)
            } else {
                Poll::Ready(Err(Closed))
            }
        })
        .await
    }

    /// Waits until no write is in flight, at most for `patience`. Returns whether that was reached.
    pub async fn settled(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.writes.acquire_many(MAX_WRITES))
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    use futures::FutureExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_gate_closes_by_itself_at_its_deadline() {
        let gate = WriteGate::closed();
        assert_eq!(gate.write(ready(())).await, Err(Closed));
        gate.open_until(Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(gate.write(ready(())).await, Ok(()));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(gate.write(ready(())).await, Err(Closed));
        assert_eq!(WriteGate::default().write(ready(())).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_for_its_connection_is_not_sent_once_the_gate_closes() {
        let gate = WriteGate::default();
        let mut sent = false;
        let connect_and_send = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            sent = true;
        };
        let close = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            gate.close();
        };
        let (written, ()) = tokio::join!(gate.write(connect_and_send), close);
        assert_eq!((written, sent), (Err(Closed), false));
    }

    #[tokio::test(start_paused = true)]
    async fn writes_in_flight_are_waited_for() {
        let gate = WriteGate::default();
        let mut write = Box::pin(gate.write(pending::<()>()));
        assert!(write.as_mut().now_or_never().is_none());
        gate.close();
        assert!(!gate.settled(Duration::from_secs(1)).await);
        drop(write);
        assert!(gate.settled(Duration::from_secs(1)).await);
    }
}
