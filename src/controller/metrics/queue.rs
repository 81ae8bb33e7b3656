//! The work queue, with the metric names of client-go.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::registration::{CONTROLLER, Labels, register};

const LABELS: Labels<2> = [("name", CONTROLLER), ("controller", CONTROLLER)];

/// Metrics of the work queue.
#[derive(Debug)]
pub(crate) struct WorkQueueMetrics {
    depth: Family<Labels<2>, Gauge>,
    adds: Family<Labels<2>, Counter>,
    retries: Family<Labels<2>, Counter>,
    time: Family<Labels<2>, Histogram>,
}

impl WorkQueueMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let queue = Self {
            depth: register(
                registry,
                "workqueue_depth",
                "Resources in the work queue",
                Family::default(),
            ),
            adds: register(
                registry,
                "workqueue_adds",
                "Resources added to the work queue",
                Family::default(),
            ),
            retries: register(
                registry,
                "workqueue_retries",
                "Reconciles requeued after a failure",
                Family::default(),
            ),
            time: register(
                registry,
                "workqueue_queue_duration_seconds",
                "Time of resources in the work queue, in seconds",
                Family::new_with_constructor(|| {
                    Histogram::new([
                        0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1000.0,
                    ])
                }),
            ),
        };
        drop(queue.depth.get_or_create(&LABELS));
        drop(queue.adds.get_or_create(&LABELS));
        drop(queue.retries.get_or_create(&LABELS));
        queue
    }

    pub(crate) fn count_add(&self) {
        self.adds.get_or_create(&LABELS).inc();
    }

    pub(crate) fn set_depth(&self, depth: usize) {
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.depth.get_or_create(&LABELS).set(depth);
    }

    pub(crate) fn observe_wait(&self, wait: Duration) {
        let time = self.time.get_or_create(&LABELS);
        time.observe(wait.as_secs_f64());
    }

    pub(crate) fn count_retry(&self) {
        self.retries.get_or_create(&LABELS).inc();
    }
}
