//! Limits of concurrency, and of the request rate to the API server.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::layer::util::Identity;
use tower::limit::RateLimitLayer;
use tower::util::Either;

use crate::controller::workqueue::flow::{Denied, Flow, Lane};
use affix_registry::Priority;

/// The time of a turn. A reconcile that takes longer makes room for others.
pub(crate) const TURN: Duration = Duration::from_secs(3);
/// The most concurrent reconciles of large resources in each lane.
const MAX_LARGE: usize = 6;
/// The most registries that are remembered as slow. Above it all are forgotten, which costs each of them one turn.
const MAX_SLOW: usize = 4096;

/// Limits concurrent reconciles.
///
/// Each priority has its own limit, so a changed resource never waits for interval checks. A namespace has half of it and a registry a
/// quarter. A reconcile that exceeds its [`TURN`] moves to a second lane for slow registries, and later reconciles of that namespace on
/// that registry start there until one is done within a turn. So neither slow registries nor a namespace with many of them delay the
/// others by more than a turn (threat T35, decision 0096).
#[derive(Debug, Clone)]
pub(crate) struct ConcurrencyLimiter {
    max_concurrent: usize,
    state: Arc<Mutex<State>>,
    /// Notified when a reconcile has left its place before its end.
    left: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<Lane, Vec<Holder>>,
    /// The registries on which a reconcile exceeded its turn, by namespace: a tenant's proxy must not slow down others (threat T24).
    slow: HashSet<Registry>,
    last_id: u64,
}

/// A registry, as the resources of one namespace see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Registry {
    namespace: Arc<str>,
    host: Arc<str>,
}

/// A reconcile in a lane. A lane has few, so counting them needs no index.
#[derive(Debug)]
struct Holder {
    id: u64,
    registry: Registry,
    /// Cancelled when the reconcile must end for another namespace.
    evicted: CancellationToken,
}

/// The permission for one reconcile, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    priority: Priority,
    /// `None`: the limits do not apply.
    place: Option<Place>,
}

/// The properties of a permit that a reconcile needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) priority: Priority,
    /// The limits apply, so the reconcile may send requests to a registry.
    pub(crate) is_limited: bool,
}

/// The place of a permit in a lane.
#[derive(Debug)]
struct Place {
    limiter: ConcurrencyLimiter,
    lane: Lane,
    registry: Registry,
    id: u64,
    evicted: CancellationToken,
}

impl ConcurrencyLimiter {
    /// Allows `max_concurrent` reconciles in each lane.
    pub(crate) fn new(max_concurrent: usize) -> Self {
        Self {
            max_concurrent: max_concurrent.max(1),
            state: Arc::default(),
            left: Arc::default(),
        }
    }

    /// Completes when a reconcile has left its place before its end, since the last call.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// Returns the permits of a lane.
    fn total(&self, lane: Lane) -> usize {
        let most = if lane.is_large { MAX_LARGE } else { usize::MAX };
        self.max_concurrent.min(most)
    }

    /// Returns the share of a lane: one part of `parts`, but at least a few permits.
    fn share(&self, lane: Lane, parts: usize) -> usize {
        let (total, least) = (self.total(lane), if lane.is_large { 2 } else { 4 });
        (total / parts).max(least).min(total)
    }

    /// Returns a permit if one is free.
    pub(crate) fn try_acquire(&self, flow: &Flow) -> Result<Permit, Denied> {
        let priority = flow.lane.priority;
        let Some(host) = &flow.host else {
            return Ok(Permit {
                priority,
                place: None,
            });
        };
        let registry = Registry {
            namespace: Arc::clone(&flow.namespace),
            host: Arc::clone(host),
        };
        let mut state = self.lock();
        if state.slow.contains(&registry) != flow.lane.is_slow {
            return Err(Denied::OtherLane);
        }
        let (id, evicted) = self.enter(&mut state, flow.lane, &registry)?;
        Ok(Permit {
            priority,
            place: Some(Place {
                limiter: self.clone(),
                lane: flow.lane,
                registry,
                id,
                evicted,
            }),
        })
    }

