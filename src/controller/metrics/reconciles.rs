//! Reconciliations, as controller-runtime counts them.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::Reason;

use super::CONTROLLER;

/// How a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    non_camel_case_types,
    reason = "the variant's name is the label's value, which controller-runtime writes in lower case"
)]
pub(crate) enum Outcome {
    /// All is as it should be.
    success,
    /// It failed: the resource's doing, a registry's or the API server's.
    error,
    /// There is more to do, or to wait for, and nothing is wrong.
    requeue_after,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::success, Self::error, Self::requeue_after];

    /// The outcome of a visit that left Ready as `ready` for this reason.
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
struct Controller {
    controller: &'static str,
}

const OURS: Controller = Controller {
    controller: CONTROLLER,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    controller: &'static str,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reasoned {
    reason: &'static str,
}

/// Counts of reconciliations.
#[derive(Debug)]
pub(crate) struct Reconciles {
    total: Family<Reconciled, Counter>,
    errors: Family<Controller, Counter>,
    terminal_errors: Family<Controller, Counter>,
    panics: Family<Controller, Counter>,
    time: Family<Controller, Histogram>,
    active: Family<Controller, Gauge>,
    reasons: Family<Reasoned, Counter>,
}

/// A reconciliation under way.
#[derive(Debug)]
pub(crate) struct Active(Family<Controller, Gauge>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.get_or_create(&OURS).dec();
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
            "Reconciliations by result",
            all.total.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_errors",
            "Reconciliations that failed",
            all.errors.clone(),
        );
        registry.register(
            "controller_runtime_terminal_reconcile_errors",
            "Reconciliations that failed for what only the user can mend",
            all.terminal_errors.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_panics",
            "Reconciliations that panicked",
            all.panics.clone(),
        );
        registry.register(
            "controller_runtime_reconcile_time_seconds",
            "Length of a reconciliation in seconds",
            all.time.clone(),
        );
        registry.register(
            "controller_runtime_active_workers",
            "Reconciliations under way",
            all.active.clone(),
        );
        let most = Family::<Controller, Gauge>::default();
        registry.register(
            "controller_runtime_max_concurrent_reconciles",
            "Resources that may be worked on at once",
            most.clone(),
        );
        most.get_or_create(&OURS)
            .set(i64::try_from(concurrent).unwrap_or(i64::MAX));
        registry.register(
            "affix_reconcile_reason",
            "Reconciliations by the reason of Ready",
            all.reasons.clone(),
        );
        // A counter that is there from the start tells its first increase.
        for result in Outcome::ALL {
            drop(all.total.get_or_create(&Reconciled {
                controller: CONTROLLER,
                result,
            }));
        }
        for counter in [&all.errors, &all.terminal_errors, &all.panics] {
            drop(counter.get_or_create(&OURS));
        }
        drop(all.active.get_or_create(&OURS));
        all
    }

    /// Counts a reconciliation as under way until what is returned is dropped, be it finished or not.
    pub(crate) fn started(&self) -> Active {
        self.active.get_or_create(&OURS).inc();
        Active(self.active.clone())
    }

    /// `reason`: what Ready says now; `None` where the API server could not be asked.
    pub(crate) fn finished(&self, result: Outcome, reason: Option<Reason>, took: Duration) {
        self.total
            .get_or_create(&Reconciled {
                controller: CONTROLLER,
                result,
            })
            .inc();
        self.time.get_or_create(&OURS).observe(took.as_secs_f64());
        if result == Outcome::error {
            self.errors.get_or_create(&OURS).inc();
        }
        if let Some(reason) = reason {
            self.reasons
                .get_or_create(&Reasoned {
                    reason: reason.as_str(),
                })
                .inc();
            if reason.is_stalled() {
                self.terminal_errors.get_or_create(&OURS).inc();
            }
        }
    }

    pub(crate) fn panicked(&self) {
        self.panics.get_or_create(&OURS).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_waits_or_is_held_is_no_error_and_one_that_cannot_go_on_is() {
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
