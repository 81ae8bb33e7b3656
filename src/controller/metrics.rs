//! Metrics in the words of controller-runtime, so that existing dashboards and alerts read them. No label ever holds the name of
//! an image or a digest.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::Reason;

/// How a reconcile ended, as controller-runtime counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the variant's name is the label's value, which controller-runtime writes in lower case")]
pub(super) enum Outcome {
    success,
    error,
    requeue_after,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    controller: &'static str,
    result: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reasoned {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Elected {
    name: String,
}

const CONTROLLER: &str = "imageattachment";

/// All metrics of the operator.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    total: Family<Reconciled, Counter>,
    time: Histogram,
    active: Family<Controller, Gauge>,
    reasons: Family<Reasoned, Counter>,
    requests: Counter,
    panics: Counter<u64, AtomicU64>,
    leader: Family<Elected, Gauge>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let total = Family::<Reconciled, Counter>::default();
        registry.register("controller_runtime_reconcile", "Reconciliations by result", total.clone());
        let time = Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        registry.register("controller_runtime_reconcile_time_seconds", "Length of a reconciliation in seconds", time.clone());
        let active = Family::<Controller, Gauge>::default();
        registry.register("controller_runtime_active_workers", "Reconciliations under way", active.clone());
        let reasons = Family::<Reasoned, Counter>::default();
        registry.register("affix_reconcile_reason", "Reconciliations by the reason of Ready", reasons.clone());
        let requests = Counter::default();
        registry.register("affix_registry_requests", "Requests to registries", requests.clone());
        let panics = Counter::default();
        registry.register("controller_runtime_reconcile_panics", "Reconciliations that panicked", panics.clone());
        let leader = Family::<Elected, Gauge>::default();
        registry.register("leader_election_master_status", "Whether this process leads under the lease of this name", leader.clone());
        Self { registry, total, time, active, reasons, requests, panics, leader }
    }

    /// The text format of OpenMetrics.
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    pub(super) fn started(&self) {
        self.active.get_or_create(&Controller { controller: CONTROLLER }).inc();
    }

    pub(super) fn finished(&self, result: Outcome, reason: Option<Reason>, requests: u64, took: Duration) {
        self.active.get_or_create(&Controller { controller: CONTROLLER }).dec();
        self.total.get_or_create(&Reconciled { controller: CONTROLLER, result }).inc();
        self.time.observe(took.as_secs_f64());
        self.requests.inc_by(requests);
        if let Some(reason) = reason {
            self.reasons.get_or_create(&Reasoned { reason: reason.as_str() }).inc();
        }
    }

    /// Whether this process has the Lease `name`; in client-go's words.
    pub(super) fn leads(&self, name: &str, yes: bool) {
        self.leader.get_or_create(&Elected { name: name.to_owned() }).set(i64::from(yes));
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }
}
