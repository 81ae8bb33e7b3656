//! What the webhooks know and ask: one reviewer for all requests.

use std::sync::Arc;

use kube::Client;

use super::image_attachment;
use super::metrics::Metrics;
use super::options::Lookups;
use super::review::{Request, Verdict};
use super::run::Clock;
use crate::registry::Registries;

/// Judges requests.
pub(super) struct Reviewer {
    registries: Registries,
}

impl Reviewer {
    pub(super) fn new(_client: Client, registries: Registries, _lookups: Lookups, _clock: Clock, _metrics: Arc<Metrics>) -> Self {
        Self { registries }
    }

    /// Learns from the cluster, for ever.
    pub(super) async fn learn(&self) {
        std::future::pending::<()>().await;
    }

    /// An ImageAttachment.
    pub(super) async fn image_attachment(&self, request: &Request) -> Verdict {
        match image_attachment::judge(request, &self.registries) {
            Ok(_) => Verdict::default(),
            Err(verdict) => verdict,
        }
    }

    /// A pod, or what makes pods.
    pub(super) async fn pods(&self, _request: &Request) -> Verdict {
        Verdict::default()
    }

    /// A pod whose tags become digests.
    pub(super) async fn mutate_pods(&self, _request: &Request) -> Verdict {
        Verdict::default()
    }
}
