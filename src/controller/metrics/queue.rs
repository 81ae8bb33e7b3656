//! The work queue, with the metric names of client-go.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::reconciles::CONTROLLER;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    name: &'static str,
    controller: &'static str,
}

const LABELS: Labels = Labels {
    name: CONTROLLER,
    controller: CONTROLLER,
};

/// Metrics of the work queue.
#[derive(Debug)]
pub(crate) struct WorkQueueMetrics {
    depth: Family<Labels, Gauge>,
    adds: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    time: Family<Labels, Histogram>,
}

impl WorkQueueMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let queue = Self {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            time: Family::new_with_constructor(|| {
                Histogram::new([
                    0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1000.0,
                ])
            }),
        };
        registry.register(
            "workqueue_depth",
            "Resources in the work queue",
            queue.depth.clone(),
        );
        registry.register(
            "workqueue_adds",
            "Resources added to the work queue",
            queue.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Reconciles requeued after a failure",
            queue.retries.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "Time of resources in the work queue, in seconds",
            queue.time.clone(),
        );
        drop(queue.depth.get_or_create(&LABELS));
        drop(queue.adds.get_or_create(&LABELS));
        drop(queue.retries.get_or_create(&LABELS));
        queue
    }

    pub(crate) fn count_add(&self) {
        self.adds.get_or_create(&LABELS).inc();
    }

    pub(crate) fn set_depth(&self, depth: usize) {
        self.depth
            .get_or_create(&LABELS)
            .set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    pub(crate) fn observe_wait(&self, wait: Duration) {
        self.time.get_or_create(&LABELS).observe(wait.as_secs_f64());
    }

    pub(crate) fn count_retry(&self) {
        self.retries.get_or_create(&LABELS).inc();
    }
}
