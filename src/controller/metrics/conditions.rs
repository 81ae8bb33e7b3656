//! The conditions of the resources of one kind, counted by namespace.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::{ConditionType, Reason};
use crate::controller::watch::summary::ConditionSummary;

/// The number of resources by condition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ConditionCounts {
    /// By namespace, type, status and reason.
    conditions: BTreeMap<(String, &'static str, &'static str, &'static str), u64>,
    /// Suspended resources by namespace.
    suspended: BTreeMap<String, u64>,
}

impl ConditionCounts {
    /// Counts a resource.
    pub(super) fn add(
        &mut self,
        namespace: &str,
        is_suspended: bool,
        has_ready: bool,
        conditions: impl Iterator<Item = ConditionSummary>,
    ) {
        if is_suspended {
            *self.suspended.entry(namespace.to_owned()).or_default() += 1;
        }
        let first = (ConditionType::Ready, None, Reason::Progressing);
        let first = (!has_ready).then_some(first);
        for (kind, status, reason) in first.into_iter().chain(conditions) {
            let status = status.map_or("Unknown", |status| if status { "True" } else { "False" });
            // The conditions of a suspended resource are those of its last pass, and an alert on them would be in vain.
            let reason = if is_suspended {
                Reason::Suspended
            } else {
                reason
            };
            let key = (namespace.to_owned(), kind.as_str(), status, reason.as_str());
            *self.conditions.entry(key).or_default() += 1;
        }
    }

    /// Writes both metrics, each with its name and description.
    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        [conditions, suspended]: [(&str, &str); 2],
    ) -> fmt::Result {
        let (name, help) = conditions;
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ((namespace, kind, status, reason), count) in &self.conditions {
            let labels = [
                ("namespace", namespace.as_str()),
                ("type", kind),
                ("status", status),
                ("reason", reason),
            ];
            gauge(&mut metric, &labels, *count)?;
        }
        let (name, help) = suspended;
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (namespace, count) in &self.suspended {
            gauge(&mut metric, &[("namespace", namespace)], *count)?;
        }
        Ok(())
    }
}

/// Writes one value of a metric.
pub(super) fn gauge(
    encoder: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    value: u64,
) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(encoder.encode_family(&labels)?)
}
