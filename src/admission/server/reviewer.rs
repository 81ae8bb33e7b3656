//! The dispatch of reviews to the reviewer of each webhook.

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Resource as _};
use tokio::time::Instant;

use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, Lookups};
use crate::admission::pods::PodReviewer;
use crate::admission::pods::cluster_index::ClusterIndex;
use crate::admission::pods::trust::LifecycleTrust;
use crate::admission::review::budget::Budget;
use crate::admission::review::image_attachment;
use crate::admission::review::image_attachment_set;
use crate::admission::review::pull_secrets::PullSecrets;
use crate::admission::review::request::Request;
use crate::admission::review::response::Verdict;
use crate::admission::review::warnings::{WarningContext, collect_set_warnings, collect_warnings};
use crate::api::ImageAttachmentSet;
use crate::service::Readiness;
use affix_registry::Registries;

/// Reviews requests of all webhooks.
pub(crate) struct Reviewer {
    client: Client,
    registries: Registries,
    pull_secrets: PullSecrets,
    /// Time limit of one review for requests to the API server and to registries.
    timeout: Duration,
    pods: PodReviewer,
}

impl Reviewer {
    pub(crate) fn new(
        client: Client,
        registries: Registries,
        lookups: Lookups,
        trust: Option<Arc<LifecycleTrust>>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (pull_secrets, timeout) = (PullSecrets::new(client.clone()), lookups.timeout);
        Self {
            client: client.clone(),
            registries: registries.clone(),
            pull_secrets,
            timeout,
            pods: PodReviewer::new(client, registries, lookups, trust, clock, metrics),
        }
    }

    /// Returns the index of the cluster.
    pub(crate) fn cluster_index(&self) -> Arc<ClusterIndex> {
        self.pods.cluster_index()
    }

    /// Runs the watches forever.
    pub(crate) async fn run_watches(&self, readiness: &Readiness) {
        self.pods.run_watches(readiness).await;
    }

    /// Returns the time of a review that arrived at `arrived` with this query of its URL.
    pub(crate) fn budget(&self, arrived: Instant, query: Option<&str>) -> Budget {
        Budget::new(arrived, self.timeout, query)
    }

    /// Reviews an ImageAttachment or an ImageAttachmentSet.
    pub(crate) async fn image_attachment(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        let is_set = request.kind.kind == ImageAttachmentSet::kind(&());
        let reviewed = if is_set {
            self.review_set(request, budget).await
        } else {
            self.review_attachment(request, budget).await
        };
        reviewed.map_or_else(
            |verdict| verdict,
            |warnings| Verdict {
                warnings,
                ..Verdict::default()
            },
        )
    }

    /// Returns the warnings on an ImageAttachment. The error is a final verdict.
    async fn review_attachment(
        &self,
        request: &Request<'_>,
        budget: Budget,
    ) -> Result<Vec<String>, Verdict> {
        let judged = image_attachment::judge(request, &self.registries)?;
        let context = warning_context(request, budget);
        let Some(((spec, intent), context)) = judged.zip(context) else {
            return Ok(Vec::new());
        };
        Ok(collect_warnings(
            &self.client,
            &self.pull_secrets,
            &self.registries,
            context,
            (&spec, &intent),
        )
        .await)
    }

    /// Returns the warnings on an ImageAttachmentSet. The error is a final verdict.
    async fn review_set(
        &self,
        request: &Request<'_>,
        budget: Budget,
    ) -> Result<Vec<String>, Verdict> {
        let Some((spec, mut warnings)) = image_attachment_set::judge(request, &self.registries)?
        else {
            return Ok(Vec::new());
        };
        if let Some(context) = warning_context(request, budget) {
            let template = spec.template.spec.shared();
            warnings.extend(collect_set_warnings(&self.client, context, template).await);
        }
        Ok(warnings)
    }

    /// Reviews a pod or a workload.
    pub(crate) async fn pods(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        self.pods.validate(request, budget).await
    }

    /// Reviews the labels of a namespace.
    pub(crate) async fn namespace(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        self.pods.namespace(request, budget).await
    }

    /// Replaces the tags of a pod by digests.
    pub(crate) async fn mutate_pods(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        self.pods.mutate(request, budget).await
    }
}

/// Returns the context of the warnings on a resource of a namespace.
fn warning_context<'a>(request: &'a Request<'_>, budget: Budget) -> Option<WarningContext<'a>> {
    Some(WarningContext {
        namespace: request.namespace.as_deref()?,
        is_dry_run: request.is_dry_run(),
        deadline: budget.deadline,
    })
}
