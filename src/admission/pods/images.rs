//! The check of the images of a pod or workload: the selection of the images that are looked up, and the
//! logins that are tried for each. See `docs/decisions/0104-try-every-matching-login.md`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};

use crate::admission::options::ImagePattern;
use crate::admission::pods::PodReviewer;
use crate::admission::pods::cluster_index::IndexedReports;
use crate::admission::pods::lifecycle_report::ReportEntry;
use crate::admission::pods::lookup::{ImageSession, LookupFailure, Origin, Requester};
use crate::admission::pods::verdict::CheckedImage;
use crate::admission::pods::workload::ChangedWorkload;
use crate::admission::review::budget::Budget;
use crate::admission::review::pull_secrets::PodLogins;
use crate::admission::review::request::Request;
use crate::admission::review::single_flight::Source;
use crate::admission::review::warning_text::printable;
use crate::engine::LifecycleReport;
use crate::inventory::reference;
use affix_registry::Keychain;
use affix_registry::oci::{Digest, Reference};

/// Maximum number of distinct images of a pod that are looked up. Images with a known result are not
/// counted.
const MAX_LOOKUPS: usize = 64;
/// Maximum number of sessions that a review opens to search the cache.
const MAX_CACHE_SEARCHES: usize = 256;
/// Maximum length of a name that is kept or logged. A direct caller can send longer ones.
const MAX_NAME_CHARS: usize = 256;
/// Minimum time between two log lines on the same cause, and the number of causes that are remembered.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
const MAX_LOGGED: usize = 1024;

/// The check of one request.
pub(crate) struct Check<'a> {
    changed: &'a ChangedWorkload,
    requester: Requester,
    budget: Budget,
}

impl<'a> Check<'a> {
    pub(crate) fn new(
        request: &Request<'_>,
        namespace: &str,
        changed: &'a ChangedWorkload,
        budget: Budget,
    ) -> Self {
        Self {
            changed,
            requester: Requester {
                namespace: printable(namespace, MAX_NAME_CHARS).into(),
                user: printable(request.user(), MAX_NAME_CHARS).into(),
                is_dry_run: request.is_dry_run(),
            },
            budget,
        }
    }
}

