//! Limits of concurrency, and of the request rate to the API server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::layer::util::Identity;
use tower::limit::RateLimitLayer;
use tower::util::Either;

use crate::controller::workqueue::queue::Flow;
use affix_registry::Priority;

/// Limits concurrent reconciles. Each priority has its own limit, so a changed resource never waits for interval checks. Each
/// registry has a share of it, so an unresponsive registry does not block the others.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimiter {
    low: Pool,
    high: Pool,
}

/// The permits of one priority.
#[derive(Debug)]
struct Pool {
    total: Arc<Semaphore>,
    max_per_host: usize,
    hosts: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// The permission for one reconcile, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) priority: Priority,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl ConcurrencyLimiter {
    /// Allows `max_concurrent` reconciles of each priority, a quarter of them (at least four) for one registry.
    pub(crate) fn new(max_concurrent: usize) -> Self {
        Self {
            low: Pool::new(max_concurrent.max(1)),
            high: Pool::new(max_concurrent.max(1)),
        }
    }

    fn pool(&self, priority: Priority) -> &Pool {
        match priority {
            Priority::Background => &self.low,
            Priority::Interactive => &self.high,
        }
    }

    /// Returns a permit if one is free.
    pub(crate) fn try_acquire(&self, flow: &Flow) -> Option<Permit> {
        let permits = match &flow.host {
            None => [None, None],
            Some(host) => {
                let pool = self.pool(flow.priority);
                let host = pool.host(host).try_acquire_owned().ok()?;
                let total = Arc::clone(&pool.total).try_acquire_owned().ok()?;
                [Some(host), Some(total)]
            }
        };
        Some(Permit {
            priority: flow.priority,
            _permits: permits,
        })
    }

    /// Waits for a permit of high priority for a registry.
    pub(crate) async fn acquire(&self, host: &str) -> Permit {
        // The registry's share comes first: a reconcile that waits for it must not hold a permit of the total.
        let host = self.high.host(&host.into()).acquire_owned().await.ok();
        let total = Arc::clone(&self.high.total).acquire_owned().await.ok();
        Permit {
            priority: Priority::Interactive,
            _permits: [host, total],
        }
    }
}

impl Pool {
    fn new(max_concurrent: usize) -> Self {
        Self {
            total: Arc::new(Semaphore::new(max_concurrent)),
            max_per_host: (max_concurrent / 4).max(4).min(max_concurrent),
            hosts: Mutex::default(),
        }
    }

    /// Returns the semaphore of a registry. Unused ones are removed.
    fn host(&self, host: &Arc<str>) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, semaphore| {
            Arc::strong_count(semaphore) > 1 || semaphore.available_permits() < self.max_per_host
        });
        hosts
            .entry(Arc::clone(host))
            .or_insert_with(|| Arc::new(Semaphore::new(self.max_per_host)))
            .clone()
    }
}

/// Returns a client layer that allows `burst` requests at once and `qps` per second on average, or no limit if `qps` is 0. A
/// request waits before the wrapped client builds it, so the write gate is checked after the wait.
pub(crate) fn api_rate_limit(qps: f32, burst: u32) -> Either<RateLimitLayer, Identity> {
    let burst = burst.max(1);
    match Duration::try_from_secs_f64(f64::from(burst) / f64::from(qps)) {
        Ok(window) if qps > 0.0 && !window.is_zero() => {
            Either::Left(RateLimitLayer::new(u64::from(burst), window))
        }
        _ => Either::Right(Identity::new()),
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
    use tokio::time::Instant;
    use tower::{Layer as _, Service as _, ServiceExt as _};

    fn low(host: &str) -> Flow {
        Flow::to_host(Priority::Background, host)
    }

    fn high(host: &str) -> Flow {
        Flow::to_host(Priority::Interactive, host)
    }

    #[test]
    fn an_unresponsive_registry_leaves_permits_for_the_others() {
        let limiter = ConcurrencyLimiter::new(16);
        let dead = low("dead.example.com");
        let mut permits: Vec<Permit> = std::iter::from_fn(|| limiter.try_acquire(&dead)).collect();
        assert_eq!(permits.len(), 4);
        assert!(limiter.try_acquire(&low("alive.example.com")).is_some());
        permits.pop();
        assert!(limiter.try_acquire(&dead).is_some());
    }

    #[test]
    fn a_changed_resource_does_not_wait_for_interval_checks() {
        let limiter = ConcurrencyLimiter::new(4);
        let hosts = ["a", "b", "c", "d", "e"];
        let acquire = |flow: fn(&str) -> Flow| -> Vec<Permit> {
            let permits = hosts
                .iter()
                .filter_map(|host| limiter.try_acquire(&flow(host)));
            permits.collect()
        };
        let (interval_checks, changed) = (acquire(low), acquire(high));
        assert_eq!((interval_checks.len(), changed.len()), (4, 4));
        assert!(limiter.try_acquire(&Flow::unlimited()).is_some());
    }

    #[tokio::test]
    async fn a_deletion_gets_its_permit_before_a_later_reconcile() {
        let limiter = ConcurrencyLimiter::new(4);
        let mut permits: Vec<Permit> =
            std::iter::from_fn(|| limiter.try_acquire(&high("a"))).collect();
        let mut deletion = Box::pin(limiter.acquire("a"));
        assert!(deletion.as_mut().now_or_never().is_none());
        permits.pop();
        assert!(limiter.try_acquire(&high("a")).is_none());
        assert!(deletion.now_or_never().is_some());
    }

    async fn duration(qps: f32, burst: u32, requests: u32) -> Duration {
        let mut service = api_rate_limit(qps, burst).layer(tower::service_fn(async |_: ()| {
            Ok::<_, std::convert::Infallible>(())
        }));
        let started = Instant::now();
        for _ in 0..requests {
            service.ready().await.unwrap().call(()).await.unwrap();
        }
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_sent_at_once_and_more_at_the_rate() {
        assert_eq!(duration(10.0, 20, 20).await, Duration::ZERO);
        let more = duration(10.0, 20, 60).await;
        assert!(
            more >= Duration::from_secs(4) && more < Duration::from_secs(5),
            "{more:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_no_request_waits() {
        for qps in [0.0, -1.0, f32::NAN] {
            assert_eq!(duration(qps, 1, 100).await, Duration::ZERO, "{qps}");
        }
    }
}
