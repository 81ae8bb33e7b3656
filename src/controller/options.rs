//! What the operator's flags say.

use std::time::Duration;

use crate::engine::EngineOptions;
use crate::service::Addresses;

/// Options of the operator; the names are those of Flux's controllers.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where health and metrics are served.
    pub addresses: Addresses,
    /// Only resources with these labels (sharding).
    pub watch_label_selector: Option<String>,
    /// Only these namespaces; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Resources worked on at once.
    pub concurrent: usize,
    /// First delay after a failure.
    pub min_retry_delay: Duration,
    /// Longest delay after failures.
    pub max_retry_delay: Duration,
    /// By how much an interval is shortened or lengthened at random, percent.
    pub interval_jitter_percentage: u8,
    /// How often what is attached is verified in the registry's listings.
    pub verify_interval: Duration,
    /// How long, from its deletion, a resource with `deletionPolicy: Delete` is held for the removal of what it made.
    pub deletion_timeout: Duration,
    /// How replicas agree on the one that works; `None`: there is one only.
    pub leader_election: Option<LeaderElection>,
    /// Requests per second to the API server.
    pub kube_api_qps: f32,
    /// Requests at once to the API server.
    pub kube_api_burst: u32,
    /// What is allowed with registries.
    pub registries: affix_registry::Options,
    /// Limits of a pass.
    pub engine: EngineOptions,
}

/// How replicas agree on the one that works.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    /// Namespace of the Lease; `None`: that of the pod, or of the kubeconfig's context.
    pub namespace: Option<String>,
    /// Name of the Lease. Replicas with the same work have the same name, and no others.
    pub name: String,
    /// For how long nobody else takes the Lease once it was renewed. Whole seconds are written, rounded up.
    pub lease_duration: Duration,
    /// For how long a leader works without a renewal.
    pub renew_deadline: Duration,
    /// Time between two renewals.
    pub retry_period: Duration,
}

impl LeaderElection {
    /// Whether a leader that cannot renew the Lease is sure to have stopped before another takes it.
    ///
    /// # Errors
    /// Says which of the times is to be changed.
    pub fn check(&self) -> Result<(), String> {
        let Self {
            lease_duration,
            renew_deadline,
            retry_period,
            ..
        } = self;
        if retry_period.is_zero() || *renew_deadline < *retry_period * 2 {
            return Err(format!(
                "the renew deadline ({renew_deadline:?}) must be at least twice the retry period ({retry_period:?}), which is above 0"
            ));
        }
        if *lease_duration < *renew_deadline + *retry_period {
            return Err(format!(
                "the lease duration ({lease_duration:?}) must be at least the renew deadline and the retry period together ({:?})",
                *renew_deadline + *retry_period
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_would_let_two_lead_are_refused() {
        let check = |lease, renew, retry| {
            let [lease_duration, renew_deadline, retry_period] =
                [lease, renew, retry].map(Duration::from_secs);
            LeaderElection {
                namespace: None,
                name: "affix".to_owned(),
                lease_duration,
                renew_deadline,
                retry_period,
            }
            .check()
        };
        assert_eq!(check(15, 10, 2), Ok(()));
        assert_eq!(check(12, 10, 2), Ok(()));
        for (lease, renew, retry) in [(11, 10, 2), (10, 10, 2), (15, 3, 2), (15, 10, 0)] {
            assert!(
                check(lease, renew, retry).is_err(),
                "{lease} {renew} {retry}"
            );
        }
    }
}
