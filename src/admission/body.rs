//! Reading a review's body: never more than a cap, never longer than the caller's patience allows, never so many at once that
//! they fill the memory, and large ones never in the way of small ones.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::options::ServerLimits;

/// Above this a body is large. Reviews of pods are a few KiB.
const LARGE: usize = 256 << 10;
/// Large bodies that are read at once.
const LARGE_AT_ONCE: usize = 4;
/// Bytes of all bodies together.
const MEMORY: usize = 64 << 20;

/// Admits bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    cap: usize,
    patience: Duration,
    large: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// A body that was read, with its share of the memory.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    _memory: Vec<OwnedSemaphorePermit>,
    _large: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    TooLarge(usize),
    Slow(Duration),
    Overloaded,
    Broken,
}

impl Unread {
    /// The HTTP status and what the caller reads.
    pub(super) fn answer(self) -> (StatusCode, String) {
        match self {
            Self::TooLarge(cap) => (StatusCode::PAYLOAD_TOO_LARGE, format!("the review has more than {cap} bytes (--max-body-bytes)\n")),
            Self::Slow(patience) => (StatusCode::REQUEST_TIMEOUT, format!("the review did not arrive within {patience:?}\n")),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once: try again\n".to_owned()),
            Self::Broken => (StatusCode::BAD_REQUEST, "the review broke off\n".to_owned()),
        }
    }

    /// A word for metrics.
    pub(super) const fn cause(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "size",
            Self::Slow(_) => "slow",
            Self::Overloaded => "load",
            Self::Broken => "broken",
        }
    }
}

impl Bodies {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        Self {
            cap: limits.body_bytes,
            patience: limits.patience,
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
            memory: Arc::new(Semaphore::new(MEMORY.max(limits.body_bytes))),
        }
    }

    /// Reads a body within the patience.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Read, Unread> {
        timeout(self.patience, self.read_all(headers, body)).await.unwrap_or(Err(Unread::Slow(self.patience)))
    }

    async fn read_all(&self, headers: &HeaderMap, body: Body) -> Result<Read, Unread> {
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > self.cap) {
            return Err(Unread::TooLarge(self.cap));
        }
        // Before the first byte: a large one that waits for its turn holds no memory.
        let is_large = declared.is_none_or(|length| length > LARGE);
        let large = if is_large { Arc::clone(&self.large).acquire_owned().await.ok() } else { None };
        let (mut bytes, mut memory, mut pieces) = (BytesMut::new(), Vec::new(), body.into_data_stream());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Unread::Broken)?;
            if bytes.len() + piece.len() > self.cap {
                return Err(Unread::TooLarge(self.cap));
            }
            let share = u32::try_from(piece.len()).map_err(|_| Unread::TooLarge(self.cap))?;
            memory.push(Arc::clone(&self.memory).try_acquire_many_owned(share).map_err(|_| Unread::Overloaded)?);
            bytes.extend_from_slice(&piece);
        }
        Ok(Read { bytes: bytes.freeze(), _memory: memory, _large: large })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]
mod tests {
    use super::*;
    use futures::{FutureExt as _, stream};

    fn bodies(cap: usize) -> Bodies {
        Bodies::new(&ServerLimits { body_bytes: cap, ..ServerLimits::default() })
    }

    fn declared(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, length.into())])
    }

    /// A body that never comes.
    fn silent() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    }

    #[tokio::test]
    async fn a_body_above_the_cap_is_refused_with_and_without_its_length() {
        let bodies = bodies(10);
        assert_eq!(bodies.read(&declared(11), silent()).await.unwrap_err(), Unread::TooLarge(10));
        assert_eq!(bodies.read(&HeaderMap::new(), Body::from("x".repeat(11))).await.unwrap_err(), Unread::TooLarge(10));
        assert_eq!(bodies.read(&declared(10), Body::from("x".repeat(10))).await.unwrap().bytes.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_caller_is_let_go_and_large_bodies_wait_beside_the_small_ones() {
        let bodies = bodies(8 << 20);
        let large = declared(2 << 20);
        let slow = (0..LARGE_AT_ONCE).map(|_| bodies.read_all(&large, silent()));
        let mut slow = futures::future::join_all(slow).boxed_local();
        assert!((&mut slow).now_or_never().is_none());
        assert!(bodies.read(&large, Body::from("{}")).now_or_never().is_none(), "a fifth large body waits");
        assert_eq!(bodies.read(&declared(2), Body::from("{}")).await.unwrap().bytes, "{}");
        assert_eq!(bodies.read(&declared(2), silent()).await.unwrap_err(), Unread::Slow(Duration::from_secs(5)));
    }

    #[tokio::test]
    async fn the_memory_of_all_bodies_is_bounded_and_given_back() {
        let bodies = bodies(8 << 20);
        let whole = Body::from(vec![0; 8 << 20]);
        let first = bodies.read(&declared(8 << 20), whole).await.unwrap();
        let rest = Arc::clone(&bodies.memory).try_acquire_many_owned((MEMORY - (8 << 20)) as u32).unwrap();
        assert_eq!(bodies.read(&declared(1), Body::from("x")).await.unwrap_err(), Unread::Overloaded);
        drop((first, rest));
        assert!(bodies.read(&declared(1), Body::from("x")).await.is_ok());
    }
}
