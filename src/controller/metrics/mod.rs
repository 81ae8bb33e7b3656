//! Metrics in the words of controller-runtime and client-go, so that existing dashboards and alerts read them; what only affix has
//! begins with `affix_`. `docs/metrics.md` lists them all, and a test holds it against what is served.
//!
//! No label ever holds the name of a resource, of an image or of a host that a user chose, nor a digest: the number of series does
//! not grow with the work.

mod attachments;
mod cluster;
mod leader;
mod queue;
mod reconciles;
mod registries;
mod resources;

use std::sync::Arc;

use prometheus_client::registry::Registry;

pub(crate) use attachments::Tally;
pub(crate) use cluster::CountRequests;
pub(crate) use reconciles::Outcome;

use crate::service;

use attachments::Attachments;
use cluster::ClusterRequests;
use leader::Leader;
use queue::Queue;
use reconciles::Reconciles;
use registries::RegistryRequests;
use resources::Resources;

/// The label by which controller-runtime tells controllers apart.
const CONTROLLER: &str = "imageattachment";

/// All metrics of the operator.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) reconciles: Reconciles,
    pub(crate) queue: Queue,
    pub(crate) attachments: Attachments,
    pub(crate) registries: Arc<RegistryRequests>,
    pub(crate) cluster: Arc<ClusterRequests>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) leader: Leader,
}

impl Metrics {
    /// `concurrent`: how many resources are worked on at once.
    pub(crate) fn new(concurrent: usize) -> Self {
        let mut registry = Registry::default();
        service::describe(&mut registry, "controller");
        let reconciles = Reconciles::register(&mut registry, concurrent);
        let queue = Queue::register(&mut registry);
        let attachments = Attachments::register(&mut registry);
        let registries = Arc::new(RegistryRequests::register(&mut registry));
        let cluster = Arc::new(ClusterRequests::register(&mut registry));
        let resources = Arc::new(Resources::default());
        registry.register_collector(Box::new(Arc::clone(&resources)));
        let leader = Leader::register(&mut registry);
        Self {
            registry,
            reconciles,
            queue,
            attachments,
            registries,
            cluster,
            resources,
            leader,
        }
    }

    /// The text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
