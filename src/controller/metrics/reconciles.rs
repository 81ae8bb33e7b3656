//! Reconciles, with the metric names of controller-runtime.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::Reason;

/// The label that tells controllers apart.
pub(super) const CONTROLLER: &str = "imageattachment";

/// The result of a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    non_camel_case_types,
    reason = "the name of a variant is the value of the label, as controller-runtime writes it"
)]
pub(crate) enum Outcome {
    /// The resource is ready, or suspended.
    success,
    /// The resource, a registry or the API server caused a failure.
    error,
    /// The resource is not ready yet, without a failure.
    requeue_after,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::success, Self::error, Self::requeue_after];

    /// Returns the result of a reconcile that ended with this status and reason of Ready.
    pub(crate) const fn of(ready: bool, reason: Reason) -> Self {
        match reason {
            _ if ready => Self::success,
            Reason::Suspended => Self::success,
            Reason::Conflict | Reason::RemovalRefused => Self::error,
            _ if reason.is_stalled() || reason.is_retried() => Self::error,
            _ => Self::requeue_after,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    controller: &'static str,
}

const LABELS: Labels = Labels {
    controller: CONTROLLER,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: &'static str,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Metrics of reconciles.
#[derive(Debug)]
pub(crate) struct Reconciles {
    total: Family<ResultLabels, Counter>,
    errors: Family<Labels, Counter>,
    terminal_errors: Family<Labels, Counter>,
    panics: Family<Labels, Counter>,
    time: Family<Labels, Histogram>,
    active: Family<Labels, Gauge>,
    reasons: Family<ReasonLabels, Counter>,
}

/// Counts a reconcile as active until it is dropped.
#[derive(Debug)]
pub(crate) struct Active(Family<Labels, Gauge>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.get_or_create(&LABELS).dec();
    }
}

impl Reconciles {
    pub(super) fn register(registry: &mut Registry, concurrent: usize) -> Self {
        let all = Self {
            total: Family::default(),
            errors: Family::default(),
            terminal_errors: Family::default(),
            panics: Family::default(),
            time: Family::new_with_constructor(|| {
                Histogram::new([
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
                    120.0,
                ])
            }),
            active: Family::default(),
            reasons: Family::default(),
        };
        registry.register(
            "controller_runtime_reconcile",
            "Reconciles by result",
            all.total.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Reconciles that failed",
            all.errors.clone(),
        );
        registry.register(
            "controller_runtime_terminal_reconcile_errors",
            "Reconciles that failed for a reason that needs a change by the user",
            all.terminal_errors.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_panics",
            "Reconciles that panicked",
            all.panics.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Duration of a reconcile in seconds",
            all.time.clone(),
        );
        registry.register(
            "controller_runtime_active_workers",
            "Reconciles in flight",
            all.active.clone(),
        );
        let max_concurrent = Family::<Labels, Gauge>::default();
        registry.register(
            "controller_runtime_max_concurrent_reconciles",
            "Maximum number of concurrent reconciles",
            max_concurrent.clone(),
        );
        max_concurrent
            .get_or_create(&LABELS)
            .set(i64::try_from(concurrent).unwrap_or(i64::MAX));
        registry.register(
            "affix_reconcile_reason",
            "Reconciles by the reason of Ready",
            all.reasons.clone(),
        );
        // A rate shows the first increase of a counter only if the counter exists before.
        for result in Outcome::ALL {
            drop(all.total.get_or_create(&ResultLabels {
                controller: CONTROLLER,
                result,
            }));
        }
        for counter in [&all.errors, &all.terminal_errors, &all.panics] {
            drop(counter.get_or_create(&LABELS));
        }
        drop(all.active.get_or_create(&LABELS));
        all
    }

    /// Counts an active reconcile until the returned guard is dropped.
    pub(crate) fn start(&self) -> Active {
        self.active.get_or_create(&LABELS).inc();
        Active(self.active.clone())
    }

    /// Records the end of a reconcile. `reason`: that of Ready; `None`: the API server did not answer.
    pub(crate) fn finish(&self, result: Outcome, reason: Option<Reason>, elapsed: Duration) {
        self.total
            .get_or_create(&ResultLabels {
                controller: CONTROLLER,
                result,
            })
            .inc();
        self.time
            .get_or_create(&LABELS)
            .observe(elapsed.as_secs_f64());
        if result == Outcome::error {
            self.errors.get_or_create(&LABELS).inc();
        }
        if let Some(reason) = reason {
            self.reasons
                .get_or_create(&ReasonLabels {
                    reason: reason.as_str(),
                })
                .inc();
            if reason.is_stalled() {
                self.terminal_errors.get_or_create(&LABELS).inc();
            }
        }
    }

    pub(crate) fn count_panic(&self) {
        self.panics.get_or_create(&LABELS).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_or_suspended_resource_is_no_error_and_a_failed_one_is() {
        for (ready, reason, outcome) in [
            (true, Reason::Attached, Outcome::success),
            (true, Reason::Watching, Outcome::success),
            (false, Reason::Suspended, Outcome::success),
            (false, Reason::Planned, Outcome::requeue_after),
            (false, Reason::Progressing, Outcome::requeue_after),
            (false, Reason::NotFound, Outcome::error),
            (false, Reason::PartiallyAttached, Outcome::error),
            (false, Reason::KeyInvalid, Outcome::error),
            (false, Reason::Conflict, Outcome::error),
        ] {
            assert_eq!(Outcome::of(ready, reason), outcome, "{reason}");
        }
    }
}
