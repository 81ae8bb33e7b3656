//! When each resource is visited next without a change of it.
//!
//! A resource at rest costs a few words here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::controller::watch::cache::Name;

/// The alarms: at most one for each resource.
#[derive(Default)]
pub(crate) struct Alarms {
    set: Mutex<Set>,
    /// Told when an alarm comes before all others.
    earlier: Notify,
}

#[derive(Default)]
struct Set {
    times: HashMap<Arc<Name>, Place>,
    queue: BTreeMap<Place, Arc<Name>>,
    number: u64,
}

/// A time, and a number that tells alarms of the same time apart.
type Place = (Instant, u64);

impl Set {
    fn take(&mut self, name: &Name) {
        if let Some(place) = self.times.remove(name) {
            self.queue.remove(&place);
        }
    }

    fn put(&mut self, name: Arc<Name>, at: Instant) {
        self.take(&name);
        let place = (at, self.number);
        self.number += 1;
        self.times.insert(Arc::clone(&name), place);
        self.queue.insert(place, name);
    }
}

impl Alarms {
    fn with<T>(&self, work: impl FnOnce(&mut Set) -> T) -> T {
        work(&mut self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The resource is visited at that time, and not when it was to be before.
    pub(crate) fn set(&self, name: Arc<Name>, at: Instant) {
        let is_first = self.with(|set| {
            set.put(name, at);
            set.queue
                .first_key_value()
                .is_some_and(|((first, _), _)| *first == at)
        });
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The resource is visited now, or is gone.
    pub(crate) fn cancel(&self, name: &Name) {
        self.with(|set| set.take(name));
    }

    /// Waits for the next alarm. One at a time may wait.
    pub(crate) async fn next(&self) -> Arc<Name> {
        loop {
            let first = self.with(|set| {
                let (at, number) = *set.queue.keys().next()?;
                let due = at <= Instant::now();
                let name = if due {
                    set.queue.remove(&(at, number))
                } else {
                    None
                };
                if let Some(name) = &name {
                    set.times.remove(name);
                }
                Some((at, name))
            });
            match first {
                Some((_, Some(due))) => return due,
                Some((at, None)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
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

    fn object(name: &str) -> Arc<Name> {
        Arc::new(Name::new(Some("team"), name))
    }

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn alarms_come_in_the_order_of_their_times_and_not_before() {
        let (alarms, begin) = (Alarms::default(), Instant::now());
        for (name, seconds) in [("later", 20), ("soon", 10), ("too", 20)] {
            alarms.set(object(name), after(seconds));
        }
        let mut came = Vec::new();
        for _ in 0..3 {
            came.push((alarms.next().await, begin.elapsed().as_secs()));
        }
        assert_eq!(
            came,
            [("soon", 10), ("later", 20), ("too", 20)].map(|(name, after)| (object(name), after))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_time_that_was_set_is_the_one_that_counts() {
        let (alarms, begin) = (Alarms::default(), Instant::now());
        for seconds in [5, 60, 30] {
            alarms.set(object("a"), after(seconds));
        }
        assert_eq!(
            (alarms.next().await, begin.elapsed().as_secs()),
            (object("a"), 30)
        );
        assert!(alarms.with(|set| set.times.is_empty() && set.queue.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_cancelled_never_comes() {
        let alarms = Alarms::default();
        alarms.set(object("a"), after(1));
        alarms.cancel(&object("a"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(alarms.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_one_is_heard_by_who_waits_for_a_later_one_or_for_none() {
        let (alarms, begin) = (Arc::new(Alarms::default()), Instant::now());
        let waiting = tokio::spawn({
            let alarms = Arc::clone(&alarms);
            async move { [alarms.next().await, alarms.next().await] }
        });
        tokio::task::yield_now().await;
        alarms.set(object("later"), after(100));
        tokio::task::yield_now().await;
        alarms.set(object("sooner"), after(10));
        assert_eq!(
            (waiting.await.unwrap(), begin.elapsed().as_secs()),
            ([object("sooner"), object("later")], 100)
        );
    }
}
