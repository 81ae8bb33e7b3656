//! The time of a review.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::GoDuration;

/// Time that is kept for the response, out of the time that the API server waits.
const MARGIN: Duration = Duration::from_millis(200);

/// The time that a review may spend on requests to registries and to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) deadline: Instant,
    /// The time from the arrival of the request to the deadline.
    pub(crate) limit: Duration,
}

impl Budget {
    /// Returns the smaller of `limit` and the time that the API server waits, less a margin. The API server states
    /// its time in the query of the URL, as `timeout=2s`.
    pub(crate) fn new(arrived: Instant, limit: Duration, query: Option<&str>) -> Self {
        let stated = query
            .into_iter()
            .flat_map(|query| query.split('&'))
            .find_map(|pair| pair.strip_prefix("timeout=")?.parse::<GoDuration>().ok());
        let limit = stated.map_or(limit, |stated| {
            limit.min(stated.get().saturating_sub(MARGIN))
        });
        Self {
            deadline: arrived + limit,
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_smaller_time_less_a_margin_is_the_deadline() {
        let limit = |own: u64, query: Option<&str>| {
            let now = Instant::now();
            let budget = Budget::new(now, Duration::from_millis(own), query);
            assert_eq!(budget.deadline - now, budget.limit);
            budget.limit.as_millis()
        };
        assert_eq!(limit(1000, None), 1000);
        assert_eq!(limit(1000, Some("timeout=2s")), 1000);
        assert_eq!(limit(5000, Some("timeout=2s")), 1800);
        assert_eq!(limit(1000, Some("a=b&timeout=1s")), 800);
        assert_eq!(limit(1000, Some("timeout=100ms")), 0);
        assert_eq!(limit(1000, Some("timeout=soon")), 1000);
    }
}
