//! A single-flight cache: concurrent requests for a key share one look-up, and its answer is cached for
//! a while. A look-up continues after its callers have gone, so its answer serves the next caller.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// Maximum number of entries. An answer of a hostile registry can take 20 KB.
const MAX_ENTRIES: usize = 4096;

/// Answers and pending look-ups by key.
pub(crate) struct SingleFlightCache<K, V> {
    entries: Mutex<HashMap<K, Entry<V>>>,
    ttl: Duration,
}

enum Entry<V> {
    Pending(Shared<BoxFuture<'static, Option<V>>>),
    Ready(V, Instant),
}

/// The origin of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Cache,
    Lookup,
}

impl<K, V> SingleFlightCache<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Creates a cache. With a `ttl` of zero, answers are shared only by concurrent callers.
    pub(crate) fn new(ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            ttl,
        })
    }

    /// Returns the cached answer for `key`.
    pub(crate) fn cached(&self, key: &K) -> Option<V> {
        match self
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            Some(Entry::Ready(answer, at)) if at.elapsed() < self.ttl => Some(answer.clone()),
            _ => None,
        }
    }

    /// Returns the look-up for `key` that is in flight.
    pub(crate) fn pending(&self, key: &K) -> Option<impl Future<Output = Option<V>> + use<K, V>> {
        match self
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            Some(Entry::Pending(pending)) => Some(pending.clone()),
            _ => None,
        }
    }

    /// Returns the answer for `key` from the cache or from the look-up `start`. Answers for which
    /// `is_cacheable` returns false are not cached. The answer is `None` if the look-up panicked.
    pub(crate) async fn get<F>(
        self: &Arc<Self>,
        key: K,
        is_cacheable: fn(&V) -> bool,
        start: impl FnOnce() -> F,
    ) -> (Option<V>, Source)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let pending = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            match entries.get(&key) {
                Some(Entry::Ready(answer, at)) if at.elapsed() < self.ttl => {
                    return (Some(answer.clone()), Source::Cache);
                }
                Some(Entry::Pending(pending)) => {
                    // The closure can hold permits, which this caller does not need.
                    drop(start);
                    pending.clone()
                }
                _ => {
                    self.make_room(&mut entries);
                    let (cache, completed_key, work) = (Arc::clone(self), key.clone(), start());
                    let task = tokio::spawn(async move {
                        let answer = std::panic::AssertUnwindSafe(work).catch_unwind().await.ok();
                        cache.complete(
                            completed_key,
                            answer.as_ref().filter(|answer| is_cacheable(answer)),
                        );
                        answer
                    });
                    let pending = task.map(|ended| ended.ok().flatten()).boxed().shared();
                    entries.insert(key, Entry::Pending(pending.clone()));
                    pending
                }
            }
        };
        (pending.await, Source::Lookup)
    }

    fn complete(&self, key: K, answer: Option<&V>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) if self.ttl > Duration::ZERO => {
                entries.insert(key, Entry::Ready(answer.clone(), Instant::now()))
            }
            _ => entries.remove(&key),
        };
    }

    fn make_room(&self, entries: &mut HashMap<K, Entry<V>>) {
        if entries.len() < MAX_ENTRIES {
            return;
        }
        entries.retain(|_, entry| matches!(entry, Entry::Ready(_, at) if at.elapsed() < self.ttl));
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn applicable_marks(
        count: &Arc<AtomicU32>,
    ) -> impl FnOnce() -> BoxFuture<'static, u32> + use<> {
        let count = Arc::clone(count);
        move || {
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                count.fetch_add(1, Ordering::SeqCst)
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_look_up_and_the_answer_expires() {
        let (cache, count) = (
            SingleFlightCache::new(Duration::from_secs(5)),
            Arc::new(AtomicU32::new(0)),
        );
        let both = tokio::join!(
            cache.get(1, |_| true, applicable_marks(&count)),
            cache.get(1, |_| true, applicable_marks(&count))
        );
        assert_eq!(both, ((Some(0), Source::Lookup), (Some(0), Source::Lookup)));
        assert_eq!(
            cache.get(1, |_| true, applicable_marks(&count)).await,
            (Some(0), Source::Cache)
        );
        assert_eq!((cache.cached(&1), cache.cached(&2)), (Some(0), None));
        assert_eq!(
            cache.get(2, |_| true, applicable_marks(&count)).await,
            (Some(1), Source::Lookup)
        );
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(cache.cached(&1), None);
        assert_eq!(
            cache.get(1, |_| true, applicable_marks(&count)).await,
            (Some(2), Source::Lookup)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_look_up_still_answers_the_next_caller() {
        let (cache, count) = (
            SingleFlightCache::new(Duration::from_secs(5)),
            Arc::new(AtomicU32::new(0)),
        );
        assert!(
            tokio::time::timeout(
                Duration::from_millis(10),
                cache.get(1, |_| true, applicable_marks(&count))
            )
            .await
            .is_err()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            cache.get(1, |_| true, applicable_marks(&count)).await,
            (Some(0), Source::Cache)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn uncacheable_answers_and_panics_are_looked_up_again() {
        let (cache, count) = (
            SingleFlightCache::new(Duration::from_secs(5)),
            Arc::new(AtomicU32::new(0)),
        );
        assert_eq!(
            cache.get(1, |_| false, applicable_marks(&count)).await.0,
            Some(0)
        );
        assert_eq!(
            cache.get(1, |_| true, || async { panic!("invalid") }).await,
            (None, Source::Lookup)
        );
        assert_eq!(
            cache.get(1, |_| true, applicable_marks(&count)).await.0,
            Some(1)
        );
    }
}
