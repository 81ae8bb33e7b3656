//! The role in leader election, with the metric name of client-go.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    name: String,
}

/// A gauge for the Lease of this process. Without leader election there is no series.
#[derive(Debug)]
pub(crate) struct Leader(Family<Labels, Gauge>);

impl Leader {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let leader = Self(Family::default());
        registry.register(
            "leader_election_master_status",
            "Whether this process holds the Lease of this name",
            leader.0.clone(),
        );
        leader
    }

    pub(crate) fn set(&self, lease: &str, is_leader: bool) {
        self.0
            .get_or_create(&Labels {
                name: lease.to_owned(),
            })
            .set(i64::from(is_leader));
    }
}
