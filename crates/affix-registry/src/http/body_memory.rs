//! A limit on the memory for large responses, for the whole process.
//!
//! The size limit of one response does not bound many of them at once, and a hostile registry decides how many are in flight. The
//! first part of a response is therefore read without a reservation, which covers nearly every honest response. The rest needs a
//! reservation of the shared memory (docs/decisions/0011). A registry holds one reservation at a time, for at most the time of
//! a request, so a slow registry cannot hold all of the memory.
//!
//! A reservation includes its buffer, which is reused for later responses. Buffers that are freed and allocated for each response
//! would stay with the allocator several times over.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// Bytes of a response that are read without a reservation.
pub(crate) const UNRESERVED_BYTES: usize = 64 << 10;
/// Bytes of all reservations together.
const MAX_RESERVED_BYTES: usize = 8 << 20;
/// Unused buffers that are kept.
const MAX_IDLE_BUFFERS: usize = 2;
/// Bytes for which one permit of the semaphore stands.
const BYTES_PER_PERMIT: usize = 1 << 10;

/// Limits the memory for large responses of the process. Clones share the limit.
#[derive(Clone)]
pub(crate) struct ResponseMemoryLimiter {
    permits: Arc<Semaphore>,
    idle_buffers: Arc<StdMutex<Vec<BytesMut>>>,
}

impl Default for ResponseMemoryLimiter {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_RESERVED_BYTES / BYTES_PER_PERMIT)),
            idle_buffers: Arc::default(),
        }
    }
}

/// The access of one registry to the limiter.
pub(crate) struct RegistryMemory {
    limiter: ResponseMemoryLimiter,
    one_at_a_time: Arc<Mutex<()>>,
}

/// Memory for one large response. Dropping it returns the memory.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// Receives the response.
    pub(crate) buffer: BytesMut,
    idle_buffers: Arc<StdMutex<Vec<BytesMut>>>,
    _registry: OwnedMutexGuard<()>,
    _permits: Option<OwnedSemaphorePermit>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut idle = self
            .idle_buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_BUFFERS {
            idle.push(buffer);
        }
    }
}

impl RegistryMemory {
    pub(crate) fn new(limiter: ResponseMemoryLimiter) -> Self {
        Self {
            limiter,
            one_at_a_time: Arc::default(),
        }
    }

    /// Waits for a reservation of `bytes`. More bytes than the limit reserve all of the limit.
    pub(crate) async fn reserve(&self, bytes: u64) -> Reservation {
        let registry = Arc::clone(&self.one_at_a_time).lock_owned().await;
        let permits = usize::try_from(bytes)
            .unwrap_or(MAX_RESERVED_BYTES)
            .min(MAX_RESERVED_BYTES)
            .div_ceil(BYTES_PER_PERMIT);
        // The semaphore is never closed.
        let reserved = Arc::clone(&self.limiter.permits)
            .acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX))
            .await;
        let idle_buffers = Arc::clone(&self.limiter.idle_buffers);
        let buffer = idle_buffers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut buffer = buffer.unwrap_or_default();
        // Each buffer has its final size from the start: buffers that grow leave holes in the heap.
        buffer.reserve((MAX_RESERVED_BYTES / MAX_IDLE_BUFFERS).max(permits * BYTES_PER_PERMIT));
        Reservation {
            buffer,
            idle_buffers,
            _registry: registry,
            _permits: reserved.ok(),
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn all_registries_together_stay_within_the_limit() {
        let limiter = ResponseMemoryLimiter::default();
        let registries: Vec<_> = (0..3)
            .map(|_| RegistryMemory::new(limiter.clone()))
            .collect();
        let mut held: Vec<_> = registries
            .iter()
            .filter_map(|registry| registry.reserve(4 << 20).now_or_never())
            .collect();
        assert_eq!(held.len(), 2, "two of 4 MiB are all of 8 MiB");
        held.pop();
        assert!(registries[2].reserve(4 << 20).now_or_never().is_some());
    }

    #[test]
    fn a_registry_holds_one_reservation_at_a_time_and_leaves_the_rest_to_others() {
        let limiter = ResponseMemoryLimiter::default();
        let (slow, other) = (
            RegistryMemory::new(limiter.clone()),
            RegistryMemory::new(limiter),
        );
        let _held = slow.reserve(1 << 20).now_or_never().unwrap();
        assert!(slow.reserve(1 << 20).now_or_never().is_none());
        assert!(other.reserve(1 << 20).now_or_never().is_some());
    }

    #[test]
    fn a_response_above_the_limit_reserves_all_of_it() {
        let registry = RegistryMemory::new(ResponseMemoryLimiter::default());
        drop(registry.reserve(u64::MAX).now_or_never().unwrap());
        assert!(registry.reserve(1).now_or_never().is_some());
    }
}
