//! The number of attempts of a failed request, and the delays between them.

use std::time::Duration;

/// Limits on the attempts of a request that fails. Delays have full jitter: a random part of a limit that doubles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts that are made regardless of the time, the first included. Attempts that time out are limited to two. Default 4.
    pub min_tries: u32,
    /// Attempts in all. Default 8.
    pub max_tries: u32,
    /// Time after the first attempt, after which no more than `min_tries` are made. Default 10 s.
    pub total: Duration,
    /// Limit of the first delay. It doubles with each attempt. Default 300 ms.
    pub base: Duration,
    /// Limit of every delay. Default 4 s.
    pub cap: Duration,
    /// Time after the first attempt, after which an unknown host or a refused connection ends the
    /// request. Default `None`: such a failure is retried like every other one.
    pub connect_total: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            min_tries: 4,
            max_tries: 8,
            total: Duration::from_secs(10),
            base: Duration::from_millis(300),
            cap: Duration::from_secs(4),
            connect_total: None,
        }
    }
}

impl RetryPolicy {
    /// Returns whether another attempt follows `tries` failed ones within `elapsed`. `min_tries` are made regardless of the time.
    #[must_use]
    pub(crate) fn goes_on(&self, min_tries: u32, tries: u32, elapsed: Duration) -> bool {
        tries < min_tries || (tries < self.max_tries && elapsed < self.total)
    }

    /// Returns the delay after `tries` failed attempts. `random` is uniform in 0 to 1.
    #[must_use]
    pub(crate) fn delay(&self, tries: u32, random: f64) -> Duration {
        let doubled = self
            .base
            .saturating_mul(1_u32 << tries.saturating_sub(1).min(16));
        doubled.min(self.cap).mul_f64(random.clamp(0.0, 1.0))
    }
}

/// Returns whether the same request may succeed later after a response with this status.
#[must_use]
pub(crate) const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_attempts_are_made_regardless_of_time_and_more_within_ten_seconds() {
        let policy = RetryPolicy::default();
        assert!(
            policy.goes_on(4, 3, Duration::from_mins(5))
                && !policy.goes_on(4, 4, Duration::from_secs(10))
        );
        assert!(
            policy.goes_on(2, 1, Duration::from_mins(1))
                && !policy.goes_on(2, 2, Duration::from_mins(1))
        );
        assert!(
            policy.goes_on(4, 7, Duration::from_secs(9)) && !policy.goes_on(4, 8, Duration::ZERO)
        );
    }

    #[test]
    fn delays_double_up_to_the_limit_and_are_a_random_part_of_it() {
        let policy = RetryPolicy::default();
        let ceilings: Vec<_> = (1..7)
            .map(|tries| policy.delay(tries, 1.0).as_millis())
            .collect();
        assert_eq!(ceilings, [300, 600, 1200, 2400, 4000, 4000]);
        assert_eq!(policy.delay(3, 0.5).as_millis(), 600);
        assert_eq!(policy.delay(u32::MAX, 1.0), policy.cap);
    }
}
