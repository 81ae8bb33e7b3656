//! Options of the controller, as its flags set them.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{EngineOptions, TenantRules};
use crate::identity::{Endpoints, Identities};
use crate::service::{Addresses, LeaderElection, TokenRequests};

/// Options of the controller. The names are those of Flux's controllers.
#[derive(Debug, Clone)]
pub struct Options {
    /// The addresses that serve health and metrics.
    pub addresses: Addresses,
    /// A label selector of the resources to watch (sharding).
    pub watch_label_selector: Option<String>,
    /// The namespaces to watch. Empty: all.
    pub watch_namespaces: Vec<String>,
    /// The number of concurrent reconciles.
    pub concurrent: usize,
    /// The most resources of one namespace that are reconciled.
    pub max_resources_per_namespace: usize,
    /// The most bytes of spec and status of the resources of one namespace that are reconciled.
    pub max_resource_bytes_per_namespace: u64,
    /// The first delay after a failure.
    pub min_retry_delay: Duration,
    /// The longest delay after failures.
    pub max_retry_delay: Duration,
    /// The least interval of a resource that needs no retry. It lengthens a shorter `spec.interval`.
    pub min_interval: Duration,
    /// The random deviation of an interval, in percent.
    pub interval_jitter_percentage: u8,
    /// The time between two checks of a resource's attachments in the registry's listings.
    pub verify_interval: Duration,
    /// The longest time, counted from its deletion, for which the finalizer holds a resource with `deletionPolicy: Delete`.
    pub deletion_timeout: Duration,
    /// Leader election. `None`: the process has no other replicas.
    pub leader_election: Option<LeaderElection>,
    /// Requests per second to the API server.
    pub kube_api_qps: f32,
    /// The largest burst of requests to the API server.
    pub kube_api_burst: u32,
    /// Options of the registry client.
    pub registries: affix_registry::Options,
    /// Limits of a pass of the engine.
    pub engine: EngineOptions,
    /// The parts of a resource's access that are refused.
    pub tenants: TenantRules,
    /// Logs in to clouds by tokens of ServiceAccounts, with these token services. `None`: not at all.
    pub workload_identity: Option<Endpoints>,
}

impl Options {
    /// Returns the logins of clouds, if they are enabled.
    pub(crate) fn identities(&self, client: &kube::Client) -> Option<Identities> {
        let endpoints = self.workload_identity.clone()?;
        Some(Identities::new(
            Arc::new(TokenRequests::new(client.clone())),
            endpoints,
        ))
    }
}
