//! The monitor of the webhook configurations. A configuration that is missing, has no `caBundle`, or
//! that no call of the API server follows, admits every object in silence. The monitor reports it in the
//! log, on `/readyz` and as a metric. Readiness does not depend on it: the API server calls ready
//! replicas only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{Selector, SelectorExt as _};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::admission::configurations::ca_bundle::with_timeout;
use crate::admission::configurations::self_check::{CHECKED_WEBHOOK, SelfCheck, self_check};
use crate::admission::configurations::{ConfiguredWebhook, WebhookConfiguration};
use crate::admission::metrics::Metrics;
use crate::admission::options::Configurations;
use crate::service::Readiness;

/// Interval between two reads of the configurations.
const INTERVAL: Duration = Duration::from_secs(5);
/// Interval between two self-checks after one that passed.
const SELF_CHECK_INTERVAL: Duration = Duration::from_mins(5);
/// The match conditions of affix, which admit the self-check. Others may exclude it.
const KNOWN_CONDITIONS: [&str; 2] = ["not-being-deleted", "spec-changed"];

/// A reason why the API server admits objects without a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Problem {
    Missing,
    NoCaBundle,
    NotCalled,
}

impl Problem {
    pub(crate) const ALL: [Self; 3] = [Self::Missing, Self::NoCaBundle, Self::NotCalled];

    /// Returns the name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NoCaBundle => "no_ca_bundle",
            Self::NotCalled => "not_called",
        }
    }
}

