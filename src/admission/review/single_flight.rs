//! One look-up a key at a time, and its answer for a while. A look-up goes on when nobody waits for it any more, so that the
//! next who asks finds the answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// Answers kept, and look-ups under way, at most. An answer of a hostile registry takes some 20 KB.
const MOST: usize = 4096;

/// Look-ups by key.
pub(crate) struct Flights<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    ttl: Duration,
}

enum Slot<V> {
    Flying(Shared<BoxFuture<'static, Option<V>>>),
    Landed(V, Instant),
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Memory,
    LookUp,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Answers are believed for `ttl`; zero: they are only shared by those who ask at the same time.
    pub(crate) fn new(ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::default(),
            ttl,
        })
    }

    /// The answer for `key`, where it is known.
    pub(crate) fn known(&self, key: &K) -> Option<V> {
        match self
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            Some(Slot::Landed(answer, at)) if at.elapsed() < self.ttl => Some(answer.clone()),
            _ => None,
        }
    }

    /// The answer for `key`, known or looked up by `start`. An answer that is not `worth` keeping is looked up again by the next.
    /// `None`: the look-up panicked.
    pub(crate) async fn get<F>(
        self: &Arc<Self>,
        key: K,
        worth: fn(&V) -> bool,
        start: impl FnOnce() -> F,
    ) -> (Option<V>, From)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let flight = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.get(&key) {
                Some(Slot::Landed(answer, at)) if at.elapsed() < self.ttl => {
                    return (Some(answer.clone()), From::Memory);
                }
                Some(Slot::Flying(flight)) => {
                    // What it holds is for those who look up themselves.
                    drop(start);
                    flight.clone()
                }
                _ => {
                    self.make_room(&mut slots);
                    let (flights, landing, work) = (Arc::clone(self), key.clone(), start());
                    let task = tokio::spawn(async move {
                        let answer = std::panic::AssertUnwindSafe(work).catch_unwind().await.ok();
                        flights.land(landing, answer.as_ref().filter(|answer| worth(answer)));
                        answer
                    });
                    let flight = task.map(|ended| ended.ok().flatten()).boxed().shared();
                    slots.insert(key, Slot::Flying(flight.clone()));
                    flight
                }
            }
        };
        (flight.await, From::LookUp)
    }

    fn land(&self, key: K, answer: Option<&V>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) if self.ttl > Duration::ZERO => {
                slots.insert(key, Slot::Landed(answer.clone(), Instant::now()))
            }
            _ => slots.remove(&key),
        };
    }

    fn make_room(&self, slots: &mut HashMap<K, Slot<V>>) {
        if slots.len() < MOST {
            return;
        }
        slots.retain(|_, slot| matches!(slot, Slot::Landed(_, at) if at.elapsed() < self.ttl));
        if slots.len() >= MOST {
            slots.clear();
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

    fn counting(count: &Arc<AtomicU32>) -> impl FnOnce() -> BoxFuture<'static, u32> + use<> {
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
    async fn those_who_ask_together_cost_one_look_up_and_the_answer_ends() {
        let (flights, count) = (
            Flights::new(Duration::from_secs(5)),
            Arc::new(AtomicU32::new(0)),
        );
        let both = tokio::join!(
            flights.get(1, |_| true, counting(&count)),
            flights.get(1, |_| true, counting(&count))
        );
        assert_eq!(both, ((Some(0), From::LookUp), (Some(0), From::LookUp)));
        assert_eq!(
            flights.get(1, |_| true, counting(&count)).await,
            (Some(0), From::Memory)
        );
        assert_eq!((flights.known(&1), flights.known(&2)), (Some(0), None));
        assert_eq!(
            flights.get(2, |_| true, counting(&count)).await,
            (Some(1), From::LookUp)
        );
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(flights.known(&1), None);
        assert_eq!(
            flights.get(1, |_| true, counting(&count)).await,
            (Some(2), From::LookUp)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_nobody_waits_for_still_answers_the_next() {
        let (flights, count) = (
            Flights::new(Duration::from_secs(5)),
            Arc::new(AtomicU32::new(0)),
        );
        assert!(
            tokio::time::timeout(
                Duration::from_millis(10),
                flights.get(1, |_| true, counting(&count))
            )
            .await
            .is_err()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            flights.get(1, |_| true, counting(&count)).await,
            (Some(0), From::Memory)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_worth_keeping_and_what_panics_is_looked_up_again() {
        let (flights, count) = (
            Flights::new(Duration::from_secs(5)),
            Arc::new(AtomicU32::new(0)),
        );
        assert_eq!(flights.get(1, |_| false, counting(&count)).await.0, Some(0));
        assert_eq!(
            flights.get(1, |_| true, || async { panic!("odd") }).await,
            (None, From::LookUp)
        );
        assert_eq!(flights.get(1, |_| true, counting(&count)).await.0, Some(1));
    }
}
