//! Requests to registries. Hosts are no labels, since tenants choose them.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use affix_registry::{Object, Observer, Try};

use super::registration::{Labels, register};

/// Metrics of requests to registries.
#[derive(Debug)]
pub(crate) struct RegistryRequests {
    total: Family<Labels<2, String>, Counter>,
    time: Family<Labels<1, String>, Histogram>,
    paused: Counter<f64, AtomicU64>,
}

impl RegistryRequests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            total: register(
                registry,
                "affix_registry_requests",
                "Requests to registries by status code; a retry counts as a request",
                Family::default(),
            ),
            time: register(
                registry,
                "affix_registry_request_duration_seconds",
                "Duration of a request to a registry in seconds",
                Family::new_with_constructor(|| {
                    Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
                }),
            ),
            paused: register(
                registry,
                "affix_registry_throttled_seconds",
                "Seconds of the pauses that registries requested with status 429",
                Counter::default(),
            ),
        }
    }
}

impl Observer for RegistryRequests {
    fn tried(&self, one: Try) {
        let operation = format!("{}_{}", one.method.to_ascii_lowercase(), object(one.object));
        let labels = [("operation", operation.clone()), ("code", code(one.status))];
        self.total.get_or_create(&labels).inc();
        let labels = [("operation", operation)];
        let time = self.time.get_or_create(&labels);
        time.observe(one.took.as_secs_f64());
    }

    fn paused(&self, time: Duration) {
        self.paused.inc_by(time.as_secs_f64());
    }
}

const fn object(object: Object) -> &'static str {
    match object {
        Object::Manifest => "manifest",
        Object::Blob => "blob",
        Object::Referrers => "referrers",
        Object::FallbackTag => "fallback_tag",
        Object::SignatureTag => "signature_tag",
        Object::Tags => "tags",
        Object::Token => "token",
        Object::Service => "service",
    }
}

/// Returns the label of a status. Unusual ones share a label per class, since a hostile registry could send all of them.
fn code(status: Option<u16>) -> String {
    const USUAL: &[u16] = &[
        200, 201, 202, 204, 206, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 407, 408,
        409, 411, 412, 413, 415, 416, 422, 429, 500, 501, 502, 503, 504,
    ];
    match status {
        None => "error".to_owned(),
        Some(status) if USUAL.contains(&status) => status.to_string(),
        Some(status) => format!("{}xx", status / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_registry_cannot_increase_the_number_of_series() {
        let codes: HashSet<_> = (100..1000).map(|status| code(Some(status))).collect();
        assert!(codes.len() < 50, "{codes:?}");
        assert_eq!(
            [code(None), code(Some(429)), code(Some(418))],
            ["error", "429", "4xx"]
        );
    }
}
