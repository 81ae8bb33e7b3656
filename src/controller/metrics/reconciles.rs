//! Reconciles, with the metric names of controller-runtime.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::Reason;

use super::registration::{CONTROLLER, CONTROLLER_LABELS, Labels, register};

/// The result of a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The resource is ready, or suspended.
    Success,
    /// The resource, a registry or the API server caused a failure.
    Error,
    /// The resource is not ready yet, without a failure.
    RequeueAfter,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Success, Self::Error, Self::RequeueAfter];

    /// Returns the result of a reconcile that ended with this status and reason of Ready.
    pub(crate) const fn of(ready: bool, reason: Reason) -> Self {
        match reason {
            _ if ready => Self::Success,
            Reason::Suspended => Self::Success,
            Reason::Conflict | Reason::RemovalRefused => Self::Error,
            _ if reason.is_stalled() || reason.is_retried() => Self::Error,
            _ => Self::RequeueAfter,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::RequeueAfter => "requeue_after",
        }
    }
}

/// Metrics of the reconciles of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Reconciles {
    /// The value of the label `controller`.
    controller: &'static str,
    total: Family<Labels<2>, Counter>,
    errors: Family<Labels<1>, Counter>,
    terminal_errors: Family<Labels<1>, Counter>,
    panics: Family<Labels<1>, Counter>,
    time: Family<Labels<1>, Histogram>,
    active: Family<Labels<1>, Gauge>,
    reasons: Family<Labels<1>, Counter>,
}

/// Counts a reconcile as active until it is dropped.
#[derive(Debug)]
pub(crate) struct Active(Family<Labels<1>, Gauge>, Labels<1>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.get_or_create(&self.1).dec();
    }
}

impl Reconciles {
    pub(super) fn register(registry: &mut Registry, max_concurrent: usize) -> Self {
        let max_concurrent_gauge = register(
            registry,
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciles",
            Family::<Labels<1>, Gauge>::default(),
        );
        max_concurrent_gauge
            .get_or_create(&CONTROLLER_LABELS)
            .set(i64::try_from(max_concurrent).unwrap_or(i64::MAX));
        let mut counter = |name, help| register(registry, name, help, Family::default());
        let errors = counter(
            "controller_runtime_reconcile_errors",
            "Reconciles that failed",
        );
        let terminal_errors = counter(
            "controller_runtime_terminal_reconcile_errors",
            "Reconciles that failed for a reason that needs a change by the user",
        );
        let panics = counter(
            "controller_runtime_reconcile_panics",
            "Reconciles that panicked",
        );
        let reasons = counter(
            "affix_reconcile_reason",
            "Reconciles by the reason of Ready",
        );
        let all = Self {
            controller: CONTROLLER,
            total: register(
                registry,
                "controller_runtime_reconcile",
                "Reconciles by result",
                Family::default(),
            ),
            errors,
            terminal_errors,
            panics,
            time: register(
                registry,
                "controller_runtime_reconcile_time_seconds",
                "Duration of a reconcile in seconds",
                Family::new_with_constructor(|| {
                    Histogram::new([
                        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
                        120.0,
                    ])
                }),
            ),
            active: register(
                registry,
                "controller_runtime_active_workers",
                "Reconciles in flight",
                Family::default(),
            ),
            reasons,
        };
        all.create();
        all
    }

    /// Returns the same metrics for another kind. They share the value of `affix_reconcile_reason_total`.
    pub(super) fn for_controller(&self, controller: &'static str) -> Self {
        let other = Self {
            controller,
            ..self.clone()
        };
        other.create();
        other
    }

    /// Creates the counters. A rate shows the first increase of a counter only if the counter exists before.
    fn create(&self) {
        for result in Outcome::ALL {
            drop(self.total.get_or_create(&self.result_labels(result)));
        }
        for counter in [&self.errors, &self.terminal_errors, &self.panics] {
            drop(counter.get_or_create(&self.labels()));
        }
        drop(self.active.get_or_create(&self.labels()));
    }

    const fn labels(&self) -> Labels<1> {
        [("controller", self.controller)]
    }

    const fn result_labels(&self, result: Outcome) -> Labels<2> {
        [("controller", self.controller), ("result", result.as_str())]
    }

    /// Counts an active reconcile until the returned guard is dropped.
    pub(crate) fn start(&self) -> Active {
        self.active.get_or_create(&self.labels()).inc();
        Active(self.active.clone(), self.labels())
    }

    /// Records the end of a reconcile. `reason`: that of Ready; `None`: the API server did not answer.
    pub(crate) fn finish(&self, result: Outcome, reason: Option<Reason>, elapsed: Duration) {
        self.total.get_or_create(&self.result_labels(result)).inc();
        let time = self.time.get_or_create(&self.labels());
        time.observe(elapsed.as_secs_f64());
        if result == Outcome::Error {
            self.errors.get_or_create(&self.labels()).inc();
        }
        if let Some(reason) = reason {
            let labels = [("reason", reason.as_str())];
            self.reasons.get_or_create(&labels).inc();
            if reason.is_stalled() {
                self.terminal_errors.get_or_create(&self.labels()).inc();
            }
        }
    }

    pub(crate) fn count_panic(&self) {
        self.panics.get_or_create(&self.labels()).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_or_suspended_resource_is_no_error_and_a_failed_one_is() {
        for (ready, reason, outcome) in [
            (true, Reason::Attached, Outcome::Success),
            (true, Reason::Watching, Outcome::Success),
            (false, Reason::Suspended, Outcome::Success),
            (false, Reason::Planned, Outcome::RequeueAfter),
            (false, Reason::Progressing, Outcome::RequeueAfter),
            (false, Reason::NotFound, Outcome::Error),
            (false, Reason::PartiallyAttached, Outcome::Error),
            (false, Reason::KeyInvalid, Outcome::Error),
            (false, Reason::Conflict, Outcome::Error),
        ] {
            assert_eq!(Outcome::of(ready, reason), outcome, "{reason}");
        }
    }
}