    /// Enters a lane. In a full lane for slow registries, a namespace with less than the largest share takes the place of the youngest
    /// reconcile of the namespace with the largest one.
    fn enter(
        &self,
        state: &mut State,
        lane: Lane,
        registry: &Registry,
    ) -> Result<(u64, CancellationToken), Denied> {
        let holders = state.lanes.entry(lane).or_default();
        let count = |namespace: &str| {
            let holds = |holder: &&Holder| *holder.registry.namespace == *namespace;
            holders.iter().filter(holds).count()
        };
        let own = count(&registry.namespace);
        let on_registry = holders.iter().filter(|holder| holder.registry == *registry);
        if on_registry.count() >= self.share(lane, 4) {
            return Err(Denied::Registry);
        }
        if !lane.is_slow && own >= self.share(lane, 2) {
            return Err(Denied::Namespace);
        }
        if holders.len() >= self.total(lane) {
            if !lane.is_slow {
                return Err(Denied::Lane);
            }
            let largest = holders.iter().rev().max_by_key(|holder| {
                let namespace = &holder.registry.namespace;
                (count(namespace), holder.id)
            });
            let youngest = largest.filter(|holder| count(&holder.registry.namespace) > own + 1);
            let Some(id) = youngest.map(|holder| holder.id) else {
                return Err(Denied::Namespace);
            };
            if let Some(position) = holders.iter().position(|holder| holder.id == id) {
                holders.remove(position).evicted.cancel();
            }
        }
        state.last_id += 1;
        let (id, evicted) = (state.last_id, CancellationToken::new());
        holders.push(Holder {
            id,
            registry: registry.clone(),
            evicted: evicted.clone(),
        });
        Ok((id, evicted))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave(&mut self, lane: Lane, id: u64) {
        if let Some(holders) = self.lanes.get_mut(&lane) {
            holders.retain(|holder| holder.id != id);
        }
    }
}

impl Permit {
    pub(crate) const fn turn(&self) -> Turn {
        Turn {
            priority: self.priority,
            is_limited: self.place.is_some(),
        }
    }

    /// Runs `work`. `None`: it exceeded its turn and others need its place, so it was dropped.
    pub(crate) async fn run<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let Some(place) = &mut self.place else {
            return Some(work.await);
        };
        let mut work = pin!(work);
        if let Ok(done) = timeout(TURN, &mut work).await {
            place.limiter.lock().slow.remove(&place.registry);
            return Some(done);
        }
        if !place.move_to_slow_lane() {
            return None;
        }
        place.evicted.clone().run_until_cancelled(work).await
    }
}

