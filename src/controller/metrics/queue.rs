//! The queue: resources whose time has come and that wait for a turn (see [`crate::controller::workqueue::queue`]), in client-go's words.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::CONTROLLER;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: &'static str,
    controller: &'static str,
}

const OURS: Named = Named {
    name: CONTROLLER,
    controller: CONTROLLER,
};

/// Counts of the queue.
#[derive(Debug)]
pub(crate) struct Queue {
    depth: Family<Named, Gauge>,
    adds: Family<Named, Counter>,
    retries: Family<Named, Counter>,
    time: Family<Named, Histogram>,
}

impl Queue {
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
            "Resources that wait for a turn",
            queue.depth.clone(),
        );
        registry.register(
            "workqueue_adds",
            "Resources whose time to be looked at has come",
            queue.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Visits that were put off after a failure",
            queue.retries.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long resources waited for a turn, in seconds",
            queue.time.clone(),
        );
        drop(queue.depth.get_or_create(&OURS));
        drop(queue.adds.get_or_create(&OURS));
        drop(queue.retries.get_or_create(&OURS));
        queue
    }

    pub(crate) fn added(&self) {
        self.adds.get_or_create(&OURS).inc();
    }

    pub(crate) fn set_depth(&self, waiting: usize) {
        self.depth
            .get_or_create(&OURS)
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A visit began after so long a wait.
    pub(crate) fn began(&self, waited: Duration) {
        self.time.get_or_create(&OURS).observe(waited.as_secs_f64());
    }

    pub(crate) fn put_off(&self) {
        self.retries.get_or_create(&OURS).inc();
    }
}
