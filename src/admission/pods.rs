//! The verdict on a pod, or on what makes pods: which of its images are out of life, and what the namespace wants done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::admission::Operation;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::credentials::Credentials;
use super::facts::{Facts, Finding};
use super::flights::From;
use super::image_name::{pinned, reference, warning};
use super::knowledge::{Knowledge, Mode};
use super::lookup::{Lookup, Unknown};
use super::metrics::Metrics;
use super::options::Lookups;
use super::review::{Metadata, Refusal, Request, Verdict};
use super::run::Clock;
use super::workload::{Nodes, Workload};
use crate::service::Readiness;
use affix_registry::oci::{Digest, Reference};
use affix_registry::{Keychain, Registries};

/// The annotation of mirror pods, which the kubelet has started already.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation in which a mutated pod keeps the dates that were found.
const DATES: &str = "affix.dev/end-of-life";
/// Most warnings of one answer, and findings in the audit log.
const MOST_WARNINGS: usize = 16;
/// Most different images of one pod that are looked at.
const MOST_IMAGES: usize = 64;
/// Bytes of all annotations of an object, as the API server has it.
const MOST_ANNOTATIONS: usize = 256 << 10;

/// Judges pods.
pub(super) struct Pods {
    knowledge: Knowledge,
    credentials: Credentials,
    lookup: Lookup,
    options: Lookups,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What was found about one image.
struct Looked<'a> {
    image: &'a str,
    outcome: Result<(Digest, Vec<Finding>), Unknown>,
}