impl PodReviewer {
    /// Checks all distinct images of a workload concurrently, except `exempt` ones.
    pub(crate) async fn check_images<'a>(
        &self,
        check: &Check<'a>,
        exempt: &[ImagePattern],
    ) -> Vec<CheckedImage<'a>> {
        let now = (self.clock)();
        let logins = self.logins(check).await;
        let mut checked: Vec<CheckedImage<'a>> = Vec::new();
        let mut unknown: Vec<(&'a str, Reference)> = Vec::new();
        let mut searches = MAX_CACHE_SEARCHES;
        for image in distinct_images(check.changed) {
            let reference = match reference(image) {
                Ok(reference) => reference,
                Err(error) => {
                    let failure = LookupFailure::new(error.to_string(), "fix the name");
                    checked.push(CheckedImage {
                        image,
                        outcome: Err(failure),
                    });
                    continue;
                }
            };
            if exempt.iter().any(|pattern| pattern.matches(&reference)) {
                self.metrics.record_lookup("exempt");
            } else if let Some((digest, report)) =
                self.known(check, &reference, &logins, now, &mut searches)
            {
                let outcome = Ok((digest, self.entries(check, &report, now)));
                checked.push(CheckedImage { image, outcome });
            } else {
                unknown.push((image, reference));
            }
        }
        // New images first: only they can be refused.
        unknown.sort_by_cached_key(|(image, _)| !check.changed.is_new_image(image));
        let beyond = unknown.split_off(unknown.len().min(MAX_LOOKUPS));
        let logins = &logins;
        let looked_up = join_all(unknown.into_iter().map(|(image, reference)| async move {
            let outcome = self.look_up(check, &reference, logins, now).await;
            let outcome = outcome.map(|(digest, report)| {
                let entries = self.entries(check, &report, now);
                (digest, entries)
            });
            CheckedImage { image, outcome }
        }));
        checked.extend(looked_up.await);
        checked.extend(beyond.into_iter().map(|(image, _)| CheckedImage {
            image,
            outcome: Err(LookupFailure::new(
                format!("more than {MAX_LOOKUPS} images"),
                "split the pod",
            )),
        }));
        for CheckedImage { image, outcome } in &checked {
            if let Err(failure) = outcome {
                self.metrics.record_lookup("unknown");
                self.unchecked_log.write(&check.requester, image, failure);
            }
        }
        checked
    }

    /// Reads the pull secrets of the pod and of the webhook.
    async fn logins(&self, check: &Check<'_>) -> PodLogins {
        let names = &check.changed.workload.pull_secrets;
        // A dry run reads no Secret of the namespace, because the request may come from a user without
        // access to Secrets.
        let of_pod = async {
            if check.requester.is_dry_run || names.is_empty() {
                PodLogins::default()
            } else {
                self.pull_secrets
                    .read(&check.requester.namespace, names)
                    .await
            }
        };
        let of_webhook = async {
            let names = &self.options.image_pull_secrets;
            self.pull_secrets.read(&self.own_namespace, names).await
        };
        let in_cloud = async {
            match &self.identity {
                Some(identity) => identity.account().await.map(Some),
                None => Ok(None),
            }
        };
        let all = async { tokio::join!(of_pod, of_webhook, in_cloud) };
        match timeout_at(check.budget.deadline, all).await {
            Ok((of_pod, of_webhook, in_cloud)) => PodLogins {
                keychain: Keychain::merge([of_pod.keychain, of_webhook.keychain]),
                missing: of_pod
                    .missing
                    .or(of_webhook.missing)
                    .or(in_cloud.as_ref().err().cloned()),
                account: in_cloud.unwrap_or_default(),
            },
            Err(_) => PodLogins {
                keychain: Keychain::anonymous(),
                account: None,
                missing: Some("pull secrets not read in time".into()),
            },
        }
    }

    /// Returns the dates that concern the pod.
    fn entries(
        &self,
        check: &Check<'_>,
        report: &LifecycleReport,
        now: Timestamp,
    ) -> Vec<ReportEntry> {
        let warn_before = SignedDuration::try_from(self.options.warn_before);
        let horizon = now
            .as_duration()
            .saturating_add(warn_before.unwrap_or(SignedDuration::MAX));
        report.entries(&check.changed.workload.nodes, now.as_duration(), horizon)
    }

    /// Returns the reports of the cluster on an image.
    fn indexed(&self, reference: &Reference, digest: &Digest, namespace: &str) -> IndexedReports {
        let indexed = self.cluster_index.reports(reference, digest, namespace);
        if self.lookup.requires_signatures() {
            indexed.unsigned()
        } else {
            indexed
        }
    }

    /// Returns the report on an image with a digest if the cluster index or the cache has it.
    fn known(
        &self,
        check: &Check<'_>,
        reference: &Reference,
        logins: &PodLogins,
        now: Timestamp,
        searches: &mut usize,
    ) -> Option<(Digest, LifecycleReport)> {
        let digest = reference.digest.as_ref()?;
        let namespace = &check.requester.namespace;
        let indexed = self.indexed(reference, digest, namespace);
        if let Some(report) = indexed.conclusive(&check.changed.workload.nodes, now.as_duration()) {
            self.metrics.record_lookup("status");
            return Some((digest.clone(), report));
        }
        let logins = self.candidates(reference, logins);
        let found = logins.into_iter().take(*searches).find_map(|login| {
            *searches -= 1;
            let session = self.lookup.open(reference, login).ok()?;
            self.lookup.cached(&session, digest)
        })?;
        self.metrics.record_lookup("cache");
        Some((digest.clone(), merged(&found, indexed.trusted.as_ref())))
    }

    /// Looks up an image with one login after the other, as the kubelet does, and without a login at
    /// last. A refusal leads to the next login.
    async fn look_up(
        &self,
        check: &Check<'_>,
        reference: &Reference,
        logins: &PodLogins,
        now: Timestamp,
    ) -> Result<(Digest, LifecycleReport), LookupFailure> {
        let mut first_refusal = None;
        for login in self.candidates(reference, logins) {
            let found = match self.lookup.open(reference, login) {
                Ok(session) => self.look_up_with(check, reference, &session, now).await,
                Err(failure) => Err(failure),
            };
            match found {
                Err(failure) if failure.is_refusal => {
                    first_refusal.get_or_insert(failure);
                }
                found => return found,
            }
        }
        let refusal =
            first_refusal.unwrap_or_else(|| LookupFailure::new("no login", "report this bug"));
        Err(match &logins.missing {
            Some(missing) => LookupFailure {
                way_out: "check RBAC",
                cause: missing.clone(),
                ..refusal
            },
            None if check.requester.is_dry_run
                && !check.changed.workload.pull_secrets.is_empty() =>
            {
                LookupFailure {
                    way_out: "a dry run reads no Secret",
                    ..refusal
                }
            }
            None => refusal,
        })
    }

    /// Returns the logins to try for an image: those of pull secrets, that of the cloud, anonymous at last.
    fn candidates(&self, reference: &Reference, logins: &PodLogins) -> Vec<Keychain> {
        let keychain = &logins.keychain;
        let mut candidates = keychain.candidates(&reference.host, &reference.repository);
        if let (Some(identity), Some(account)) = (&self.identity, &logins.account) {
            candidates.extend(identity.login(&reference.host, account));
        }
        candidates.push(Keychain::anonymous());
        candidates
    }

    async fn look_up_with(
        &self,
        check: &Check<'_>,
        reference: &Reference,
        session: &ImageSession,
        now: Timestamp,
    ) -> Result<(Digest, LifecycleReport), LookupFailure> {
        let origin = Origin {
            requester: &check.requester,
            budget: check.budget,
            now,
        };
        let digest = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.clone(),
            (None, Some(tag)) => self.lookup.resolve(session, origin, tag).await?,
            (None, None) => return Err(LookupFailure::new("no tag and no digest", "add one")),
        };
        let namespace = &check.requester.namespace;
        let indexed = self.indexed(reference, &digest, namespace);
        if let Some(report) = indexed.conclusive(&check.changed.workload.nodes, now.as_duration()) {
            self.metrics.record_lookup("status");
            return Ok((digest, report));
        }
        let (found, source) = self.lookup.marks(session, origin, &digest).await?;
        self.metrics.record_lookup(if source == Source::Cache {
            "cache"
        } else {
            "registry"
        });
        Ok((digest, merged(&found, indexed.trusted.as_ref())))
    }
}

