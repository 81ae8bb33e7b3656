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

use crate::admission::options::ServerLimits;

/// Above this a body is large. Reviews of pods are a few KiB.
const LARGE: usize = 256 << 10;
/// Bytes of all small bodies together, and of all large ones: neither can take the other's.
const SMALL_MEMORY: usize = 16 << 20;
const LARGE_MEMORY: usize = 32 << 20;
/// Large bodies that wait for memory; more are turned away. Each keeps what its connection lets it send ahead, which other requests
/// on that connection go without.
pub(crate) const WAITING: usize = 8;

/// Admits bodies.
#[derive(Debug)]
pub(crate) struct Bodies {
    cap: usize,
    patience: Duration,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    waiting: Semaphore,
}

/// A body that was read, with its share of the memory.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    TooLarge(usize),
    Slow(Duration),
    Overloaded,
    Broken,
    TooComplex(usize),
}

impl Unread {
    /// The HTTP status and what the caller reads.
    pub(crate) fn answer(self) -> (StatusCode, String) {
        match self {
            Self::TooLarge(cap) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the review has more than {cap} bytes (--max-body-bytes)\n"),
            ),
            Self::TooComplex(most) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the review has more than {most} values\n"),
            ),
            Self::Slow(patience) => (
                StatusCode::REQUEST_TIMEOUT,
                format!("the review did not arrive within {patience:?}\n"),
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many reviews at once: try again\n".to_owned(),
            ),
            Self::Broken => (StatusCode::BAD_REQUEST, "the review broke off\n".to_owned()),
        }
    }

    /// A word for metrics.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::TooComplex(_) => "size",
            Self::Slow(_) => "slow",
            Self::Overloaded => "load",
            Self::Broken => "broken",
        }
    }
}

impl Bodies {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            cap: limits.body_bytes,
            patience: limits.patience,
            small: Arc::new(Semaphore::new(SMALL_MEMORY)),
            large: Arc::new(Semaphore::new(
                limits.body_bytes.clamp(LARGE_MEMORY, u32::MAX as usize),
            )),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// Reads a body within the patience.
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Read, Unread> {
        timeout(self.patience, self.read_all(headers, body))
            .await
            .unwrap_or(Err(Unread::Slow(self.patience)))
    }

    async fn read_all(&self, headers: &HeaderMap, body: Body) -> Result<Read, Unread> {
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        // What does not say how large it is may be as large as any.
        let size = declared.unwrap_or(self.cap);
        if size > self.cap {
            return Err(Unread::TooLarge(self.cap));
        }
        // A large body gets all of its memory before its first byte, so no two wait for each other; a small one pays as it comes.
        let is_large = size > LARGE;
        let mut share = if is_large {
            self.large_share(size).await?
        } else {
            self.small_share(0)?
        };
        let (mut bytes, mut pieces) = (BytesMut::new(), body.into_data_stream());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Unread::Broken)?;
            if bytes.len() + piece.len() > size {
                return Err(Unread::TooLarge(self.cap));
            }
            if !is_large {
                share.merge(self.small_share(piece.len())?);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Read {
            bytes: bytes.freeze(),
            _share: share,
        })
    }

    fn small_share(&self, size: usize) -> Result<OwnedSemaphorePermit, Unread> {
        Arc::clone(&self.small)
            .try_acquire_many_owned(permits(size))
            .map_err(|_| Unread::Overloaded)
    }

    async fn large_share(&self, size: usize) -> Result<OwnedSemaphorePermit, Unread> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Unread::Overloaded)?;
        Arc::clone(&self.large)
            .acquire_many_owned(permits(size))
            .await
            .map_err(|_| Unread::Overloaded)
    }
}

/// One a byte.
fn permits(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, stream};

    fn bodies(cap: usize) -> Bodies {
        Bodies::new(&ServerLimits {
            body_bytes: cap,
            ..ServerLimits::default()
        })
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
        assert_eq!(
            bodies.read(&declared(11), silent()).await.unwrap_err(),
            Unread::TooLarge(10)
        );
        assert_eq!(
            bodies
                .read(&HeaderMap::new(), Body::from("x".repeat(11)))
                .await
                .unwrap_err(),
            Unread::TooLarge(10)
        );
        assert_eq!(
            bodies
                .read(&declared(10), Body::from("x".repeat(10)))
                .await
                .unwrap()
                .bytes
                .len(),
            10
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_caller_is_let_go_and_large_bodies_wait_beside_the_small_ones() {
        let bodies = bodies(8 << 20);
        let large = declared(8 << 20);
        // The memory of large bodies is taken, and as many wait as may.
        let slow =
            (0..LARGE_MEMORY / (8 << 20) + WAITING).map(|_| bodies.read_all(&large, silent()));
        let mut slow = futures::future::join_all(slow).boxed_local();
        assert!((&mut slow).now_or_never().is_none());
        assert_eq!(
            bodies.read(&large, Body::from("{}")).await.unwrap_err(),
            Unread::Overloaded
        );
        assert_eq!(
            bodies
                .read(&declared(2), Body::from("{}"))
                .await
                .unwrap()
                .bytes,
            "{}"
        );
        assert_eq!(
            bodies.read(&declared(2), silent()).await.unwrap_err(),
            Unread::Slow(Duration::from_secs(5))
        );
        drop(slow);
        assert_eq!(
            bodies.read(&large, Body::from("{}")).await.unwrap().bytes,
            "{}"
        );
    }

    #[tokio::test]
    async fn the_memory_of_all_bodies_is_bounded_and_given_back() {
        let bodies = bodies(8 << 20);
        let small = Body::from(vec![0; LARGE]);
        let first = bodies.read(&declared(LARGE), small).await.unwrap();
        let rest = Arc::clone(&bodies.small)
            .try_acquire_many_owned((SMALL_MEMORY - LARGE) as u32)
            .unwrap();
        assert_eq!(
            bodies
                .read(&declared(1), Body::from("x"))
                .await
                .unwrap_err(),
            Unread::Overloaded
        );
        // Large ones have a memory of their own.
        assert_eq!(
            bodies
                .read(&declared(8 << 20), Body::from(vec![0; 8 << 20]))
                .await
                .unwrap()
                .bytes
                .len(),
            8 << 20
        );
        drop((first, rest));
        assert!(bodies.read(&declared(1), Body::from("x")).await.is_ok());
    }
}
