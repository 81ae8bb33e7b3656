//! The reports of running images in the cluster: objects of `openreports.io` or `wgpolicyk8s.io`, and a metric.
//!
//! One replica writes them, the holder of a Lease. It lists the pods once per interval, and looks up an image again after hours. The
//! objects change only with their findings. See `docs/decisions/0130-write-reports-from-the-webhook.md`.

mod answers;
mod publisher;

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use k8s_openapi::jiff::SignedDuration;
use kube::Client;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::answers::AnswerCache;
use self::publisher::Publisher;
use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, Lookups, ReportOptions};
use crate::admission::pods::cluster_index::ClusterIndex;
use crate::admission::pods::trust::LifecycleTrust;
use crate::admission::review::pull_secrets::PullSecrets;
use crate::engine::LifecycleRules;
use crate::inventory::{
    Answer, Answers, Assessment, ImageKey, LookUps, RunningImage, RunningImages, assess, documents,
    read_images, read_platforms, read_signers,
};
use crate::service::{ApiServerError, Election, Leadership, Readiness};
use affix_registry::{Keychain, Registries};

/// The number of images that are looked up at once. Reviews have precedence.
const MAX_CONCURRENT: usize = 4;

/// Writes the reports.
pub(crate) struct Reporter {
    client: Client,
    options: ReportOptions,
    lookups: Lookups,
    look_ups: LookUps,
    trust: Option<Arc<LifecycleTrust>>,
    pull_secrets: PullSecrets,
    own_namespace: String,
    index: Arc<ClusterIndex>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Reporter {
    pub(crate) fn new(
        client: Client,
        (options, lookups): (ReportOptions, Lookups),
        registries: Registries,
        trust: Option<Arc<LifecycleTrust>>,
        index: Arc<ClusterIndex>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let own_namespace = lookups.own_namespace.clone();
        Self {
            own_namespace: own_namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            look_ups: LookUps {
                registries,
                insecure: lookups.insecure_registries.clone(),
            },
            trust,
            pull_secrets: PullSecrets::new(client.clone()),
            client,
            options,
            lookups,
            index,
            clock,
            metrics,
        }
    }

    /// Takes part in the election, and writes the reports while this replica leads. It never completes.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let leadership = Arc::new(Leadership::standby());
        let metrics = Arc::clone(&self.metrics);
        let election = Election::new(
            (self.client.clone(), &self.own_namespace),
            self.options.election.clone(),
            Arc::clone(&leadership),
            // A replica without the Lease serves reviews all the same.
            Arc::new(Readiness::default()),
            move |is_leader| {
                if !is_leader {
                    metrics.clear_images();
                }
            },
        );
        tokio::spawn(async move { election.run(stop).await.release().await });
        while leadership.started().await {
            let Some(epoch) = leadership.epoch() else {
                continue;
            };
            tokio::select! {
                () = leadership.ended(epoch) => {}
                () = self.write_forever() => {}
            }
        }
        pending::<()>().await;
    }