/// Returns the distinct images in their order in the pod.
fn distinct_images(changed: &ChangedWorkload) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    let images = changed.workload.images.iter();
    images
        .map(|used| used.image.as_str())
        .filter(|image| seen.insert(*image))
        .collect()
}

/// Returns the report of the registry, together with the trusted one of the cluster.
fn merged(found: &LifecycleReport, trusted: Option<&LifecycleReport>) -> LifecycleReport {
    match trusted {
        Some(trusted) => found.clone().merge(trusted),
        None => found.clone(),
    }
}

/// The log of images that were not checked. A cause is logged once in a while for each namespace.
#[derive(Default)]
pub(crate) struct UncheckedLog {
    lines: Mutex<HashMap<(String, String), Instant>>,
}

impl UncheckedLog {
    fn write(&self, requester: &Requester, image: &str, failure: &LookupFailure) {
        let host = image.split_once('/').map_or("", |(host, _)| host);
        let key = (
            requester.namespace.to_string(),
            printable(&format!("{} {host}", failure.cause), MAX_NAME_CHARS),
        );
        {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines
                .get(&key)
                .is_some_and(|at| at.elapsed() < LOG_INTERVAL)
            {
                return;
            }
            if lines.len() >= MAX_LOGGED {
                lines.retain(|_, at| at.elapsed() < LOG_INTERVAL);
            }
            if lines.len() >= MAX_LOGGED {
                return;
            }
            lines.insert(key, Instant::now());
        }
        tracing::warn!(
            namespace = &*requester.namespace,
            image = printable(image, MAX_NAME_CHARS),
            error = &*failure.detail,
            reason = failure.text(),
            "image was not checked"
        );
    }
}
