//! What the operator's flags say.

use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::EngineOptions;
use crate::registry;

/// Options of the operator; the names are those of Flux's controllers.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of `/metrics`; `None`: not served.
    pub metrics_addr: Option<SocketAddr>,
    /// Address of `/healthz` and `/readyz`; `None`: not served.
    pub health_addr: Option<SocketAddr>,
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
    /// Requests per second to the API server.
    pub kube_api_qps: f32,
    /// Requests at once to the API server.
    pub kube_api_burst: u32,
    /// What is allowed with registries.
    pub registries: registry::Options,
    /// Limits of a pass.
    pub engine: EngineOptions,
}
