//! The role in leader election, with the metric name of client-go.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registration::{Labels, register};

/// A gauge for the Lease of this process. Without leader election there is no series.
#[derive(Debug)]
pub(crate) struct Leader(Family<Labels<1, String>, Gauge>);

impl Leader {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self(register(
            registry,
            "leader_election_master_status",
            "Whether this process holds the Lease of this name",
            Family::default(),
        ))
    }

    pub(crate) fn set(&self, lease: &str, is_leader: bool) {
        let labels = [("name", lease.to_owned())];
        self.0.get_or_create(&labels).set(i64::from(is_leader));
    }
}
