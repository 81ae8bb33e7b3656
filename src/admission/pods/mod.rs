//! Reviews of pods and workloads: the end-of-life check of their images, and the replacement of tags by
//! digests.

pub(crate) mod cluster_index;
mod lifecycle_report;
mod lookup;
mod mark;
mod patch;
mod verdict;
mod workload;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::admission::Operation;
use tokio::time::{Instant, timeout_at};

use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, Lookups};
use crate::admission::pods::cluster_index::{ClusterIndex, EndOfLifeMode};
use crate::admission::pods::lifecycle_report::{LifecycleReport, ReportEntry};
use crate::admission::pods::lookup::{FailureMessage, RegistryLookup};
use crate::admission::pods::patch::patch;
use crate::admission::pods::verdict::{CheckedImage, unresolved_warnings, verdict};
use crate::admission::pods::workload::{ChangedWorkload, NodeConstraints, Workload};
use crate::admission::review::image_name::reference;
use crate::admission::review::pull_secrets::PullSecrets;
use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::Verdict;
use crate::admission::review::single_flight::Source;
use crate::service::Readiness;
use affix_registry::oci::{Digest, Reference};
use affix_registry::{Keychain, Registries};

/// The annotation of mirror pods, which the kubelet has already started.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Maximum number of distinct images that are checked per pod.
const MAX_IMAGES: usize = 64;
/// Reviews pods and workloads.
pub(crate) struct PodReviewer {
    cluster_index: ClusterIndex,
    pull_secrets: PullSecrets,
    lookup: RegistryLookup,
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
        Self {
            cluster_index: ClusterIndex::new(
                client.clone(),
                options.lifecycle_types.clone(),
                options.trusted_namespaces.clone(),
            ),
            pull_secrets: PullSecrets::new(client),
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
    pub(crate) async fn validate(&self, request: &Request<'_>, deadline: Instant) -> Verdict {
        let (Some(changed), Some(namespace)) = (changed_workload(request), &request.namespace)
        else {
            return Verdict::default();
        };
        let mode = match timeout_at(deadline, self.cluster_index.policy(namespace)).await {
            Ok(Some(policy)) => policy.end_of_life,
            Ok(None) | Err(_) => Some(EndOfLifeMode::Warn),
        };
        let Some(mode) = mode else {
            return Verdict::default();
        };
        let checked = self
            .check_images(&changed.workload, namespace, request.is_dry_run(), deadline)
            .await;
        verdict(mode, &changed, &checked)
    }

    /// Returns the patch that replaces tags by digests.
    pub(crate) async fn mutate(&self, request: &Request<'_>, deadline: Instant) -> Verdict {
        let (Some(changed), Some(namespace)) = (changed_workload(request), &request.namespace)
        else {
            return Verdict::default();
        };
        let workload = &changed.workload;
        if !workload.is_pod || request.operation != Operation::Create {
            return Verdict::default();
        }
        let policy = timeout_at(deadline, self.cluster_index.policy(namespace)).await;
        if !matches!(policy, Ok(Some(policy)) if policy.resolve_digests) {
            return Verdict::default();
        }
        let checked = self
            .check_images(workload, namespace, request.is_dry_run(), deadline)
            .await;
        Verdict {
            patch: patch(workload, &checked, changed.metadata.annotations.as_ref()),
            warnings: unresolved_warnings(&checked),
            ..Verdict::default()
        }
    }

    /// Checks all distinct images of a workload concurrently.
    async fn check_images<'a>(
        &self,
        workload: &'a Workload,
        namespace: &str,
        is_dry_run: bool,
        deadline: Instant,
    ) -> Vec<CheckedImage<'a>> {
        let now = (self.clock)();
        // A dry run reads no Secret, because the request may come from a user without access to
        // Secrets.
        let keychain = match (is_dry_run, workload.pull_secrets.as_slice()) {
            (true, _) | (_, []) => Ok(Keychain::anonymous()),
            (false, names) => {
                match timeout_at(deadline, self.pull_secrets.read(namespace, names)).await {
                    Ok(keychain) => keychain,
                    Err(_) => Err("the pull secrets were not read in time".into()),
                }
            }
        };
        let mut images: Vec<&str> = workload
            .images
            .iter()
            .map(|used| used.image.as_str())
            .collect();
        images.sort_unstable();
        images.dedup();
        let beyond = images.get(MAX_IMAGES).map(|image| CheckedImage {
            image,
            outcome: Err(format!(
                "the pod has {} images and affix checks {MAX_IMAGES}",
                images.len()
            )
            .into()),
        });
        images.truncate(MAX_IMAGES);
        let (keychain, nodes) = (&keychain, &workload.nodes);
        let checked = join_all(images.into_iter().map(|image| async move {
            let checked = timeout_at(
                deadline,
                self.check_image(image, namespace, keychain, nodes, now),
            )
            .await;
            let outcome = checked.unwrap_or_else(|_| {
                Err(format!("no answer within {:?}", self.options.timeout).into())
            });
            if outcome.is_err() {
                self.metrics.record_lookup("unknown");
            }
            CheckedImage { image, outcome }
        }));
        checked.await.into_iter().chain(beyond).collect()
    }

    async fn check_image(
        &self,
        image: &str,
        namespace: &str,
        keychain: &Result<Keychain, FailureMessage>,
        nodes: &NodeConstraints,
        now: Timestamp,
    ) -> Result<(Digest, Vec<ReportEntry>), FailureMessage> {
        let reference =
            reference(image).map_err(|error| FailureMessage::from(error.to_string()))?;
        let (digest, report) = self
            .lifecycle_report(&reference, namespace, keychain, nodes, now)
            .await?;
        let horizon = now.as_duration().saturating_add(
            SignedDuration::try_from(self.options.warn_before).unwrap_or(SignedDuration::MAX),
        );
        Ok((digest, report.entries(nodes, now.as_duration(), horizon)))
    }

    /// Returns the lifecycle report of an image: from the cluster index if that is conclusive,
    /// otherwise from the registry.
    async fn lifecycle_report(
        &self,
        reference: &Reference,
        namespace: &str,
        keychain: &Result<Keychain, FailureMessage>,
        nodes: &NodeConstraints,
        now: Timestamp,
    ) -> Result<(Digest, LifecycleReport), FailureMessage> {
        let open = || self.lookup.open(reference, keychain.clone()?);
        let (digest, session) = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => (digest.clone(), None),
            (None, Some(tag)) => {
                let session = open()?;
                (
                    self.lookup.resolve(&session, namespace, tag).await?,
                    Some(session),
                )
            }
            (None, None) => return Err("no tag and no digest".into()),
        };
        let indexed = self.cluster_index.reports(reference, &digest, namespace);
        if let Some(report) = indexed.conclusive(nodes, now.as_duration()) {
            self.metrics.record_lookup("status");
            return Ok((digest, report));
        }
        let session = session.map_or_else(open, Ok)?;
        let (found, source) = self.lookup.marks(&session, namespace, &digest, now).await?;
        self.metrics.record_lookup(if source == Source::Cache {
            "cache"
        } else {
            "registry"
        });
        let report = match &indexed.trusted {
            Some(trusted) => LifecycleReport::clone(&found).merge(trusted),
            None => LifecycleReport::clone(&found),
        };
        Ok((digest, report))
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
