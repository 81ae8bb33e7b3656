//! Metrics of the webhooks. No label contains the name of an image, and only the metric of the reports has that of a namespace.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::inventory::{Assessment, State};
use crate::service;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reviewed {
    webhook: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Webhook {
    webhook: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Use {
    r#use: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Images {
    namespace: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Configuration {
    configuration: &'static str,
    problem: &'static str,
}

/// The label of the served certificate.
const SERVING: Use = Use { r#use: "webhook" };

/// All metrics of the webhooks.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    reviews: Family<Reviewed, Counter>,
    time: Family<Webhook, Histogram, fn() -> Histogram>,
    rejected: Family<Cause, Counter>,
    lookups: Family<Source, Counter>,
    panics: Counter,
    connections: Gauge<i64, AtomicI64>,
    certificate_end: Family<Use, Gauge<i64, AtomicI64>>,
    certificate_errors: Counter,
    configuration_problems: Family<Configuration, Gauge<i64, AtomicI64>>,
    images: Family<Images, Gauge<i64, AtomicI64>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        service::describe(&mut registry, "webhook");
        let reviews = Family::<Reviewed, Counter>::default();
        registry.register(
            "affix_admission_reviews",
            "Completed reviews by webhook and verdict",
            reviews.clone(),
        );
        let time = Family::<Webhook, Histogram, fn() -> Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.0001, 2.0, 15))
        });
        registry.register_with_unit(
            "affix_admission_review_time",
            "Duration of a review",
            Unit::Seconds,
            time.clone(),
        );
        let rejected = Family::<Cause, Counter>::default();
        registry.register(
            "affix_admission_turned_away",
            "Requests rejected without a review, by cause",
            rejected.clone(),
        );
        let lookups = Family::<Source, Counter>::default();
        registry.register(
            "affix_admission_lookups",
            "Checked images of pods by the source of their marks",
            lookups.clone(),
        );
        let panics = Counter::default();
        registry.register(
            "affix_admission_panics",
            "Reviews that panicked",
            panics.clone(),
        );
        let connections = Gauge::<i64, AtomicI64>::default();
        registry.register(
            "affix_webhook_connections",
            "Open TLS connections",
            connections.clone(),
        );
        let certificate_end = Family::<Use, Gauge<i64, AtomicI64>>::default();
        let help = "End of the validity of the served certificate, in seconds since the epoch";
        registry.register_with_unit(
            "affix_certificate_expiry_timestamp",
            help,
            Unit::Seconds,
            certificate_end.clone(),
        );
        let certificate_errors = Counter::default();
        registry.register(
            "affix_webhook_certificate_errors",
            "Failed attempts to read, create or publish the certificate",
            certificate_errors.clone(),
        );
        let configuration_problems = Family::<Configuration, Gauge<i64, AtomicI64>>::default();
        registry.register(
            "affix_webhook_configuration_problems",
            "1 if a webhook configuration has the problem, so that objects are admitted without a review",
            configuration_problems.clone(),
        );
        let images = Family::<Images, Gauge<i64, AtomicI64>>::default();
        registry.register(
            "affix_end_of_life_images",
            "Running images by namespace and state: out_of_life, ending_soon, unknown, alive. The replica that writes the reports has it",
            images.clone(),
        );
        // Counters start at 0, so that the first increment is visible to `rate()`.
        for source in ["status", "cache", "registry", "exempt", "unknown"] {
            lookups.get_or_create(&Source { source }).inc_by(0);
        }
        for cause in ["size", "slow", "load", "broken", "malformed", "connections"] {
            rejected.get_or_create(&Cause { cause }).inc_by(0);
        }
        Self {
            registry,
            reviews,
            time,
            rejected,
            lookups,
            panics,
            connections,
            certificate_end,
            certificate_errors,
            configuration_problems,
            images,
        }
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    pub(super) fn record_review(
        &self,
        webhook: &'static str,
        verdict: &'static str,
        took: Duration,
    ) {
        self.reviews
            .get_or_create(&Reviewed { webhook, verdict })
            .inc();
        self.time
            .get_or_create(&Webhook { webhook })
            .observe(took.as_secs_f64());
    }

    pub(super) fn rejected(&self, cause: &'static str) {
        self.rejected.get_or_create(&Cause { cause }).inc();
    }

    /// Counts a look-up. `source` is status, cache, registry, exempt or unknown.
    pub(super) fn record_lookup(&self, source: &'static str) {
        self.lookups.get_or_create(&Source { source }).inc();
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    pub(super) fn connected(&self) {
        self.connections.inc();
    }

    pub(super) fn disconnected(&self) {
        self.connections.dec();
    }

    pub(super) fn set_certificate_expiry(&self, second: i64) {
        self.certificate_end.get_or_create(&SERVING).set(second);
    }

    pub(super) fn certificate_failed(&self) {
        self.certificate_errors.inc();
    }

    /// Sets the number of running images of each namespace by state.
    pub(super) fn set_images(&self, assessment: &Assessment) {
        let mut counts: BTreeMap<(&str, State), i64> = BTreeMap::new();
        for finding in &assessment.findings {
            for state in State::ALL {
                let count = counts.entry((&finding.namespace, state)).or_default();
                *count += i64::from(finding.state == state);
            }
        }
        self.images.clear();
        for ((namespace, state), count) in counts {
            let labels = Images {
                namespace: namespace.to_owned(),
                state: state.label(),
            };
            self.images.get_or_create(&labels).set(count);
        }
    }

    /// Removes the number of running images, which another replica reports.
    pub(super) fn clear_images(&self) {
        self.images.clear();
    }

    /// Sets whether a configuration (validating, mutating) has a problem (missing, `no_ca_bundle`,
    /// `not_called`).
    pub(super) fn set_configuration_problem(
        &self,
        configuration: &'static str,
        problem: &'static str,
        is_present: bool,
    ) {
        let labels = Configuration {
            configuration,
            problem,
        };
        self.configuration_problems
            .get_or_create(&labels)
            .set(i64::from(is_present));
    }
}
