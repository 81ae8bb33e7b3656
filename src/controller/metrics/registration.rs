//! Registration of metrics, and the label sets that they share.

use prometheus_client::registry::{Metric, Registry};

/// A set of labels with fixed names.
pub(super) type Labels<const N: usize, V = &'static str> = [(&'static str, V); N];

/// The value of the label `controller`, which tells controllers apart.
pub(super) const CONTROLLER: &str = "imageattachment";
/// The label set of controller-runtime's metrics.
pub(super) const CONTROLLER_LABELS: Labels<1> = [("controller", CONTROLLER)];

/// Registers a metric and returns it.
pub(super) fn register<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}
