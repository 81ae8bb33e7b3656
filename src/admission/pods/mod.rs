//! Reviews of pods and workloads: the end-of-life check of their images, and the replacement of tags by
//! digests.

pub(crate) mod cluster_index;
mod images;
mod lifecycle_report;
mod lookup;
mod mark;
mod patch;
mod verdict;
mod workload;

use std::sync::Arc;

use kube::core::admission::Operation;
use tokio::time::timeout_at;

use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, DefaultMode, Lookups};
use crate::admission::pods::cluster_index::{ClusterIndex, EndOfLifeMode};
use crate::admission::pods::images::{Check, UncheckedLog};
use crate::admission::pods::lookup::RegistryLookup;
use crate::admission::pods::patch::patch;
use crate::admission::pods::verdict::{unresolved_warnings, verdict};
use crate::admission::pods::workload::{ChangedWorkload, Workload};
use crate::admission::review::budget::Budget;
use crate::admission::review::pull_secrets::PullSecrets;
use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::Verdict;
use crate::service::Readiness;
use affix_registry::Registries;

/// The annotation of mirror pods, which the kubelet has already started.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Reviews pods and workloads.
pub(crate) struct PodReviewer {
    cluster_index: ClusterIndex,
    pull_secrets: PullSecrets,
    lookup: RegistryLookup,
    own_namespace: String,
    unchecked_log: UncheckedLog,
    options: Lookups,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl PodReviewer {
    pub(crate) fn new(
        client: kube::Client,
        registries: Registries,
        options: Lookups,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let own_namespace = options
            .own_namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned());
        Self {
            own_namespace,
            cluster_index: ClusterIndex::new(
                client.clone(),
                options.lifecycle_types.clone(),
                options.trusted_namespaces.clone(),
            ),
            pull_secrets: PullSecrets::new(client),
            unchecked_log: UncheckedLog::default(),
            lookup: RegistryLookup::new(registries, &options),
            options,
            clock,
            metrics,
        }
    }

    /// Runs the watches forever.
    pub(crate) async fn run_watches(&self, readiness: &Readiness) {
        self.cluster_index.run_watches(readiness).await;
    }

    /// Checks the images by the policy of the namespace.
    pub(crate) async fn validate(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        let (Some(changed), Some(namespace)) = (changed_workload(request), &request.namespace)
        else {
            return Verdict::default();
        };
        let policy = timeout_at(budget.deadline, self.cluster_index.policy(namespace)).await;
        let default_mode = match self.options.default_mode {
            DefaultMode::Off => None,
            DefaultMode::Warn => Some(EndOfLifeMode::Warn),
            DefaultMode::Enforce => Some(EndOfLifeMode::Enforce),
        };
        let mode = match policy {
            Ok(Some(policy)) => policy.end_of_life.or(default_mode),
            // The labels are unknown.
            Ok(None) | Err(_) => default_mode.or(Some(EndOfLifeMode::Warn)),
        };
        let Some(mode) = mode else {
            return Verdict::default();
        };
        let check = Check::new(request, namespace, &changed, budget);
        let checked = self.check_images(&check, &self.options.exempt_images).await;
        verdict(mode, self.options.unchecked, &changed, &checked)
    }

    /// Returns the patch that replaces tags by digests.
    pub(crate) async fn mutate(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        let (Some(changed), Some(namespace)) = (changed_workload(request), &request.namespace)
        else {
            return Verdict::default();
        };
        let workload = &changed.workload;
        if !workload.is_pod || request.operation != Operation::Create {
            return Verdict::default();
        }
        let policy = timeout_at(budget.deadline, self.cluster_index.policy(namespace)).await;
        if !matches!(policy, Ok(Some(policy)) if policy.resolve_digests) {
            return Verdict::default();
        }
        let check = Check::new(request, namespace, &changed, budget);
        let checked = self.check_images(&check, &[]).await;
        Verdict {
            patch: patch(workload, &checked, changed.metadata.annotations.as_ref()),
            warnings: unresolved_warnings(&checked),
            ..Verdict::default()
        }
    }
}

/// Returns the workload of a request that changes images or node constraints.
fn changed_workload(request: &Request<'_>) -> Option<ChangedWorkload> {
    let object = request.object.filter(|_| request.writes())?;
    let metadata = Metadata::of(object).ok()?;
    let is_mirror_pod = metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(MIRROR));
    if is_mirror_pod || metadata.is_being_deleted() {
        return None;
    }
    let workload = Workload::read(&request.kind.kind, object)?;
    let old = request
        .old_object
        .and_then(|old| Workload::read(&request.kind.kind, old));
    (!old
        .as_ref()
        .is_some_and(|old| old.has_same_images_and_nodes(&workload))
        && !workload.images.is_empty())
    .then_some(ChangedWorkload {
        workload,
        old,
        metadata,
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_update_without_changed_images_or_nodes_is_not_reviewed() {
        let review = |kind: &str, before: Value, after: Value| {
            json!({"request": {"uid": "u", "kind": {"kind": kind}, "operation": "UPDATE", "oldObject": before, "object": after}})
                .to_string()
        };
        let pod = |labels: Value, image: &str| json!({"metadata": {"labels": labels}, "spec": {"containers": [{"image": image}]}});
        for (text, concerns) in [
            (
                review("Pod", pod(json!({}), "a:1"), pod(json!({"a": "b"}), "a:1")),
                false,
            ),
            (
                review("Pod", pod(json!({}), "a:1"), pod(json!({}), "a:2")),
                true,
            ),
            (review("Pod", Value::Null, pod(json!({}), "a:1")), true),
            (review("ConfigMap", Value::Null, json!({})), false),
            (
                review(
                    "Pod",
                    Value::Null,
                    json!({"metadata": {"annotations": {MIRROR: "x"}}, "spec": {"containers": [{"image": "a"}]}}),
                ),
                false,
            ),
            (
                review(
                    "Pod",
                    Value::Null,
                    json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"containers": [{"image": "a"}]}}),
                ),
                false,
            ),
        ] {
            let request = crate::admission::review::request::parse(text.as_bytes()).unwrap();
            assert_eq!(changed_workload(&request).is_some(), concerns, "{text}");
        }
    }
}
