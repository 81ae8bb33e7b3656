//! The review of a namespace whose labels change: the pods that run there with an image past its end of
//! life, and unknown label values. It only warns
//! (docs/decisions/0106-warn-where-pods-will-be-refused.md).

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;
use kube::api::ListParams;
use kube::core::Request as ApiRequest;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout_at;

use crate::admission::pods::PodReviewer;
use crate::admission::pods::cluster_index::{END_OF_LIFE, EndOfLifeMode, RESOLVE_DIGESTS};
use crate::admission::pods::images::Check;
use crate::admission::pods::scale::is_name;
use crate::admission::pods::workload::{ChangedWorkload, Workload};
use crate::admission::review::budget::Budget;
use crate::admission::review::request::{Metadata, Request};
use crate::admission::review::response::Verdict;
use crate::admission::review::warning_text::{MAX_WARNING_CHARS, truncate};
use crate::service::ApiServerError;

/// Pods per page of the list, and the maximum number of pods, as in Pod Security admission.
const PAGE: u32 = 250;
const MAX_PODS: usize = 3000;
/// Maximum number of different pods whose images are checked.
const MAX_TEMPLATES: usize = 64;
/// Maximum number of warnings about images.
const MAX_WARNINGS: usize = 8;

/// The pods of a namespace, by their images.
#[derive(Default)]
struct RunningPods {
    count: usize,
    /// Different pods, each with the number of pods like it.
    templates: Vec<(ChangedWorkload, usize)>,
    /// Pods that are not in `templates`, because there are too many.
    rest: usize,
}

impl PodReviewer {
    /// Reviews the labels of a namespace.
    pub(crate) async fn namespace(&self, request: &Request<'_>, budget: Budget) -> Verdict {
        let Some(labels) = ChangedLabels::of(request) else {
            return Verdict::default();
        };
        let mut warnings = labels.unknown_values();
        if let (Some(mode), Some(name)) = (labels.changed_mode(), &request.name)
            && mode != EndOfLifeMode::Audit
            && request.old_object.is_some()
            && is_name(name)
        {
            let found = timeout_at(budget.deadline, self.running_pods(name)).await;
            match found.unwrap_or_else(|_| Err("the list was not read in time".to_owned())) {
                Ok(pods) => {
                    warnings.extend(
                        self.pod_warnings(mode, (request, name), &pods, budget)
                            .await,
                    );
                }
                Err(cause) => warnings.push(truncate(
                    &format!("the pods of this namespace were not checked: {cause}"),
                    MAX_WARNING_CHARS,
                )),
            }
        }
        Verdict {
            warnings,
            ..Verdict::default()
        }
    }

    /// Lists the pods of a namespace that have not ended.
    async fn running_pods(&self, namespace: &str) -> Result<RunningPods, String> {
        #[derive(Deserialize)]
        struct List<'a> {
            #[serde(borrow, default)]
            items: Vec<&'a RawValue>,
            #[serde(default)]
            metadata: ListMetadata,
        }
        #[derive(Default, Deserialize)]
        struct ListMetadata {
            #[serde(rename = "continue", default)]
            next: Option<String>,
        }
        let url = Pod::url_path(&(), Some(namespace));
        let mut params = ListParams::default()
            .limit(PAGE)
            .fields("status.phase!=Succeeded,status.phase!=Failed");
        let mut pods = RunningPods::default();
        loop {
            let request = ApiRequest::new(&url)
                .list(&params)
                .map_err(|error| error.to_string())?;
            let text = self.client.request_text(request).await;
            let text = text.map_err(|error| ApiServerError::from(error).to_string())?;
            let list: List<'_> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            for pod in list.items {
                pods.add(pod);
            }
            match list.metadata.next.filter(|next| !next.is_empty()) {
                Some(next) if pods.count < MAX_PODS => params = params.continue_token(&next),
                Some(_) | None => return Ok(pods),
            }
        }
    }

    /// Returns a summary and a warning for each image past its end of life.
    async fn pod_warnings(
        &self,
        mode: EndOfLifeMode,
        (request, namespace): (&Request<'_>, &str),
        pods: &RunningPods,
        budget: Budget,
    ) -> Vec<String> {
        let grace = self.grace_period();
        let checks: Vec<Check<'_>> = pods
            .templates
            .iter()
            .map(|(pod, _)| Check::new(request, namespace, pod, budget))
            .collect();
        let exempt = &self.options.exempt_images;
        let checked = join_all(checks.iter().map(|check| self.check_images(check, exempt))).await;
        let (mut affected, mut unchecked, mut images) = (0, pods.rest, Vec::new());
        for ((_, count), checked) in pods.templates.iter().zip(checked) {
            let mut is_affected = false;
            for checked in &checked {
                let Ok((_, entries)) = &checked.outcome else {
                    continue;
                };
                let ended = entries.iter().filter(|entry| {
                    entry.has_ended
                        && entry.applies
                        && (mode != EndOfLifeMode::Enforce
                            || (entry.is_enforced() && grace.is_over(entry)))
                });
                for entry in ended {
                    is_affected = true;
                    let message = entry.message(checked.image);
                    if !images.contains(&message) {
                        images.push(message);
                    }
                }
            }
            if is_affected {
                affected += count;
            } else if checked.iter().any(|checked| checked.outcome.is_err()) {
                unchecked += count;
            }
        }
        let mut warnings = Vec::new();
        if affected > 0 {
            let consequence = if mode == EndOfLifeMode::Enforce {
                ": new pods like them will be refused here"
            } else {
                ""
            };
            warnings.push(format!(
                "{affected} of {} pods in this namespace run images past their end of life{consequence}",
                pods.count
            ));
            warnings.extend(images.into_iter().take(MAX_WARNINGS));
        }
        if unchecked > 0 {
            warnings.push(format!(
                "{unchecked} of {} pods in this namespace were not checked for end of life",
                pods.count
            ));
        }
        warnings
    }
}

