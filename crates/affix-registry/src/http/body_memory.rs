//! Memory for large answers, shared by the whole process.
//!
//! The cap on one answer does not bound many of them at once, and whoever runs a hostile registry decides how many come at once.
//! So the first part of an answer is read freely, which is all of nearly every honest one, and the rest only with a share of one
//! budget. A registry holds one share at a time and has to send what it is for within the time of a request: those who answer
//! slowly on purpose cannot keep all of it to themselves.
//!
//! A share brings the memory itself, which goes from one answer to the next: freed and taken anew for each, it would stay with the
//! allocator several times over.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use bytes::BytesMut;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// Bytes of an answer that are read without a share.
pub(crate) const FREE: usize = 64 << 10;
/// Bytes of all large answers together.
const ALL: usize = 8 << 20;
/// Buffers that are kept while no answer needs them.
const SPARE: usize = 2;
/// A permit of the semaphore stands for so many bytes.
const UNIT: usize = 1 << 10;

/// What the process spends on large answers.
#[derive(Clone)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    /// Memory that no answer uses at present.
    spare: Arc<StdMutex<Vec<BytesMut>>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(ALL / UNIT)),
            spare: Arc::default(),
        }
    }
}

/// One registry's place in the queue for the budget.
pub(crate) struct Account {
    budget: Budget,
    one_at_a_time: Arc<Mutex<()>>,
}

/// Leave to hold a large answer; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    /// Where the answer is read to.
    pub(crate) buffer: BytesMut,
    spare: Arc<StdMutex<Vec<BytesMut>>>,
    _account: OwnedMutexGuard<()>,
    _permits: Option<OwnedSemaphorePermit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }
}

impl Account {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            one_at_a_time: Arc::default(),
        }
    }

    /// Waits for leave to hold `bytes`. An answer that is larger than the whole budget gets the whole budget.
    pub(crate) async fn share(&self, bytes: u64) -> Share {
        let account = Arc::clone(&self.one_at_a_time).lock_owned().await;
        let units = usize::try_from(bytes)
            .unwrap_or(ALL)
            .min(ALL)
            .div_ceil(UNIT);
        let permits = Arc::clone(&self.budget.permits)
            .acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX))
            .await;
        let spare = Arc::clone(&self.budget.spare);
        let buffer = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // The semaphore is never closed.
        let mut buffer = buffer.unwrap_or_default();
        // Each for the largest answer from the start: buffers that grow leave holes where they were.
        buffer.reserve((ALL / SPARE).max(units * UNIT));
        Share {
            buffer,
            spare,
            _account: account,
            _permits: permits.ok(),
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
    fn all_registries_together_stay_within_the_budget() {
        let budget = Budget::default();
        let accounts: Vec<_> = (0..3).map(|_| Account::new(budget.clone())).collect();
        let mut held: Vec<_> = accounts
            .iter()
            .filter_map(|account| account.share(4 << 20).now_or_never())
            .collect();
        assert_eq!(held.len(), 2, "two of 4 MiB are all of 8 MiB");
        held.pop();
        assert!(accounts[2].share(4 << 20).now_or_never().is_some());
    }

    #[test]
    fn a_registry_holds_one_share_at_a_time_and_leaves_the_rest_to_others() {
        let budget = Budget::default();
        let (slow, other) = (Account::new(budget.clone()), Account::new(budget));
        let _held = slow.share(1 << 20).now_or_never().unwrap();
        assert!(slow.share(1 << 20).now_or_never().is_none());
        assert!(other.share(1 << 20).now_or_never().is_some());
    }

    #[test]
    fn what_is_larger_than_the_budget_gets_all_of_it() {
        let account = Account::new(Budget::default());
        drop(account.share(u64::MAX).now_or_never().unwrap());
        assert!(account.share(1).now_or_never().is_some());
    }
}
