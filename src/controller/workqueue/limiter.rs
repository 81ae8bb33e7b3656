//! Who may work now, and who may wait: so many passes at once, so many of them on one registry, a lane of its own for what somebody waits
//! for, and no storm when a process begins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::{ImageAttachmentSpec, ImageAttachmentStatus};
use crate::engine;

use crate::controller::workqueue::queue::Line;

/// When a process that begins looks at a resource at rest for the first time: somewhere within its interval, as `jitter` (0 to 1) says, so
/// that ten thousand of them are not asked for at once, and not after what is due. `None`: now.
pub(crate) fn first_look(
    spec: &ImageAttachmentSpec,
    status: &ImageAttachmentStatus,
    now: Timestamp,
    jitter: f64,
) -> Option<Duration> {
    let due = engine::due_in(spec, status, now);
    let look = spec.interval().mul_f64(jitter.clamp(0.0, 1.0));
    Some(due.map_or(look, |due| due.min(look))).filter(|wait| !wait.is_zero())
}

/// Turns for passes. A registry that does not answer can hold up no more than its own share, and a resource that somebody
/// has just changed never waits behind interval checks.
#[derive(Debug)]
pub(crate) struct Lanes {
    routine: Lane,
    express: Lane,
}

#[derive(Debug)]
struct Lane {
    all: Arc<Semaphore>,
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Whether nobody waits for what is done in it.
    pub(crate) routine: bool,
    _host: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    /// `concurrent` passes at once in each lane, at most a quarter of them (four at least) on one registry.
    pub(crate) fn new(concurrent: usize) -> Self {
        let lane = || {
            let concurrent = concurrent.max(1);
            Lane {
                all: Arc::new(Semaphore::new(concurrent)),
                per_host: (concurrent / 4).max(4).min(concurrent),
                hosts: Mutex::default(),
            }
        };
        Self {
            routine: lane(),
            express: lane(),
        }
    }

    /// A turn for whoever is first in a line, if there is one now.
    pub(crate) fn offer(&self, line: &Line) -> Option<Turn> {
        let (lane, host, routine) = match line {
            Line::Free => {
                return Some(Turn {
                    routine: false,
                    _host: None,
                    _all: None,
                });
            }
            Line::Express(host) => (&self.express, host, false),
            Line::Routine(host) => (&self.routine, host, true),
        };
        let host = lane.host(host).try_acquire_owned().ok()?;
        let all = Arc::clone(&lane.all).try_acquire_owned().ok()?;
        Some(Turn {
            routine,
            _host: Some(host),
            _all: Some(all),
        })
    }

    /// Waits for a turn on `host` among what somebody waits for.
    pub(crate) async fn turn(&self, host: &str) -> Turn {
        let lane = &self.express;
        // The share of the registry first: a pass that waits for its registry must not hold a turn of all.
        let host = lane.host(host).acquire_owned().await.ok();
        let all = Arc::clone(&lane.all).acquire_owned().await.ok();
        Turn {
            routine: false,
            _host: host,
            _all: all,
        }
    }
}

impl Lane {
    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, semaphore| {
            Arc::strong_count(semaphore) > 1 || semaphore.available_permits() < self.per_host
        });
        hosts
            .entry(host.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(self.per_host)))
            .clone()
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
    use serde_json::json;

    #[test]
    fn first_looks_are_spread_over_the_interval_and_what_is_due_before_is_not_missed() {
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
        let look = |status: &ImageAttachmentStatus, jitter| {
            first_look(
                &spec,
                status,
                "2026-11-23T12:00:00Z".parse().unwrap(),
                jitter,
            )
            .map(|wait| wait.as_secs())
        };
        assert_eq!(
            [0.0, 0.25, 1.0].map(|jitter| look(&ImageAttachmentStatus::default(), jitter)),
            [None, Some(900), Some(3600)]
        );
        let settling = moved("2026-11-23T11:55:00Z");
        assert_eq!(
            [0.05, 1.0].map(|jitter| look(&settling, jitter)),
            [Some(180), Some(300)]
        );
        assert_eq!(
            look(&moved("2026-11-23T11:00:00Z"), 1.0),
            None,
            "it has settled while nobody looked"
        );
    }

    fn routine(host: &str) -> Line {
        Line::Routine(host.into())
    }

    #[test]
    fn a_registry_that_hangs_leaves_turns_to_the_others() {
        let lanes = Lanes::new(16);
        let (dead, alive) = (routine("dead.example.com"), routine("alive.example.com"));
        let mut held: Vec<Turn> = std::iter::from_fn(|| lanes.offer(&dead)).collect();
        assert_eq!(held.len(), 4);
        assert!(lanes.offer(&alive).is_some());
        held.pop();
        assert!(lanes.offer(&dead).is_some());
    }

    #[test]
    fn what_somebody_waits_for_does_not_queue_behind_interval_checks_and_what_needs_no_turn_behind_nothing()
     {
        let lanes = Lanes::new(4);
        let held: Vec<Turn> = ["a", "b", "c", "d", "e"]
            .iter()
            .filter_map(|host| lanes.offer(&routine(host)))
            .collect();
        assert_eq!(held.len(), 4);
        let held: Vec<Turn> = ["a", "b", "c", "d", "e"]
            .iter()
            .filter_map(|host| lanes.offer(&Line::Express((*host).into())))
            .collect();
        assert_eq!(held.len(), 4);
        assert!(lanes.offer(&Line::Free).is_some());
    }

    #[tokio::test]
    async fn a_deletion_waits_among_what_somebody_waits_for_and_comes_before_who_asks_later() {
        let lanes = Lanes::new(4);
        let express = Line::Express("a".into());
        let mut held: Vec<Turn> = std::iter::from_fn(|| lanes.offer(&express)).collect();
        let mut deletion = Box::pin(lanes.turn("a"));
        assert!(deletion.as_mut().now_or_never().is_none());
        held.pop();
        assert!(
            lanes.offer(&express).is_none(),
            "the turn is the deletion's"
        );
        assert!(deletion.now_or_never().is_some());
    }
}