impl RunningPods {
    fn add(&mut self, pod: &RawValue) {
        let is_deleted = Metadata::of(pod).is_ok_and(|metadata| metadata.is_being_deleted());
        let Some(workload) = Workload::read("Pod", pod).filter(|_| !is_deleted) else {
            return;
        };
        self.count += 1;
        let images = |workload: &Workload| -> Vec<String> {
            let images = workload.images.iter();
            images.map(|used| used.image.clone()).collect()
        };
        let same = self.templates.iter().position(|(other, _)| {
            let other = &other.workload;
            images(other) == images(&workload)
                && other.nodes == workload.nodes
                && other.pull_secrets == workload.pull_secrets
        });
        let has_room = self.templates.len() < MAX_TEMPLATES;
        match same.and_then(|at| self.templates.get_mut(at)) {
            Some((_, count)) => *count += 1,
            None if has_room => {
                let pod = ChangedWorkload {
                    workload,
                    old: None,
                    metadata: Metadata::default(),
                };
                self.templates.push((pod, 1));
            }
            None => self.rest += 1,
        }
    }
}

/// The labels of a namespace before and after a request.
struct ChangedLabels {
    old: Metadata,
    new: Metadata,
}

impl ChangedLabels {
    fn of(request: &Request<'_>) -> Option<Self> {
        let new = Metadata::of(request.object.filter(|_| request.writes())?).ok()?;
        let old = request
            .old_object
            .and_then(|old| Metadata::of(old).ok())
            .unwrap_or_default();
        (request.kind.kind == "Namespace" && !new.is_being_deleted()).then_some(Self { old, new })
    }

    /// Returns the new value of a label that changes.
    fn changed(&self, label: &str) -> Option<&str> {
        let value = |metadata: &'_ Metadata| -> Option<String> {
            metadata.labels.as_ref()?.get(label).cloned()
        };
        let new = self.new.labels.as_ref()?.get(label)?;
        (value(&self.old).as_ref() != Some(new)).then_some(new)
    }

    /// Returns the new mode, if it changes.
    fn changed_mode(&self) -> Option<EndOfLifeMode> {
        let value = self.changed(END_OF_LIFE)?;
        Some(EndOfLifeMode::from_label(value).unwrap_or(EndOfLifeMode::Warn))
    }

    /// Returns a warning for each unknown value.
    fn unknown_values(&self) -> Vec<String> {
        let end_of_life = self
            .changed(END_OF_LIFE)
            .filter(|value| EndOfLifeMode::from_label(value).is_none())
            .map(|value| {
                format!("{END_OF_LIFE}: {value:?} is unknown and counts as \"warn\": use warn, audit or enforce")
            });
        let resolve = self
            .changed(RESOLVE_DIGESTS)
            .filter(|value| !["enabled", "disabled"].contains(value))
            .map(|value| {
                format!("{RESOLVE_DIGESTS}: {value:?} is unknown, so tags stay: use enabled")
            });
        end_of_life
            .into_iter()
            .chain(resolve)
            .map(|text| truncate(&text, MAX_WARNING_CHARS))
            .collect()
    }
}