impl Place {
    /// Moves to the lane for slow registries. Returns `false` if it has no place.
    fn move_to_slow_lane(&mut self) -> bool {
        let slow = Lane {
            is_slow: true,
            ..self.lane
        };
        let mut state = self.limiter.lock();
        if state.slow.len() >= MAX_SLOW {
            state.slow.clear();
        }
        state.slow.insert(self.registry.clone());
        if self.lane == slow {
            return true;
        }
        state.leave(self.lane, self.id);
        self.limiter.left.notify_one();
        self.lane = slow;
        match self.limiter.enter(&mut state, slow, &self.registry) {
            Ok((id, evicted)) => {
                (self.id, self.evicted) = (id, evicted);
                true
            }
            Err(_) => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.lock().leave(self.lane, self.id);
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

    fn in_lane(namespace: &str, host: &str, is_slow: bool) -> Flow {
        let flow = Flow::to_host(Priority::Interactive, namespace, host);
        if is_slow { flow.in_other_lane() } else { flow }
    }

    fn take_all(limiter: &ConcurrencyLimiter, flow: &Flow) -> Vec<Permit> {
        std::iter::from_fn(|| limiter.try_acquire(flow).ok()).collect()
    }

    /// Takes all permits that `namespace` gets with as many registries as it needs.
    fn flood(limiter: &ConcurrencyLimiter, namespace: &str, is_slow: bool) -> Vec<Permit> {
        let hosts = (0..64).map(|nth| format!("{namespace}-{nth}"));
        hosts
            .filter_map(|host| {
                let flow = in_lane(namespace, &host, is_slow);
                if is_slow {
                    let registry = Registry {
                        namespace: Arc::clone(&flow.namespace),
                        host: host.as_str().into(),
                    };
                    limiter.lock().slow.insert(registry);
                }
                limiter.try_acquire(&flow).ok()
            })
            .collect()
    }

    #[test]
    fn t35_a_registry_and_a_namespace_leave_permits_for_the_others() {
        let limiter = ConcurrencyLimiter::new(16);
        let dead = in_lane("a", "dead.example.com", false);
        let mut permits = take_all(&limiter, &dead);
        assert_eq!(permits.len(), 4);
        assert_eq!(limiter.try_acquire(&dead).unwrap_err(), Denied::Registry);
        permits.extend(flood(&limiter, "a", false));
        assert_eq!(permits.len(), 8);
        let other = in_lane("a", "alive.example.com", false);
        assert_eq!(limiter.try_acquire(&other).unwrap_err(), Denied::Namespace);
        permits.extend(flood(&limiter, "b", false));
        assert_eq!(permits.len(), 16);
        let innocent = in_lane("c", "alive.example.com", false);
        assert_eq!(limiter.try_acquire(&innocent).unwrap_err(), Denied::Lane);
        permits.pop();
        assert!(limiter.try_acquire(&innocent).is_ok());
    }

    #[test]
    fn a_changed_resource_does_not_wait_for_interval_checks() {
        let limiter = ConcurrencyLimiter::new(4);
        let hosts = ["a", "b", "c", "d", "e"];
        let acquire = |priority| -> Vec<Permit> {
            let permits = hosts.iter().filter_map(|host| {
                let flow = Flow::to_host(priority, "team", host);
                limiter.try_acquire(&flow).ok()
            });
            permits.collect()
        };
        let interval_checks = acquire(Priority::Background);
        let changed = acquire(Priority::Interactive);
        assert_eq!((interval_checks.len(), changed.len()), (4, 4));
        assert!(limiter.try_acquire(&Flow::unlimited("team")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn t35_a_reconcile_beyond_its_turn_makes_room_and_goes_on() {
        let limiter = ConcurrencyLimiter::new(4);
        let flow = in_lane("a", "slow", false);
        let mut permits = take_all(&limiter, &flow);
        let mut permit = permits.pop().unwrap();
        let mut work = Box::pin(permit.run(tokio::time::sleep(TURN * 3)));
        assert!(limiter.try_acquire(&flow).is_err());
        assert!(limiter.left().now_or_never().is_none());
        assert!(timeout(TURN * 2, &mut work).await.is_err());
        assert!(limiter.left().now_or_never().is_some());
        assert_eq!(limiter.try_acquire(&flow).unwrap_err(), Denied::OtherLane);
        assert!(limiter.try_acquire(&in_lane("b", "slow", false)).is_ok());
        assert_eq!(work.await, Some(()));
        drop(permit);
        // One that is done within its turn takes the registry back.
        let mut permit = limiter.try_acquire(&in_lane("a", "slow", true)).unwrap();
        assert_eq!(permit.run(async { 7 }).await, Some(7));
        assert!(limiter.try_acquire(&in_lane("a", "slow", true)).is_err());
        permits.clear();
        assert!(limiter.try_acquire(&flow).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn t35_the_lane_of_slow_registries_is_shared_by_namespace() {
        let limiter = ConcurrencyLimiter::new(4);
        let mut first = flood(&limiter, "a", true);
        assert_eq!(first.len(), 4);
        let never = std::future::pending::<()>;
        let running = futures::future::join_all(first.iter_mut().map(|permit| permit.run(never())));
        let mut running = Box::pin(running);
        assert!(timeout(TURN * 2, &mut running).await.is_err());
        // A slow reconcile of another namespace takes a place, and its next one a second.
        let [mut one, mut two, mut three] =
            ["1", "2", "3"].map(|host| limiter.try_acquire(&in_lane("b", host, false)).unwrap());
        let mut own = Box::pin(async { tokio::join!(one.run(never()), two.run(never())) });
        assert!(timeout(TURN * 2, &mut own).await.is_err());
        assert_eq!(three.run(never()).await, None, "two places are its share");
        drop((running, own));
        let evicted = first.iter().filter(|permit| {
            let place = permit.place.as_ref();
            place.is_some_and(|place| place.evicted.is_cancelled())
        });
        assert_eq!(evicted.count(), 2);
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
