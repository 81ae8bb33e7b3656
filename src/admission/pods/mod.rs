//! Reviews of pods and workloads: the end-of-life check of their images, and the replacement of tags by
//! digests.

pub(crate) mod cluster_index;
mod images;
mod lifecycle_report;
mod lookup;
mod namespace;
mod patch;
mod rollout;
mod scale;
pub(crate) mod trust;
mod verdict;
mod workload;

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use tokio::time::timeout_at;

use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, DefaultMode, Lookups};
use crate::admission::pods::cluster_index::{ClusterIndex, EndOfLifeMode};
use crate::admission::pods::images::{Check, UncheckedLog};
use crate::admission::pods::lookup::RegistryLookup;
use crate::admission::pods::patch::{keep_digests, patch};
use crate::admission::pods::rollout::creates_pods;
use crate::admission::pods::trust::LifecycleTrust;
use crate::admission::pods::verdict::{GracePeriod, unresolved_warnings, verdict};
use crate::admission::pods::workload::{ChangedWorkload, Workload};
use crate::admission::review::budget::Budget;
use crate::admission::review::cloud_identity::CloudIdentity;
use crate::admission::review::pull_secrets::PullSecrets;
use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::Verdict;
use crate::service::Readiness;
use affix_registry::Registries;

/// The annotation of mirror pods, which the kubelet has already started.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Reviews pods and workloads.
pub(crate) struct PodReviewer {
    client: kube::Client,
    cluster_index: Arc<ClusterIndex>,
    pull_secrets: PullSecrets,
    identity: Option<CloudIdentity>,
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
        trust: Option<Arc<LifecycleTrust>>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let own_namespace = options
            .own_namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let identity = options.identity.clone();
        Self {
            identity: identity
                .map(|identity| CloudIdentity::new(&client, &own_namespace, identity)),
            own_namespace,
            client: client.clone(),
            cluster_index: Arc::new(ClusterIndex::new(
                client.clone(),
                options.lifecycle_types.clone(),
                options.trusted_namespaces.clone(),
                options.attachment_scopes(),
            )),
            pull_secrets: PullSecrets::new(client),
            unchecked_log: UncheckedLog::default(),
            lookup: RegistryLookup::new(registries, &options, trust),
            options,
            clock,
            metrics,
        }
    }

    /// Returns the index of the cluster.
    pub(crate) fn cluster_index(&self) -> Arc<ClusterIndex> {
        Arc::clone(&self.cluster_index)
    }

    /// Runs the watches forever.
    pub(crate) async fn run_watches(&self, readiness: &Readiness) {
        self.cluster_index.run_watches(readiness).await;
    }

    /// Checks the images by the policy of the namespace.
    pub(crate) async fn validate(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        let changed = match scale::target(request) {
            Some(target) => match self.scaled_workload(target, budget.deadline).await {
                Ok(changed) => changed,
                Err(cause) => return scale::unread(&cause),
            },
            None => changed_workload(request),
        };
        let (Some(changed), Some(namespace)) = (changed, &request.namespace) else {
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
        let rules = (mode, self.options.unchecked, self.grace_period());
        verdict(rules, &changed, &checked)
    }

    fn grace_period(&self) -> GracePeriod {
        let length = SignedDuration::try_from(self.options.enforce_after);
        GracePeriod {
            length: length.unwrap_or(SignedDuration::MAX),
            now: (self.clock)().as_duration(),
        }
    }

    /// Returns the patch that replaces tags by digests.
    pub(crate) async fn mutate(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        let (Some(changed), Some(namespace)) = (changed_workload(request), &request.namespace)
        else {
            return Verdict::default();
        };
        let workload = &changed.workload;
        if !workload.is_pod
            || request
                .sub_resource
                .as_deref()
                .is_some_and(|name| !name.is_empty())
        {
            return Verdict::default();
        }
        let policy = timeout_at(budget.deadline, self.cluster_index.policy(namespace)).await;
        if !matches!(policy, Ok(Some(policy)) if policy.resolve_digests) {
            return Verdict::default();
        }
        if let (Some(old), Some(object)) = (&changed.old, request.old_object) {
            let old_annotations = Metadata::of(object).ok().and_then(|old| old.annotations);
            let annotations = changed.metadata.annotations.as_ref();
            return Verdict {
                patch: keep_digests((old, old_annotations.as_ref()), (workload, annotations)),
                ..Verdict::default()
            };
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

/// Returns the workload of a request that changes images or node constraints, or creates new pods.
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
    let is_unchanged = old
        .as_ref()
        .is_some_and(|old| old.has_same_images_and_nodes(&workload));
    let creates_pods = request
        .old_object
        .is_some_and(|old| !workload.is_pod && creates_pods(old, object));
    // The controller of a controlled workload is no reader of warnings.
    let is_controlled = !workload.is_pod && metadata.is_controlled();
    let is_reviewed = (!is_unchanged || creates_pods) && !is_controlled;
    (is_reviewed && !workload.images.is_empty()).then_some(ChangedWorkload {
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