/// The problems of one check, with a text for users. The key has the label of the configuration.
type Problems = BTreeMap<(&'static str, Problem), String>;

const VALIDATING: &str = "validating";
const MUTATING: &str = "mutating";

/// Watches the configurations of this webhook.
pub(crate) struct Monitor {
    client: Client,
    configurations: Configurations,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    /// The problems of the last check. A problem is reported when it is seen twice.
    seen: Problems,
    reported: Problems,
    /// Notes for `/readyz` on what could not be checked.
    notes: Vec<String>,
    /// The time of the next self-check, and the problem that the last one found.
    next_self_check: Instant,
    not_called: Option<String>,
    inconclusive: Option<String>,
}

impl Monitor {
    pub(crate) fn new(
        client: Client,
        configurations: Configurations,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Self {
        for (configuration, name) in [
            (VALIDATING, &configurations.validating),
            (MUTATING, &configurations.mutating),
        ] {
            for problem in Problem::ALL.iter().filter(|_| name.is_some()) {
                metrics.set_configuration_problem(configuration, problem.name(), false);
            }
        }
        Self {
            client,
            configurations,
            metrics,
            readiness,
            seen: Problems::new(),
            reported: Problems::new(),
            notes: Vec::new(),
            next_self_check: Instant::now() + INTERVAL,
            not_called: None,
            inconclusive: None,
        }
    }

    /// Checks the configurations forever.
    pub(crate) async fn run(mut self) {
        loop {
            let problems = self.check().await;
            self.report(problems);
            sleep(INTERVAL).await;
        }
    }

    async fn check(&mut self) -> Problems {
        let mut problems = Problems::new();
        self.notes.clear();
        let (validating, mutating) = (
            self.configurations.validating.clone(),
            self.configurations.mutating.clone(),
        );
        let webhooks = match &validating {
            Some(name) => {
                self.read::<ValidatingWebhookConfiguration>(VALIDATING, name, &mut problems)
                    .await
            }
            None => Vec::new(),
        };
        if let Some(name) = &mutating {
            self.read::<MutatingWebhookConfiguration>(MUTATING, name, &mut problems)
                .await;
        }
        if let Some(name) = validating {
            self.check_calls(&name, &webhooks, &mut problems).await;
        }
        problems
    }

    /// Reads a configuration and returns its webhooks.
    async fn read<K: WebhookConfiguration>(
        &mut self,
        label: &'static str,
        name: &str,
        problems: &mut Problems,
    ) -> Vec<ConfiguredWebhook> {
        let kind = K::kind(&());
        let api: Api<K> = Api::all(self.client.clone());
        let webhooks = match with_timeout(api.get_opt(name)).await {
            Ok(Some(found)) => found.webhooks(),
            Ok(None) => {
                let text = format!(
                    "the {kind} {name:?} does not exist: the API server admits everything without a review. \
                     Create it, or set --{label}-webhook-configuration"
                );
                problems.insert((label, Problem::Missing), text);
                return Vec::new();
            }
            Err(error) => {
                self.notes
                    .push(format!("the {kind} {name:?} is not checked: {error}"));
                return Vec::new();
            }
        };
        let without: Vec<&str> = webhooks
            .iter()
            .filter(|webhook| webhook.ca_bundle.as_ref().is_none_or(|ca| ca.0.is_empty()))
            .map(|webhook| webhook.name.as_str())
            .collect();
        if !without.is_empty() {
            let text = format!(
                "the {kind} {name:?} has no caBundle for {}: the API server cannot call the webhook",
                without.join(", ")
            );
            problems.insert((label, Problem::NoCaBundle), text);
        }
        webhooks
    }

    /// Sends the self-check when it is due, and adds its last result.
    async fn check_calls(
        &mut self,
        name: &str,
        webhooks: &[ConfiguredWebhook],
        problems: &mut Problems,
    ) {
        let Some(namespace) = self.configurations.self_check_namespace.clone() else {
            return;
        };
        if !self.calls_for(&namespace, webhooks).await {
            (self.not_called, self.inconclusive) = (None, None);
            return;
        }
        if Instant::now() >= self.next_self_check {
            (self.not_called, self.inconclusive) = (None, None);
            match self_check(&self.client, &namespace).await {
                SelfCheck::Refused => {
                    self.next_self_check = Instant::now() + SELF_CHECK_INTERVAL;
                }
                SelfCheck::NotCalled(cause) => self.not_called = Some(cause),
                SelfCheck::Inconclusive(cause) => self.inconclusive = Some(cause),
            }
        }
        if let Some(cause) = &self.inconclusive {
            self.notes
                .push(format!("calls of the API server are not checked: {cause}"));
        }
        if let Some(cause) = &self.not_called {
            let text = format!(
                "no call of the API server for the ValidatingWebhookConfiguration {name:?} arrives: {cause}. \
                 Let the control plane reach the port of the webhook (docs/platforms.md)"
            );
            problems.insert((VALIDATING, Problem::NotCalled), text);
        }
    }

    /// Returns whether the configuration calls for the self-check in `namespace`.
    async fn calls_for(&self, namespace: &str, webhooks: &[ConfiguredWebhook]) -> bool {
        let Some(webhook) = webhooks
            .iter()
            .find(|webhook| webhook.name == CHECKED_WEBHOOK)
        else {
            return false;
        };
        let conditions = &webhook.conditions;
        if !conditions
            .iter()
            .all(|name| KNOWN_CONDITIONS.contains(&name.as_str()))
        {
            return false;
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let Ok(Some(found)) = with_timeout(api.get_metadata_opt(namespace)).await else {
            return false;
        };
        let labels = found.metadata.labels.unwrap_or_default();
        Selector::try_from(webhook.namespaces.clone())
            .is_ok_and(|selector| selector.matches(&labels))
    }

    /// Reports problems that two checks in a row have found, and the end of reported ones.
    fn report(&mut self, found: Problems) {
        let mut confirmed = found.clone();
        confirmed.retain(|key, _| self.seen.contains_key(key));
        for (key, text) in &confirmed {
            if !self.reported.contains_key(key) {
                tracing::warn!(problem = key.1.name(), "{text}");
            }
            self.metrics
                .set_configuration_problem(key.0, key.1.name(), true);
        }
        for key in self.reported.keys() {
            if !confirmed.contains_key(key) {
                self.metrics
                    .set_configuration_problem(key.0, key.1.name(), false);
                tracing::info!(
                    problem = key.1.name(),
                    configuration = key.0,
                    "the webhook configuration takes effect again"
                );
            }
        }
        let lines: Vec<&str> = confirmed
            .values()
            .chain(&self.notes)
            .map(String::as_str)
            .collect();
        self.readiness.remark(&lines.join("\n"));
        self.seen = found;
        self.reported = confirmed;
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn monitor() -> Monitor {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        Monitor::new(
            Client::try_from(config).unwrap(),
            Configurations {
                validating: Some("affix-webhook".to_owned()),
                ..Configurations::default()
            },
            Arc::new(Metrics::new()),
            Arc::new(Readiness::default()),
        )
    }

    #[tokio::test]
    async fn a_problem_is_reported_when_seen_twice_and_withdrawn_at_once() {
        let mut monitor = monitor();
        let missing = Problems::from([((VALIDATING, Problem::Missing), "it is gone".to_owned())]);
        let gauge = |monitor: &Monitor, value: u8| {
            let line = format!(
                "affix_webhook_configuration_problems{{configuration=\"validating\",problem=\"missing\"}} {value}"
            );
            let text = monitor.metrics.encode();
            assert!(text.contains(&line), "{text}");
        };
        gauge(&monitor, 0);
        monitor.report(missing.clone());
        gauge(&monitor, 0);
        assert_eq!(monitor.readiness.says(), (200, "ok\n".to_owned()));
        monitor.report(missing);
        gauge(&monitor, 1);
        assert_eq!(
            monitor.readiness.says(),
            (200, "ok\nit is gone\n".to_owned())
        );
        monitor.report(Problems::new());
        gauge(&monitor, 0);
        assert_eq!(monitor.readiness.says(), (200, "ok\n".to_owned()));
    }
}
