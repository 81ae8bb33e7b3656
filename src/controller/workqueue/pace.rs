//! How many requests the API server gets from this process, as `--kube-api-qps` and `--kube-api-burst` say.

use std::time::Duration;

use tower::layer::util::Identity;
use tower::limit::RateLimitLayer;
use tower::util::Either;

/// A layer that lets `burst` requests through at once and `qps` a second in the long run; none where `qps` is 0. The wait comes before
/// the request is made, so whatever is asked right before a write is asked after it.
pub(crate) fn pace(qps: f32, burst: u32) -> Either<RateLimitLayer, Identity> {
    let burst = burst.max(1);
    let window = Duration::try_from_secs_f64(f64::from(burst) / f64::from(qps));
    match window {
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
    use tokio::time::Instant;
    use tower::{Layer as _, Service as _, ServiceExt as _};

    async fn took(qps: f32, burst: u32, requests: u32) -> Duration {
        let mut service = pace(qps, burst).layer(tower::service_fn(async |_: ()| {
            Ok::<_, std::convert::Infallible>(())
        }));
        let began = Instant::now();
        for _ in 0..requests {
            service.ready().await.unwrap().call(()).await.unwrap();
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_more_at_the_rate() {
        assert_eq!(took(10.0, 20, 20).await, Duration::ZERO);
        let more = took(10.0, 20, 60).await;
        assert!(
            more >= Duration::from_secs(4) && more < Duration::from_secs(5),
            "{more:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        for qps in [0.0, -1.0, f32::NAN] {
            assert_eq!(took(qps, 1, 100).await, Duration::ZERO, "{qps}");
        }
    }
}
