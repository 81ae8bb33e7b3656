//! How many requests go to one registry at once, and when none do.
//!
//! The cap is shared by all passes over the same way to a registry; routine work leaves a quarter of it to what somebody waits for,
//! or a backlog of it on a slow registry would take every place. A pause, asked for by a 429, is shared by those that use
//! the same credential as well, so that one tenant's cannot hold up another's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The places of one way to a registry.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    routine: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(most)),
            routine: Arc::new(Semaphore::new(most - most / 4)),
        }
    }

    /// Waits for a place. What is routine waits among its like first, so that never more of it stand in the one line.
    async fn take(&self, routine: bool) -> Place {
        let own = if routine {
            Arc::clone(&self.routine).acquire_owned().await.ok()
        } else {
            None
        };
        // Neither is ever closed.
        Place {
            _all: Arc::clone(&self.all).acquire_owned().await.ok(),
            _routine: own,
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _all: Option<OwnedSemaphorePermit>,
    _routine: Option<OwnedSemaphorePermit>,
}

/// Cap and pause of one registry under one credential.
pub(crate) struct Throttle {
    places: Arc<Places>,
    until: Mutex<Option<Instant>>,
    waiting: AtomicU32,
    longest: Duration,
}

/// The pause ends after the deadline: this much is left of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PausedFor(pub(crate) Duration);

impl Throttle {
    pub(crate) const fn new(places: Arc<Places>, longest: Duration) -> Self {
        Self {
            places,
            until: Mutex::new(None),
            waiting: AtomicU32::new(0),
            longest,
        }
    }

    /// Lets nobody through for `wait`, at most for the longest time allowed. A longer pause that runs already stays. Answers with
    /// the time by which the pause has grown.
    pub(crate) fn pause(&self, now: Instant, wait: Duration) -> Duration {
        let end = now + wait.min(self.longest);
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let known = until.map_or(now, |known| known.max(now));
        *until = Some(known.max(end));
        end.saturating_duration_since(known)
    }

    /// What is left of a pause at `now`.
    pub(crate) fn paused(&self, now: Instant) -> Duration {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Waits for the end of a pause and for a free place. `random` is uniform in 0 to 1: those who waited together do not
    /// start together.
    pub(crate) async fn enter(
        &self,
        routine: bool,
        deadline: Instant,
        mut random: impl FnMut() -> f64,
    ) -> Result<Place, PausedFor> {
        loop {
            self.wait_out_pause(deadline, &mut random).await?;
            let place = self.places.take(routine).await;
            if self.paused(Instant::now()).is_zero() {
                return Ok(place);
            }
        }
    }

    async fn wait_out_pause(
        &self,
        deadline: Instant,
        random: &mut impl FnMut() -> f64,
    ) -> Result<(), PausedFor> {
        loop {
            let left = self.paused(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if Instant::now() + left >= deadline {
                return Err(PausedFor(left));
            }
            let _counted = Counted::new(&self.waiting);
            tokio::time::sleep(
                left + spread(self.waiting.load(Ordering::Relaxed))
                    .mul_f64(random().clamp(0.0, 1.0)),
            )
            .await;
        }
    }
}

/// The time over which `waiting` requests start again after a pause: 25 ms each, at most 2 s.
fn spread(waiting: u32) -> Duration {
    Duration::from_millis(25)
        .saturating_mul(waiting.saturating_sub(1))
        .min(Duration::from_secs(2))
}

/// Counts a waiter for as long as it waits, also when it is dropped.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn throttle(permits: usize) -> Arc<Throttle> {
        Arc::new(Throttle::new(
            Arc::new(Places::new(permits)),
            Duration::from_mins(15),
        ))
    }

    fn in_an_hour() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_and_those_who_waited_do_not_start_together() {
        let throttle = throttle(100);
        let begin = Instant::now();
        throttle.pause(begin, Duration::from_secs(30));
        let waiters = (0..40_u32).map(|n| {
            let throttle = Arc::clone(&throttle);
            tokio::spawn(async move {
                let _permit = throttle
                    .enter(false, in_an_hour(), || f64::from(n) / 40.0)
                    .await
                    .unwrap();
                begin.elapsed()
            })
        });
        let mut woken = Vec::new();
        for waiter in waiters.collect::<Vec<_>>() {
            woken.push(waiter.await.unwrap());
        }
        let at_once = woken.iter().filter(|at| at.as_millis() < 30_010).count();
        assert!(
            woken.iter().all(|at| at.as_secs() >= 30) && at_once < 5,
            "{woken:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_after_fifteen_minutes_regardless_of_retry_after() {
        let throttle = throttle(1);
        throttle.pause(Instant::now(), Duration::from_secs(u64::from(u32::MAX)));
        assert_eq!(throttle.paused(Instant::now()), Duration::from_mins(15));
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_that_pauses_have_in_common_are_told_once() {
        let throttle = throttle(1);
        let begin = Instant::now();
        let grown = [(0, 30), (10, 30), (20, 5), (60, 5)].map(|(after, wait)| {
            throttle
                .pause(
                    begin + Duration::from_secs(after),
                    Duration::from_secs(wait),
                )
                .as_secs()
        });
        assert_eq!(grown, [30, 10, 0, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_exceeds_the_deadline_fails_at_once() {
        let throttle = throttle(1);
        throttle.pause(Instant::now(), Duration::from_mins(2));
        let refused = throttle
            .enter(false, Instant::now() + Duration::from_mins(1), || 0.0)
            .await
            .unwrap_err();
        assert_eq!(refused, PausedFor(Duration::from_mins(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_begins_while_one_waits_for_a_place_is_heeded() {
        let throttle = throttle(1);
        let first = throttle.enter(false, in_an_hour(), || 0.0).await.unwrap();
        let begin = Instant::now();
        let second = {
            let throttle = Arc::clone(&throttle);
            tokio::spawn(async move { throttle.enter(false, in_an_hour(), || 0.0).await.map(drop) })
        };
        tokio::task::yield_now().await;
        throttle.pause(begin, Duration::from_secs(5));
        drop(first);
        second.await.unwrap().unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn routine_work_leaves_a_quarter_of_the_places_to_what_somebody_waits_for() {
        let throttle = throttle(8);
        let enter = |routine| throttle.enter(routine, in_an_hour(), || 0.0).now_or_never();
        let routine: Vec<_> = std::iter::from_fn(|| enter(true)).collect();
        assert_eq!(routine.len(), 6);
        let awaited: Vec<_> = std::iter::from_fn(|| enter(false)).collect();
        assert_eq!(awaited.len(), 2);
        drop(routine);
        assert!(enter(true).is_some() && enter(false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_place_is_for_both() {
        let throttle = throttle(1);
        for routine in [true, false] {
            assert!(
                throttle
                    .enter(routine, in_an_hour(), || 0.0)
                    .now_or_never()
                    .is_some()
            );
        }
    }
}
