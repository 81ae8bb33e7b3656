//! Whether this process leads, in client-go's words.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lease {
    name: String,
}

/// One gauge for the Lease that this process stands for; none without leader election.
#[derive(Debug)]
pub(crate) struct Leader(Family<Lease, Gauge>);

impl Leader {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let leader = Self(Family::default());
        registry.register(
            "leader_election_master_status",
            "Whether this process has the Lease of this name",
            leader.0.clone(),
        );
        leader
    }

    pub(crate) fn set(&self, lease: &str, leads: bool) {
        self.0
            .get_or_create(&Lease {
                name: lease.to_owned(),
            })
            .set(i64::from(leads));
    }
}
