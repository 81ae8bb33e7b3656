//! Limits on the requests to one registry: how many are in flight, and pauses that the registry asks for.
//!
//! All passes that use the same way to a registry share the limit on concurrency. Background requests leave a quarter of it to
//! interactive ones, so a backlog at a slow registry cannot take all of it. A pause, which a 429 starts,
//! applies to one credential only, so one tenant cannot pause another.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::client::options::Priority;

/// Limits the requests in flight to one registry.
pub(crate) struct ConcurrencyLimiter {
    all: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

impl ConcurrencyLimiter {
    pub(crate) fn new(max_in_flight: usize) -> Self {
        let permits = max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(permits)),
            background: Arc::new(Semaphore::new(permits - permits / 4)),
        }
    }

    /// Waits for a permit. Background requests first wait for each other, so the queue for `all` never has more than their share.
    async fn acquire(&self, priority: Priority) -> Permit {
        // Neither semaphore is ever closed.
        let background = match priority {
            Priority::Background => Arc::clone(&self.background).acquire_owned().await.ok(),
            Priority::Interactive => None,
        };
        Permit {
            _all: Arc::clone(&self.all).acquire_owned().await.ok(),
            _background: background,
        }
    }
}

/// Permission for one request. Dropping it returns the permit.
#[derive(Debug)]
pub(crate) struct Permit {
    _all: Option<OwnedSemaphorePermit>,
    _background: Option<OwnedSemaphorePermit>,
}

/// Concurrency limit and pause of one registry under one credential.
pub(crate) struct RateLimiter {
    concurrency: Arc<ConcurrencyLimiter>,
    paused_until: Mutex<Option<Instant>>,
    waiting: AtomicU32,
    max_pause: Duration,
}

/// The pause ends after the deadline. Holds the rest of the pause.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RateLimited(pub(crate) Duration);

impl RateLimiter {
    pub(crate) const fn new(concurrency: Arc<ConcurrencyLimiter>, max_pause: Duration) -> Self {
        Self {
            concurrency,
            paused_until: Mutex::new(None),
            waiting: AtomicU32::new(0),
            max_pause,
        }
    }

    /// Pauses all requests for `wait`, but at most for `max_pause`. A longer pause stays in force. Returns the time by which the
    /// pause has grown.
    pub(crate) fn pause(&self, now: Instant, wait: Duration) -> Duration {
        let end = now + wait.min(self.max_pause);
        let mut until = self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = until.map_or(now, |known| known.max(now));
        *until = Some(known.max(end));
        end.saturating_duration_since(known)
    }

    /// Returns the rest of the pause at `now`.
    pub(crate) fn paused(&self, now: Instant) -> Duration {
        let until = *self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Waits for the end of a pause and for a permit. `random` is uniform in 0 to 1 and spreads the requests after a pause.
    ///
    /// # Errors
    /// `RateLimited` if the pause does not end before `deadline`.
    pub(crate) async fn acquire(
        &self,
        priority: Priority,
        deadline: Instant,
        mut random: impl FnMut() -> f64,
    ) -> Result<Permit, RateLimited> {
        loop {
            self.wait_for_end_of_pause(deadline, &mut random).await?;
            let permit = self.concurrency.acquire(priority).await;
            // A pause can begin during the wait for the permit.
            if self.paused(Instant::now()).is_zero() {
                return Ok(permit);
            }
        }
    }

    async fn wait_for_end_of_pause(
        &self,
        deadline: Instant,
        random: &mut impl FnMut() -> f64,
    ) -> Result<(), RateLimited> {
        loop {
            let left = self.paused(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if Instant::now() + left >= deadline {
                return Err(RateLimited(left));
            }
            let _counted = Waiting::new(&self.waiting);
            let spread = spread(self.waiting.load(Ordering::Relaxed));
            tokio::time::sleep(left + spread.mul_f64(random().clamp(0.0, 1.0))).await;
        }
    }
}

/// Returns the time over which `waiting` requests resume after a pause: 25 ms each, at most 2 s.
fn spread(waiting: u32) -> Duration {
    Duration::from_millis(25)
        .saturating_mul(waiting.saturating_sub(1))
        .min(Duration::from_secs(2))
}

/// Counts a waiting request until it is dropped.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
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

    fn limiter(permits: usize) -> Arc<RateLimiter> {
        Arc::new(RateLimiter::new(
            Arc::new(ConcurrencyLimiter::new(permits)),
            Duration::from_mins(15),
        ))
    }

    fn in_an_hour() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_all_requests_and_they_do_not_resume_together() {
        let limiter = limiter(100);
        let begin = Instant::now();
        limiter.pause(begin, Duration::from_secs(30));
        let waiters = (0..40_u32).map(|n| {
            let limiter = Arc::clone(&limiter);
            tokio::spawn(async move {
                let _permit = limiter
                    .acquire(Priority::Interactive, in_an_hour(), || f64::from(n) / 40.0)
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
        let limiter = limiter(1);
        limiter.pause(Instant::now(), Duration::from_secs(u64::from(u32::MAX)));
        assert_eq!(limiter.paused(Instant::now()), Duration::from_mins(15));
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_that_pauses_have_in_common_are_counted_once() {
        let limiter = limiter(1);
        let begin = Instant::now();
        let grown = [(0, 30), (10, 30), (20, 5), (60, 5)].map(|(after, wait)| {
            limiter
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
        let limiter = limiter(1);
        limiter.pause(Instant::now(), Duration::from_mins(2));
        let refused = limiter
            .acquire(
                Priority::Interactive,
                Instant::now() + Duration::from_mins(1),
                || 0.0,
            )
            .await
            .unwrap_err();
        assert_eq!(refused, RateLimited(Duration::from_mins(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_begins_during_the_wait_for_a_permit_is_respected() {
        let limiter = limiter(1);
        let first = limiter
            .acquire(Priority::Interactive, in_an_hour(), || 0.0)
            .await
            .unwrap();
        let begin = Instant::now();
        let second = {
            let limiter = Arc::clone(&limiter);
            tokio::spawn(async move {
                limiter
                    .acquire(Priority::Interactive, in_an_hour(), || 0.0)
                    .await
                    .map(drop)
            })
        };
        tokio::task::yield_now().await;
        limiter.pause(begin, Duration::from_secs(5));
        drop(first);
        second.await.unwrap().unwrap();
        assert!(begin.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn background_requests_leave_a_quarter_of_the_permits_to_interactive_ones() {
        let limiter = limiter(8);
        let acquire = |priority| {
            limiter
                .acquire(priority, in_an_hour(), || 0.0)
                .now_or_never()
        };
        let background: Vec<_> = std::iter::from_fn(|| acquire(Priority::Background)).collect();
        assert_eq!(background.len(), 6);
        let interactive: Vec<_> = std::iter::from_fn(|| acquire(Priority::Interactive)).collect();
        assert_eq!(interactive.len(), 2);
        drop(background);
        assert!(
            acquire(Priority::Background).is_some() && acquire(Priority::Interactive).is_some()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_permit_serves_both_priorities() {
        let limiter = limiter(1);
        for priority in [Priority::Background, Priority::Interactive] {
            assert!(
                limiter
                    .acquire(priority, in_an_hour(), || 0.0)
                    .now_or_never()
                    .is_some()
            );
        }
    }
}
