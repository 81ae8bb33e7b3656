//! One reviewer for all requests.

use std::sync::Arc;

use kube::Client;

use super::image_attachment;
use super::metrics::Metrics;
use super::options::Lookups;
use super::pods::Pods;
use super::review::{Request, Verdict};
use super::run::Clock;
use crate::registry::Registries;

/// Judges requests.
pub(super) struct Reviewer {
    registries: Registries,
    pods: Pods,
}

impl Reviewer {
    pub(super) fn new(client: Client, registries: Registries, lookups: Lookups, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { registries: registries.clone(), pods: Pods::new(client, registries, lookups, clock, metrics) }
    }

    /// Learns from the cluster, for ever.
    pub(super) async fn learn(&self) {
        self.pods.learn().await;
    }

    /// An ImageAttachment.
    pub(super) async fn image_attachment(&self, request: &Request) -> Verdict {
        match image_attachment::judge(request, &self.registries) {
            Ok(_) => Verdict::default(),
            Err(verdict) => verdict,
        }
    }

    /// A pod, or what makes pods.
    pub(super) async fn pods(&self, request: &Request) -> Verdict {
        self.pods.validate(request).await
    }

    /// A pod whose tags become digests.
    pub(super) async fn mutate_pods(&self, request: &Request) -> Verdict {
        self.pods.mutate(request).await
    }
}
