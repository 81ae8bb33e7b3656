//! Reading of request bodies with limits on size, time and total memory.
//!
//! Small and large bodies have separate memory budgets, so large reviews cannot delay small ones.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::admission::options::ServerLimits;

/// Size above which a body is large. Typical reviews of pods have a few KiB.
const LARGE_BODY: usize = 256 << 10;
/// Memory budgets of all small and of all large bodies, in bytes.
const SMALL_MEMORY: usize = 16 << 20;
const LARGE_MEMORY: usize = 32 << 20;
/// Maximum number of large bodies that wait for memory. Further ones are rejected. A waiting body
/// occupies the flow-control window of its connection.
pub(crate) const MAX_WAITING_BODIES: usize = 8;

/// Reads bodies within the limits.
#[derive(Debug)]
pub(crate) struct BodyReader {
    cap: usize,
    read_timeout: Duration,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    waiting: Semaphore,
}

/// A complete body and its memory reservation.
#[derive(Debug)]
pub(crate) struct BufferedBody {
    pub(crate) bytes: Bytes,
    _reservation: OwnedSemaphorePermit,
}

/// A body that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    TooLarge(usize),
    Slow(Duration),
    Overloaded,
    Broken,
    TooManyValues(usize),
}

impl BodyError {
    /// Returns the HTTP status and the response text.
    pub(crate) fn answer(self) -> (StatusCode, String) {
        match self {
            Self::TooLarge(cap) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the review is larger than {cap} bytes (--max-body-bytes)\n"),
            ),
            Self::TooManyValues(max) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the review has more than {max} values\n"),
            ),
            Self::Slow(limit) => (
                StatusCode::REQUEST_TIMEOUT,
                format!("the review did not arrive within {limit:?}\n"),
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many concurrent reviews: try again\n".to_owned(),
            ),
            Self::Broken => (
                StatusCode::BAD_REQUEST,
                "the review ended early\n".to_owned(),
            ),
        }
    }

    /// Returns the `cause` label for metrics.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::TooManyValues(_) => "size",
            Self::Slow(_) => "slow",
            Self::Overloaded => "load",
            Self::Broken => "broken",
        }
    }
}

impl BodyReader {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            cap: limits.body_bytes,
            read_timeout: limits.patience,
            small: Arc::new(Semaphore::new(SMALL_MEMORY)),
            large: Arc::new(Semaphore::new(
                limits.body_bytes.clamp(LARGE_MEMORY, u32::MAX as usize),
            )),
            waiting: Semaphore::new(MAX_WAITING_BODIES),
        }
    }

    /// Reads a body within the time limit.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<BufferedBody, BodyError> {
        timeout(self.read_timeout, self.read_untimed(headers, body))
            .await
            .unwrap_or(Err(BodyError::Slow(self.read_timeout)))
    }

    async fn read_untimed(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<BufferedBody, BodyError> {
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        // A body without Content-Length can be as large as the limit.
        let size = declared.unwrap_or(self.cap);
        if size > self.cap {
            return Err(BodyError::TooLarge(self.cap));
        }
        // A large body reserves its full size first, so two bodies cannot block each other. A small
        // body reserves memory as its chunks arrive.
        let is_large = size > LARGE_BODY;
        let mut reservation = if is_large {
            self.reserve_large(size).await?
        } else {
            self.reserve_small(0)?
        };
        let (mut bytes, mut chunks) = (BytesMut::new(), body.into_data_stream());
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| BodyError::Broken)?;
            if bytes.len() + chunk.len() > size {
                return Err(BodyError::TooLarge(self.cap));
            }
            if !is_large {
                reservation.merge(self.reserve_small(chunk.len())?);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(BufferedBody {
            bytes: bytes.freeze(),
            _reservation: reservation,
        })
    }

    fn reserve_small(&self, size: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        Arc::clone(&self.small)
            .try_acquire_many_owned(permits(size))
            .map_err(|_| BodyError::Overloaded)
    }

    async fn reserve_large(&self, size: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let _waiting = self
            .waiting
            .try_acquire()
            .map_err(|_| BodyError::Overloaded)?;
        Arc::clone(&self.large)
            .acquire_many_owned(permits(size))
            .await
            .map_err(|_| BodyError::Overloaded)
    }
}

/// Converts a size to permits, one per byte.
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

    fn bodies(cap: usize) -> BodyReader {
        BodyReader::new(&ServerLimits {
            body_bytes: cap,
            ..ServerLimits::default()
        })
    }

    fn declared(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, length.into())])
    }

    /// Returns a body that never yields data.
    fn silent() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_and_without_content_length() {
        let bodies = bodies(10);
        assert_eq!(
            bodies.read(&declared(11), silent()).await.unwrap_err(),
            BodyError::TooLarge(10)
        );
        assert_eq!(
            bodies
                .read(&HeaderMap::new(), Body::from("x".repeat(11)))
                .await
                .unwrap_err(),
            BodyError::TooLarge(10)
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
    async fn slow_bodies_time_out_and_waiting_large_bodies_do_not_delay_small_ones() {
        let bodies = bodies(8 << 20);
        let large = declared(8 << 20);
        // These bodies take the large budget and all waiting places.
        let slow = (0..LARGE_MEMORY / (8 << 20) + MAX_WAITING_BODIES)
            .map(|_| bodies.read_untimed(&large, silent()));
        let mut slow = futures::future::join_all(slow).boxed_local();
        assert!((&mut slow).now_or_never().is_none());
        assert_eq!(
            bodies.read(&large, Body::from("{}")).await.unwrap_err(),
            BodyError::Overloaded
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
            BodyError::Slow(Duration::from_secs(5))
        );
        drop(slow);
        assert_eq!(
            bodies.read(&large, Body::from("{}")).await.unwrap().bytes,
            "{}"
        );
    }

    #[tokio::test]
    async fn the_memory_of_all_bodies_is_bounded_and_released() {
        let bodies = bodies(8 << 20);
        let small = Body::from(vec![0; LARGE_BODY]);
        let first = bodies.read(&declared(LARGE_BODY), small).await.unwrap();
        let rest = Arc::clone(&bodies.small)
            .try_acquire_many_owned((SMALL_MEMORY - LARGE_BODY) as u32)
            .unwrap();
        assert_eq!(
            bodies
                .read(&declared(1), Body::from("x"))
                .await
                .unwrap_err(),
            BodyError::Overloaded
        );
        // Large bodies have their own budget.
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