impl Pods {
    pub(super) fn new(
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
    pub(super) async fn learn(&self, readiness: &Readiness) {
        self.knowledge.learn(readiness).await;
    }

    /// The verdict by the namespace's label.
    pub(super) async fn validate(&self, request: &Request<'_>, deadline: Instant) -> Verdict {
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
    pub(super) async fn mutate(&self, request: &Request<'_>, deadline: Instant) -> Verdict {
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

/// What follows from what was found.
fn verdict(mode: Mode, is_pod: bool, looked: &[Looked<'_>]) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut digests, mut dates, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_ended = false;
    for Looked { image, outcome } in looked {
        match outcome {
            Err(why) => {
                verdict
                    .audit
                    .insert("unchecked", image.chars().take(256).collect());
                if mode != Mode::Audit {
                    verdict.warnings.push(warning(
                        "image",
                        image,
                        &format!("was not checked for end of life: {}", brief(why)),
                    ));
                }
            }
            Ok((_, findings)) => {
                for finding in findings {
                    let counts = finding.has_ended && finding.counts;
                    has_ended |= counts;
                    if counts && mode == Mode::Enforce && is_pod {
                        refused.push(finding.message(image));
                    } else if mode != Mode::Audit {
                        verdict.warnings.push(finding.message(image));
                    }
                    digests.push(finding.digest.to_string());
                    dates.push(finding.date.clone());
                }
            }
        }
    }
    if !refused.is_empty() {
        verdict.refusal = Some(Refusal::forbidden(format!(
            "{}: run a newer image",
            refused.join("; ")
        )));
    }
    let decision = match mode {
        _ if verdict.refusal.is_some() => "refused",
        Mode::Audit if has_ended => "audited",
        _ if !verdict.warnings.is_empty() => "warned",
        _ => "admitted",
    };
    verdict.audit.insert("decision", decision.to_owned());
    if !digests.is_empty() {
        digests.truncate(MOST_WARNINGS);
        dates.truncate(MOST_WARNINGS);
        verdict.audit.insert("digest", digests.join(","));
        verdict.audit.insert("date", dates.join(","));
    }
    verdict.warnings.truncate(MOST_WARNINGS);
    verdict
}

/// The beginning of a cause: a warning has no room for more.
fn brief(why: &str) -> String {
    const MOST: usize = 60;
    if why.chars().count() <= MOST {
        return why.to_owned();
    }
    why.chars().take(MOST - 1).chain("…".chars()).collect()
}

/// Each tag with its digest, in the order of the containers, and the dates that were found.
fn patch(
    workload: &Workload,
    looked: &[Looked<'_>],
    annotations: Option<&BTreeMap<String, String>>,
) -> Vec<Value> {
    let found = |image: &str| {
        looked
            .iter()
            .find(|looked| looked.image == image)
            .and_then(|looked| looked.outcome.as_ref().ok())
    };
    let mut patch = Vec::new();
    let mut dates = serde_json::Map::new();
    for used in &workload.images {
        let Some((digest, findings)) = found(&used.image) else {
            continue;
        };
        if let Some(pinned) = pinned(&used.image, digest) {
            patch.push(json!({"op": "replace", "path": used.pointer, "value": pinned}));
        }
        if let Some(finding) = findings.iter().find(|finding| finding.counts) {
            dates.insert(used.image.clone(), json!(finding.date));
        }
    }
    let value = Value::Object(dates).to_string();
    let others = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != DATES);
    let size = others
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>()
        + DATES.len()
        + value.len();
    // Above that the API server refuses the pod, which a note is not worth.
    if value != "{}" && size <= MOST_ANNOTATIONS {
        if annotations.is_none() {
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        let path = format!("/metadata/annotations/{}", DATES.replace('/', "~1"));
        patch.push(json!({"op": "add", "path": path, "value": value}));
    }
    patch
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::super::facts::Facts;
    use super::super::mark::Mark;
    use super::*;
    use serde_json::value::to_raw_value;

    fn digest() -> Digest {
        Digest::sha256(b"index")
    }

    fn workload(spec: Value) -> Workload {
        Workload::read("Pod", &to_raw_value(&json!({"spec": spec})).unwrap()).unwrap()
    }

    /// An image that ended in 2025.
    fn ended<'a>(image: &'a str, workload: &Workload) -> Looked<'a> {
        let mark = Some(Mark {
            date: "2025-03-20".parse().unwrap(),
            created: None,
        });
        let now = "2026-01-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_duration();
        let facts = Facts {
            digest: digest(),
            mark,
            platforms: Vec::new(),
        };
        Looked {
            image,
            outcome: Ok((digest(), facts.findings(&workload.nodes, now, now))),
        }
    }

    /// The patch as the API server applies it.
    fn patched(object: &Value, patch: Vec<Value>) -> Value {
        let mut object = object.clone();
        json_patch(&mut object, patch);
        object
    }

    /// The two operations that are used, on paths that exist (RFC 6902).
    fn json_patch(object: &mut Value, patch: Vec<Value>) {
        for operation in patch {
            let path = operation["path"].as_str().unwrap();
            let (parent, key) = path.rsplit_once('/').unwrap();
            let key = key.replace("~1", "/").replace("~0", "~");
            let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            assert!(
                operation["op"] == "add" || parent.contains_key(&key),
                "nothing to replace: {operation}"
            );
            parent.insert(key, operation["value"].clone());
        }
    }

    #[test]
    fn each_place_of_an_image_is_patched_where_it_stands_and_a_second_time_nothing_is() {
        let spec = json!({
            "containers": [{"name": "a", "image": "app:v1"}, {"name": "b"}, {"name": "c", "image": "unknown:v1"}],
            "initContainers": [{"name": "i", "image": "app:v1"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "app:v1"}}],
        });
        let before = workload(spec.clone());
        let unknown = Looked {
            image: "unknown:v1",
            outcome: Err("no answer".into()),
        };
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let after = patched(
            &pod,
            patch(&before, &[ended("app:v1", &before), unknown], None),
        );
        let pinned = format!("app:v1@{}", digest());
        let expected = json!({
            "containers": [{"name": "a", "image": pinned}, {"name": "b"}, {"name": "c", "image": "unknown:v1"}],
            "initContainers": [{"name": "i", "image": pinned}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": pinned}}],
        });
        assert_eq!(after["spec"], expected);
        assert_eq!(
            after["metadata"]["annotations"][DATES],
            r#"{"app:v1":"2025-03-20"}"#
        );
        let again = workload(after["spec"].clone());
        let images: Vec<_> = patch(&again, &[ended(&pinned, &again)], Some(&BTreeMap::new()))
            .into_iter()
            .map(|op| op["path"].clone())
            .collect();
        assert_eq!(images, ["/metadata/annotations/affix.dev~1end-of-life"]);
    }

    #[test]
    fn a_note_that_would_make_the_pod_invalid_is_not_written() {
        let pod = workload(json!({"containers": [{"image": "app:v1"}]}));
        for (size, notes) in [(1000, 1), (MOST_ANNOTATIONS - 20, 0)] {
            let annotations = BTreeMap::from([("a".to_owned(), "x".repeat(size))]);
            let patch = patch(&pod, &[ended("app:v1", &pod)], Some(&annotations));
            assert_eq!(patch.len(), 1 + notes, "{size}: {}", patch.len());
        }
    }

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
            let request = super::super::review::read(text.as_bytes()).unwrap();
            assert_eq!(concerned(&request).is_some(), concerns, "{text}");
        }
    }
}