    /// Writes the reports once per interval. Each failure is logged once.
    async fn write_forever(&self) {
        let mut answers = AnswerCache::new(self.options.refresh_interval);
        let mut publisher = Publisher::new(self.client.clone(), self.options.format);
        let mut last_error = String::new();
        loop {
            let error = match self.write(&mut answers, &mut publisher).await {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            if !error.is_empty() && error != last_error {
                tracing::warn!(
                    error,
                    "cannot write the reports of running images, retrying"
                );
            }
            last_error = error;
            sleep(self.options.interval).await;
        }
    }

    async fn write(
        &self,
        answers: &mut AnswerCache,
        publisher: &mut Publisher,
    ) -> Result<(), ApiServerError> {
        let scopes = self.scopes();
        let nodes = read_platforms(&self.client).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the platforms of the nodes are unknown");
            HashMap::new()
        });
        let running = read_images(&self.client, &scopes, &nodes).await?;
        self.look_up(&running, answers).await;
        let known = self.with_resources(&running, answers);
        let scopes = self.lookups.attachment_scopes();
        let signers = read_signers(&self.client, &scopes, &running, &known).await?;
        let now = (self.clock)().as_duration();
        let warn_before = SignedDuration::try_from(self.lookups.warn_before);
        let horizon = now.saturating_add(warn_before.unwrap_or(SignedDuration::MAX));
        let assessment = assess(&running, &known, &signers, now, horizon);
        self.metrics.set_images(&assessment);
        log(&assessment);
        let documents = documents(self.options.format, &assessment.findings);
        publisher.publish(&self.scopes(), documents).await
    }

    /// Returns the namespaces whose pods are listed.
    fn scopes(&self) -> Vec<Option<String>> {
        match self.lookups.watch_namespaces.as_slice() {
            [] => vec![None],
            namespaces => namespaces.iter().cloned().map(Some).collect(),
        }
    }

    /// Looks up the images whose answers are due.
    async fn look_up(&self, running: &RunningImages, answers: &mut AnswerCache) {
        let begun = Instant::now();
        answers.retain(running);
        let due = running
            .iter()
            .filter(|(key, image)| image.reference().is_some() && answers.is_due(key, begun));
        let work: Vec<_> = due
            .map(|(key, image)| self.look_up_one(key, image))
            .collect();
        let mut work = stream::iter(work).buffer_unordered(MAX_CONCURRENT);
        while let Some(found) = work.next().await {
            if let Some((key, answer)) = found {
                answers.insert(key, answer, Instant::now());
            }
        }
    }

    fn rules(&self) -> LifecycleRules {
        LifecycleRules {
            types: self.lookups.lifecycle_types.clone().into(),
            trust: self.trust.as_ref().map(|trust| trust.current()),
        }
    }

    async fn look_up_one(
        &self,
        key: &ImageKey,
        image: &RunningImage,
    ) -> Option<(ImageKey, Answer)> {
        let reference = image.reference()?;
        let keychain = self.keychain(image).await;
        let (rules, now) = (self.rules(), (self.clock)());
        let answer = self.look_ups.ask(&rules, reference, &keychain, now).await;
        Some((key.clone(), answer))
    }

    /// Returns the logins of some of the pods of an image, then those of the webhook.
    async fn keychain(&self, image: &RunningImage) -> Keychain {
        let mut keychains = Vec::new();
        for (namespace, names) in image.logins() {
            keychains.push(self.pull_secrets.read(namespace, names).await.keychain);
        }
        let own = &self.lookups.image_pull_secrets;
        keychains.push(
            self.pull_secrets
                .read(&self.own_namespace, own)
                .await
                .keychain,
        );
        Keychain::merge(keychains)
    }

    /// Returns the answers, together with the marks in the status of ImageAttachments of trusted namespaces. Those are newer than an
    /// answer of hours ago.
    fn with_resources(&self, running: &RunningImages, answers: &AnswerCache) -> Answers {
        let each = running.iter().filter_map(|(key, image)| {
            let reference = image.reference()?;
            let trusted = (key.digest.as_ref())
                .and_then(|digest| self.index.reports(reference, digest, "").trusted)
                .map(|report| match self.trust {
                    Some(_) => report.unsigned(),
                    None => report,
                });
            let answer = match (answers.get(key), trusted) {
                (Some(Ok(found)), Some(trusted)) => Ok(Arc::new((**found).clone().merge(&trusted))),
                (_, Some(trusted)) => Ok(Arc::new(trusted)),
                (Some(answer), None) => answer.clone(),
                (None, None) => return None,
            };
            Some((key.clone(), answer))
        });
        each.collect()
    }
}

/// Logs the totals at debug level: the metric and the objects have them.
fn log(assessment: &Assessment) {
    let summary = &assessment.summary;
    tracing::debug!(
        pods = summary.pods,
        digests = summary.digests,
        out_of_life = summary.out_of_life,
        ending_soon = summary.ending_soon,
        unknown = summary.unknown,
        "reported running images"
    );
}
