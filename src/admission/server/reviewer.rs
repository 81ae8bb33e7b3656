//! One reviewer for all requests.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, Lookups};
use crate::admission::pods::Pods;
use crate::admission::review::image_attachment;
use crate::admission::review::pull_secrets::Credentials;
use crate::admission::review::request::Request;
use crate::admission::review::response::Verdict;
use crate::admission::review::warnings::{Asker, advise};
use crate::service::Readiness;
use affix_registry::Registries;

/// Judges requests.
pub(crate) struct Reviewer {
    client: Client,
    registries: Registries,
    credentials: Credentials,
    /// How long a review may wait for others.
    timeout: Duration,
    pods: Pods,
}

impl Reviewer {
    pub(crate) fn new(
        client: Client,
        registries: Registries,
        lookups: Lookups,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (credentials, timeout) = (Credentials::new(client.clone()), lookups.timeout);
        Self {
            client: client.clone(),
            registries: registries.clone(),
            credentials,
            timeout,
            pods: Pods::new(client, registries, lookups, clock, metrics),
        }
    }

    /// Learns from the cluster, for ever.
    pub(crate) async fn learn(&self, readiness: &Readiness) {
        self.pods.learn(readiness).await;
    }

    /// An ImageAttachment. The time that a review may take for others is counted from `began`.
    pub(crate) async fn image_attachment(&self, request: &Request<'_>, began: Instant) -> Verdict {
        let (spec, intent) = match image_attachment::judge(request, &self.registries) {
            Ok(Some(judged)) => judged,
            Ok(None) => return Verdict::default(),
            Err(verdict) => return verdict,
        };
        let Some(namespace) = &request.namespace else {
            return Verdict::default();
        };
        let asker = Asker {
            namespace,
            is_dry: request.is_dry(),
            deadline: began + self.timeout,
        };
        let warnings = advise(
            &self.client,
            &self.credentials,
            &self.registries,
            asker,
            (&spec, &intent),
        )
        .await;
        Verdict {
            warnings,
            ..Verdict::default()
        }
    }

    /// A pod, or what makes pods.
    pub(crate) async fn pods(&self, request: &Request<'_>, began: Instant) -> Verdict {
        self.pods.validate(request, began + self.timeout).await
    }

    /// A pod whose tags become digests.
    pub(crate) async fn mutate_pods(&self, request: &Request<'_>, began: Instant) -> Verdict {
        self.pods.mutate(request, began + self.timeout).await
    }
}
