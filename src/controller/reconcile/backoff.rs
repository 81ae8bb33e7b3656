//! How long a resource waits after a failure.

use std::time::Duration;

/// The delay after the `failures`-th failure in a row: doubling from `min` to `max`, less up to a quarter by `jitter` (0 to 1),
/// so that resources that failed together do not come back together. A registry that asks for more gets it.
#[must_use]
pub(crate) fn delay(
    failures: u32,
    min: Duration,
    max: Duration,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Duration {
    let doubled = min.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(31)));
    let delay = doubled.min(max).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
    retry_after.map_or(delay, |asked| delay.max(asked))
}

/// `interval`, shortened or lengthened by up to `percentage`, as `jitter` (0 to 1) says.
#[must_use]
pub(crate) fn jittered(interval: Duration, percentage: u8, jitter: f64) -> Duration {
    let share = f64::from(percentage.min(100)) / 100.0;
    interval.mul_f64(1.0 + share * (2.0 * jitter.clamp(0.0, 1.0) - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(750);
    const MAX: Duration = Duration::from_secs(900);

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays: Vec<u128> = (1..=4)
            .map(|failures| delay(failures, MIN, MAX, None, 0.0).as_millis())
            .collect();
        assert_eq!(delays, [750, 1500, 3000, 6000]);
        assert_eq!(delay(40, MIN, MAX, None, 0.0), MAX);
        assert_eq!(delay(u32::MAX, MIN, MAX, None, 1.0), MAX.mul_f64(0.75));
    }

    #[test]
    fn a_registry_that_asks_for_more_time_gets_it_and_never_less() {
        let asked = Some(Duration::from_secs(30));
        assert_eq!(delay(1, MIN, MAX, asked, 0.0), Duration::from_secs(30));
        assert_eq!(delay(10, MIN, MAX, asked, 0.0), Duration::from_secs(384));
    }

    #[test]
    fn an_interval_moves_by_its_percentage_both_ways() {
        let minute = Duration::from_secs(60);
        assert_eq!(jittered(minute, 5, 0.0), Duration::from_secs(57));
        assert_eq!(jittered(minute, 5, 1.0), Duration::from_secs(63));
        assert_eq!(jittered(minute, 0, 1.0), minute);
    }
}
