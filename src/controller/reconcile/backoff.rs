//! Delays until the next reconcile.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::controller::watch::summary::Summary;

/// Returns the delay after a number of consecutive failures: it doubles from `min` to `max`. `jitter` (0 to 1) shortens it by up
/// to a quarter, so that resources that failed together are retried apart. A longer `retry_after` of the registry wins.
#[must_use]
pub(crate) fn retry_delay(
    failures: u32,
    min: Duration,
    max: Duration,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Duration {
    let doubled = min.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(31)));
    let delay = doubled.min(max).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0);
    retry_after.map_or(delay, |retry_after| delay.max(retry_after))
}

/// Returns `interval`, changed by up to `percentage` in both directions. `jitter` is from 0 to 1.
#[must_use]
pub(crate) fn jittered(interval: Duration, percentage: u8, jitter: f64) -> Duration {
    let share = f64::from(percentage.min(100)) / 100.0;
    interval.mul_f64(1.0 + share * (2.0 * jitter.clamp(0.0, 1.0) - 1.0))
}

/// Returns the delay of the first reconcile of a ready resource after a start: `jitter` (0 to 1) of its interval, so that ten
/// thousand resources are spread over it, but not after its next due date. `None`: no delay.
pub(crate) fn initial_delay(summary: &Summary, now: Timestamp, jitter: f64) -> Option<Duration> {
    let delay = summary.interval.mul_f64(jitter.clamp(0.0, 1.0));
    let due = summary
        .due_at
        .map(|due| Duration::try_from(due.duration_since(now)).unwrap_or_default());
    Some(due.map_or(delay, |due| due.min(delay))).filter(|delay| !delay.is_zero())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::api::{ImageAttachmentSpec, ImageAttachmentStatus};
    use kube::core::ObjectMeta;
    use serde_json::json;

    const MIN: Duration = Duration::from_millis(750);
    const MAX: Duration = Duration::from_secs(900);

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays: Vec<u128> = (1..=4)
            .map(|failures| retry_delay(failures, MIN, MAX, None, 0.0).as_millis())
            .collect();
        assert_eq!(delays, [750, 1500, 3000, 6000]);
        assert_eq!(retry_delay(40, MIN, MAX, None, 0.0), MAX);
        assert_eq!(
            retry_delay(u32::MAX, MIN, MAX, None, 1.0),
            MAX.mul_f64(0.75)
        );
    }

    #[test]
    fn a_retry_after_lengthens_the_delay_and_never_shortens_it() {
        let retry_after = Some(Duration::from_secs(30));
        let delay = |failures| retry_delay(failures, MIN, MAX, retry_after, 0.0).as_secs();
        assert_eq!([delay(1), delay(10)], [30, 384]);
    }

    #[test]
    fn an_interval_changes_by_its_percentage_in_both_directions() {
        let minute = Duration::from_secs(60);
        assert_eq!(jittered(minute, 5, 0.0), Duration::from_secs(57));
        assert_eq!(jittered(minute, 5, 1.0), Duration::from_secs(63));
        assert_eq!(jittered(minute, 0, 1.0), minute);
    }

    #[test]
    fn the_initial_delay_is_spread_over_the_interval_and_misses_no_due_date() {
        let spec = json!({
            "image": "r.example.com/app:v1", "interval": "1h",
            "endOfLife": {"whenSuperseded": {"gracePeriod": "720h", "settle": "10m"}},
        });
        let spec: ImageAttachmentSpec = serde_json::from_value(spec).unwrap();
        let moved = |at: &str| -> ImageAttachmentStatus {
            serde_json::from_value(
                json!({"superseded": [{"digest": "sha256:1", "movedAt": at, "state": "Pending"}]}),
            )
            .unwrap()
        };
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        let delay = |status: &ImageAttachmentStatus, jitter| {
            let mut summary = Summary::new(&ObjectMeta::default(), &spec, Some(status), 0);
            let due = crate::engine::due_in(&spec, status, now);
            summary.due_at = due.map(|due| now + due);
            initial_delay(&summary, now, jitter).map(|delay| delay.as_secs())
        };
        assert_eq!(
            [0.0, 0.25, 1.0].map(|jitter| delay(&ImageAttachmentStatus::default(), jitter)),
            [None, Some(900), Some(3600)]
        );
        let settling = moved("2026-11-23T11:55:00Z");
        assert_eq!(
            [0.05, 1.0].map(|jitter| delay(&settling, jitter)),
            [Some(180), Some(300)]
        );
        assert_eq!(
            delay(&moved("2026-11-23T11:00:00Z"), 1.0),
            None,
            "the move settled while the controller was down"
        );
    }
}
