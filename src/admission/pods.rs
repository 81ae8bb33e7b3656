//! The verdict on a pod, or on what makes pods: which of its images are out of life, and what the namespace wants done about it.

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
use super::review::{Refusal, Request, Verdict};
use super::run::Clock;
use super::workload::{Nodes, Workload};
use crate::oci::{Digest, Reference};
use crate::registry::{Keychain, Registries};

/// The annotation of mirror pods, which the kubelet has started already.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation in which a mutated pod keeps the dates that were found.
const DATES: &str = "affix.dev/end-of-life";
/// Most warnings of one answer.
const MOST_WARNINGS: usize = 16;

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
    pub(super) fn new(client: kube::Client, registries: Registries, options: Lookups, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            knowledge: Knowledge::new(client.clone(), options.lifecycle_types.clone(), options.trusted_namespaces.clone()),
            credentials: Credentials::new(client),
            lookup: Lookup::new(registries, &options),
            options,
            clock,
            metrics,
        }
    }

    /// Learns from the cluster, for ever.
    pub(super) async fn learn(&self) {
        self.knowledge.learn().await;
    }

    /// The verdict by the namespace's label.
    pub(super) async fn validate(&self, request: &Request) -> Verdict {
        let (Some(workload), Some(namespace)) = (self.concerned(request), &request.namespace) else { return Verdict::default() };
        let deadline = Instant::now() + self.options.timeout;
        let mode = match timeout_at(deadline, self.knowledge.asked(namespace)).await {
            Ok(Ok(asked)) => asked.end_of_life,
            Ok(Err(_)) | Err(_) => Some(Mode::Warn),
        };
        let Some(mode) = mode else { return Verdict::default() };
        let looked = self.look(&workload, namespace, request.dry_run, deadline).await;
        verdict(mode, workload.is_pod, &looked)
    }

    /// The patch that turns tags into digests.
    pub(super) async fn mutate(&self, request: &Request) -> Verdict {
        let (Some(workload), Some(namespace)) = (self.concerned(request), &request.namespace) else { return Verdict::default() };
        let deadline = Instant::now() + self.options.timeout;
        let asked = timeout_at(deadline, self.knowledge.asked(namespace)).await;
        if !workload.is_pod || request.operation != Operation::Create || !matches!(asked, Ok(Ok(asked)) if asked.resolve_digests) {
            return Verdict::default();
        }
        let looked = self.look(&workload, namespace, request.dry_run, deadline).await;
        let object = request.object.as_ref();
        let annotations = object.and_then(|object| object.metadata.annotations.as_ref());
        Verdict { patch: patch(&workload, &looked, annotations.is_some()), ..Verdict::default() }
    }

    /// What a request is about, where it changes what runs.
    fn concerned(&self, request: &Request) -> Option<Workload> {
        let object = request.object.as_ref()?;
        let mirrors = object.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR));
        if !matches!(request.operation, Operation::Create | Operation::Update) || mirrors || object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let workload = Workload::read(&request.kind.kind, &object.data)?;
        let before = request.old_object.as_ref().and_then(|old| Workload::read(&request.kind.kind, &old.data));
        (!before.is_some_and(|before| before.runs_the_same(&workload)) && !workload.images.is_empty()).then_some(workload)
    }

    /// Looks up every image of a workload, each once and all at the same time.
    async fn look<'a>(&self, workload: &'a Workload, namespace: &str, dry_run: bool, deadline: Instant) -> Vec<Looked<'a>> {
        let now = (self.clock)();
        // A dry run reads no Secret: what anybody may ask, it asks.
        let keychain = match (dry_run, workload.pull_secrets.as_slice()) {
            (true, _) | (_, []) => Ok(Keychain::anonymous()),
            (false, names) => match timeout_at(deadline, self.credentials.read(namespace, names)).await {
                Ok(read) => read,
                Err(_) => Err("the pull secrets were not read in time".into()),
            },
        };
        let mut images: Vec<&str> = workload.images.iter().map(|used| used.image.as_str()).collect();
        images.sort_unstable();
        images.dedup();
        let (keychain, nodes) = (&keychain, &workload.nodes);
        join_all(images.into_iter().map(|image| async move {
            let looked = timeout_at(deadline, self.look_up(image, namespace, keychain, nodes, now)).await;
            let outcome = looked.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.options.timeout).into()));
            if outcome.is_err() {
                self.metrics.looked_up("unknown");
            }
            Looked { image, outcome }
        }))
        .await
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
        let (digest, facts) = self.facts(&reference, namespace, keychain, nodes, now).await?;
        let horizon = now.as_duration().saturating_add(SignedDuration::try_from(self.options.warn_before).unwrap_or(SignedDuration::MAX));
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
                (self.lookup.resolve(&asked, tag).await?, Some(asked))
            }
            (None, None) => return Err("it names neither a tag nor a digest".into()),
        };
        let said = self.knowledge.of(reference, &digest, namespace);
        if let Some(facts) = said.settles(nodes, now.as_duration()) {
            self.metrics.looked_up("status");
            return Ok((digest, facts));
        }
        let asked = asked.map_or_else(open, Ok)?;
        let (found, from) = self.lookup.marks(&asked, &digest, now).await?;
        self.metrics.looked_up(if from == From::Memory { "cache" } else { "registry" });
        let facts = match &said.trusted {
            Some(trusted) => Facts::clone(&found).merge(trusted),
            None => Facts::clone(&found),
        };
        Ok((digest, facts))
    }
}

/// What follows from what was found.
fn verdict(mode: Mode, is_pod: bool, looked: &[Looked<'_>]) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut digests, mut dates, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut has_ended = false;
    for Looked { image, outcome } in looked {
        match outcome {
            Err(why) => {
                verdict.audit.insert("unchecked", image.chars().take(256).collect());
                if mode != Mode::Audit {
                    verdict.warnings.push(warning("image", image, &format!("was not checked for end of life: {}", brief(why))));
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
        verdict.refusal = Some(Refusal::forbidden(format!("{}: run a newer image", refused.join("; "))));
    }
    let decision = match mode {
        _ if verdict.refusal.is_some() => "refused",
        Mode::Audit if has_ended => "audited",
        _ if !verdict.warnings.is_empty() => "warned",
        _ => "admitted",
    };
    verdict.audit.insert("decision", decision.to_owned());
    if !digests.is_empty() {
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
fn patch(workload: &Workload, looked: &[Looked<'_>], has_annotations: bool) -> Vec<Value> {
    let found = |image: &str| looked.iter().find(|looked| looked.image == image).and_then(|looked| looked.outcome.as_ref().ok());
    let mut patch = Vec::new();
    let mut dates = serde_json::Map::new();
    for used in &workload.images {
        let Some((digest, findings)) = found(&used.image) else { continue };
        if let Some(pinned) = pinned(&used.image, digest) {
            patch.push(json!({"op": "replace", "path": used.pointer, "value": pinned}));
        }
        if let Some(finding) = findings.iter().find(|finding| finding.counts) {
            dates.insert(used.image.clone(), json!(finding.date));
        }
    }
    if !dates.is_empty() {
        if !has_annotations {
            patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        let path = format!("/metadata/annotations/{}", DATES.replace('/', "~1"));
        patch.push(json!({"op": "add", "path": path, "value": Value::Object(dates).to_string()}));
    }
    patch
}
