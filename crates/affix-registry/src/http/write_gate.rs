//! Whether the process may write now: a gate that every write passes right before it leaves, whoever asked for it.
//!
//! Work that was begun under one right to write may go on after that right is lost: a paused process wakes in the middle of
//! anything. So it is the gate that says no, at the last moment, by the monotonic clock, which a pause does not stop. What gives
//! the right is not known here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Most writes at once; far above what any process has under way.
const MOST: u32 = 1 << 20;

/// The gate. Clones are the same gate; one made by default is open for good.
#[derive(Debug, Clone)]
pub struct WriteGate {
    opening: Arc<Mutex<Opening>>,
    writes: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy)]
enum Opening {
    Always,
    Until(Instant),
    Closed,
}

/// The gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process may not write now: another one may have taken over")]
pub struct Closed;

impl Default for WriteGate {
    fn default() -> Self {
        Self::with(Opening::Always)
    }
}

impl WriteGate {
    /// A gate that is closed until somebody opens it.
    #[must_use]
    pub fn closed() -> Self {
        Self::with(Opening::Closed)
    }

    fn with(opening: Opening) -> Self {
        Self {
            opening: Arc::new(Mutex::new(opening)),
            writes: Arc::new(Semaphore::new(MOST as usize)),
        }
    }

    /// Opens it until `deadline`.
    pub fn open_until(&self, deadline: Instant) {
        self.set(Opening::Until(deadline));
    }

    /// Closes it. What has left already is not called back: see [`settled`](Self::settled).
    pub fn close(&self) {
        self.set(Opening::Closed);
    }

    fn set(&self, opening: Opening) {
        *self.opening.lock().unwrap_or_else(PoisonError::into_inner) = opening;
    }

    /// Whether it is open now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match *self.opening.lock().unwrap_or_else(PoisonError::into_inner) {
            Opening::Always => true,
            Opening::Until(deadline) => Instant::now() < deadline,
            Opening::Closed => false,
        }
    }

    /// Carries out one write, as long as the gate is open: it is looked at whenever the work goes on, since a request may wait
    /// for its connection for long after it was begun.
    ///
    /// # Errors
    /// When the gate is closed; then nobody knows whether the write was done.
    pub async fn write<T>(&self, work: impl Future<Output = T>) -> Result<T, Closed> {
        let _under_way = self.writes.try_acquire().map_err(|_| Closed)?;
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

    /// Waits until no write is under way, at most for `patience`; says whether there is none.
    pub async fn settled(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.writes.acquire_many(MOST))
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
    async fn a_gate_shuts_by_itself_at_its_deadline() {
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
    async fn a_write_that_waited_for_its_connection_until_the_gate_had_closed_is_not_sent() {
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
    async fn what_is_under_way_is_waited_for() {
        let gate = WriteGate::default();
        let mut write = Box::pin(gate.write(pending::<()>()));
        assert!(write.as_mut().now_or_never().is_none());
        gate.close();
        assert!(!gate.settled(Duration::from_secs(1)).await);
        drop(write);
        assert!(gate.settled(Duration::from_secs(1)).await);
    }
}
