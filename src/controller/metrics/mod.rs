//! Metrics with the names of controller-runtime and client-go, so that existing dashboards and alerts work. Metrics that only
//! affix has begin with `affix_`. `docs/metrics.md` lists all of them, and a test compares it with the endpoint.
//!
//! No label contains a digest, or the name of a resource, an image or a host of a user, so the number of series is bounded.

mod api_server;
mod attachments;
mod conditions;
mod leader;
mod queue;
mod reconciles;
mod registration;
mod registries;
mod resources;
mod sets;

use std::sync::Arc;

use prometheus_client::registry::Registry;

pub(crate) use api_server::CountRequests;
pub(crate) use attachments::Tally;
pub(crate) use reconciles::Outcome;

use crate::service;

use api_server::ApiServerRequests;
use attachments::Attachments;
use leader::Leader;
use queue::WorkQueueMetrics;
use reconciles::Reconciles;
use registries::RegistryRequests;
use resources::Resources;
use sets::Sets;

/// All metrics of the controller.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) reconciles: Reconciles,
    pub(crate) set_reconciles: Reconciles,
    pub(crate) queue: WorkQueueMetrics,
    pub(crate) attachments: Attachments,
    pub(crate) registries: Arc<RegistryRequests>,
    pub(crate) api_server: Arc<ApiServerRequests>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) sets: Arc<Sets>,
    pub(crate) leader: Leader,
}

impl Metrics {
    /// `concurrent`: the number of concurrent reconciles, which is a metric too.
    pub(crate) fn new(concurrent: usize) -> Self {
        let mut registry = Registry::default();
        service::describe(&mut registry, "controller");
        let reconciles = Reconciles::register(&mut registry, concurrent);
        let queue = WorkQueueMetrics::register(&mut registry);
        let attachments = Attachments::register(&mut registry);
        let registries = Arc::new(RegistryRequests::register(&mut registry));
        let api_server = Arc::new(ApiServerRequests::register(&mut registry));
        let resources = Arc::new(Resources::default());
        registry.register_collector(Box::new(Arc::clone(&resources)));
        let sets = Arc::new(Sets::default());
        registry.register_collector(Box::new(Arc::clone(&sets)));
        let leader = Leader::register(&mut registry);
        Self {
            registry,
            set_reconciles: reconciles.for_controller("imageattachmentset"),
            reconciles,
            queue,
            attachments,
            registries,
            api_server,
            resources,
            sets,
            leader,
        }
    }

    /// Returns the metrics in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
