//! The verdict on a pod, or on what makes pods: which of its images are out of life, and what the namespace wants done about it.

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
use crate::admission::pods::cluster_index::{Knowledge, Mode};
use crate::admission::pods::lifecycle_report::{Facts, Finding};
use crate::admission::pods::lookup::{Lookup, Unknown};
use crate::admission::pods::patch::patch;
use crate::admission::pods::verdict::{Looked, verdict};
use crate::admission::pods::workload::{Nodes, Workload};
use crate::admission::review::image_name::reference;
use crate::admission::review::pull_secrets::Credentials;
use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::Verdict;
use crate::admission::review::single_flight::From;
use crate::service::Readiness;
use affix_registry::oci::{Digest, Reference};
use affix_registry::{Keychain, Registries};

/// The annotation of mirror pods, which the kubelet has started already.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Most different images of one pod that are looked at.
const MOST_IMAGES: usize = 64;
/// Judges pods.
pub(crate) struct Pods {
    knowledge: Knowledge,
    credentials: Credentials,
    lookup: Lookup,
    options: Lookups,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Pods {
    pub(crate) fn new(
        client: kube::Client,
        registries: Registries,
        options: Lookups,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            knowledge: Knowledge::new(
                client.clone(),
                options.lifecycle_types.clone(),
                options.trusted_namespaces.clone(),
            ),
            credentials: Credentials::new(client),
            lookup: Lookup::new(registries, &options),
            options,
            clock,
            metrics,
        }
    }

    /// Learns from the cluster, for ever.
    pub(crate) async fn learn(&self, readiness: &Readiness) {
        self.knowledge.learn(readiness).await;
    }

    /// The verdict by the namespace's label.
    pub(crate) async fn validate(&self, request: &Request<'_>, deadline: Instant) -> Verdict {
        let (Some((workload, _)), Some(namespace)) = (concerned(request), &request.namespace)
        else {
            return Verdict::default();
        };
        let mode = match timeout_at(deadline, self.knowledge.asked(namespace)).await {
            Ok(Some(asked)) => asked.end_of_life,
            Ok(None) | Err(_) => Some(Mode::Warn),
        };
        let Some(mode) = mode else {
            return Verdict::default();
        };
        let looked = self
            .look(&workload, namespace, request.is_dry(), deadline)
            .await;
        verdict(mode, workload.is_pod, &looked)
    }

    /// The patch that turns tags into digests.
    pub(crate) async fn mutate(&self, request: &Request<'_>, deadline: Instant) -> Verdict {
        let (Some((workload, metadata)), Some(namespace)) =
            (concerned(request), &request.namespace)
        else {
            return Verdict::default();
        };
        if !workload.is_pod || request.operation != Operation::Create {
            return Verdict::default();
        }
        let asked = timeout_at(deadline, self.knowledge.asked(namespace)).await;
        if !matches!(asked, Ok(Some(asked)) if asked.resolve_digests) {
            return Verdict::default();
        }
        let looked = self
            .look(&workload, namespace, request.is_dry(), deadline)
            .await;
        Verdict {
            patch: patch(&workload, &looked, metadata.annotations.as_ref()),
            ..Verdict::default()
        }
    }

    /// Looks up every image of a workload, each once and all at the same time.
    async fn look<'a>(
        &self,
        workload: &'a Workload,
        namespace: &str,
        is_dry: bool,
        deadline: Instant,
    ) -> Vec<Looked<'a>> {
        let now = (self.clock)();
        // A dry run reads no Secret: what anybody may ask, it asks.
        let keychain = match (is_dry, workload.pull_secrets.as_slice()) {
            (true, _) | (_, []) => Ok(Keychain::anonymous()),
            (false, names) => {
                match timeout_at(deadline, self.credentials.read(namespace, names)).await {
                    Ok(read) => read,
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
        let beyond = images.get(MOST_IMAGES).map(|image| Looked {
            image,
            outcome: Err(format!(
                "affix looks at {MOST_IMAGES} images of a pod, and it has {}",
                images.len()
            )
            .into()),
        });
        images.truncate(MOST_IMAGES);
        let (keychain, nodes) = (&keychain, &workload.nodes);
        let looked = join_all(images.into_iter().map(|image| async move {
            let looked = timeout_at(
                deadline,
                self.look_up(image, namespace, keychain, nodes, now),
            )
            .await;
            let outcome = looked.unwrap_or_else(|_| {
                Err(format!("no answer within {:?}", self.options.timeout).into())
            });
            if outcome.is_err() {
                self.metrics.looked_up("unknown");
            }
            Looked { image, outcome }
        }));
        looked.await.into_iter().chain(beyond).collect()
    }

    async fn look_up(
        &self,
        image: &str,
        namespace: &str,
        keychain: &Result<Keychain, Unknown>,
        nodes: &Nodes,
        now: Timestamp,
    ) -> Result<(Digest, Vec<Finding>), Unknown> {
        let reference = reference(image).map_err(|error| Unknown::from(error.to_string()))?;
        let (digest, facts) = self
            .facts(&reference, namespace, keychain, nodes, now)
            .await?;
        let horizon = now.as_duration().saturating_add(
            SignedDuration::try_from(self.options.warn_before).unwrap_or(SignedDuration::MAX),
        );
        Ok((digest, facts.findings(nodes, now.as_duration(), horizon)))
    }

    /// What is known of an image: from the cluster where that settles it, else from its registry.
    async fn facts(
        &self,
        reference: &Reference,
        namespace: &str,
        keychain: &Result<Keychain, Unknown>,
        nodes: &Nodes,
        now: Timestamp,
    ) -> Result<(Digest, Facts), Unknown> {
        let open = || self.lookup.open(reference, keychain.clone()?);
        let (digest, asked) = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => (digest.clone(), None),
            (None, Some(tag)) => {
                let asked = open()?;
                (
                    self.lookup.resolve(&asked, namespace, tag).await?,
                    Some(asked),
                )
            }
            (None, None) => return Err("it names neither a tag nor a digest".into()),
        };
        let said = self.knowledge.of(reference, &digest, namespace);
        if let Some(facts) = said.settles(nodes, now.as_duration()) {
            self.metrics.looked_up("status");
            return Ok((digest, facts));
        }
        let asked = asked.map_or_else(open, Ok)?;
        let (found, from) = self.lookup.marks(&asked, namespace, &digest, now).await?;
        self.metrics.looked_up(if from == From::Memory {
            "cache"
        } else {
            "registry"
        });
        let facts = match &said.trusted {
            Some(trusted) => Facts::clone(&found).merge(trusted),
            None => Facts::clone(&found),
        };
        Ok((digest, facts))
    }
}

/// What a request is about, where it changes what runs.
fn concerned(request: &Request<'_>) -> Option<(Workload, Metadata)> {
    let object = request.object.filter(|_| request.writes())?;
    let metadata = Metadata::of(object).ok()?;
    let mirrors = metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(MIRROR));
    if mirrors || metadata.is_leaving() {
        return None;
    }
    let workload = Workload::read(&request.kind.kind, object)?;
    let before = request
        .old_object
        .and_then(|old| Workload::read(&request.kind.kind, old));
    (!before.is_some_and(|before| before.runs_the_same(&workload)) && !workload.images.is_empty())
        .then_some((workload, metadata))
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
    fn an_update_that_changes_neither_image_nor_nodes_is_no_concern() {
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
            assert_eq!(concerned(&request).is_some(), concerns, "{text}");
        }
    }
}
