//! The webhook configurations in the API server: their `caBundle`, and a monitor that reports a
//! configuration without effect.

pub(crate) mod ca_bundle;
pub(crate) mod monitor;
pub(crate) mod self_check;

use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::de::DeserializeOwned;

/// The needed parts of one webhook in a configuration.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredWebhook {
    pub(crate) name: String,
    pub(crate) ca_bundle: Option<ByteString>,
    namespaces: LabelSelector,
    /// The names of the match conditions.
    conditions: Vec<String>,
}

/// A kind of webhook configuration.
pub(crate) trait WebhookConfiguration:
    kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
{
    /// Returns the webhooks of the configuration.
    fn webhooks(&self) -> Vec<ConfiguredWebhook>;
}

impl WebhookConfiguration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<ConfiguredWebhook> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| {
                configured(
                    &webhook.name,
                    &webhook.client_config,
                    webhook.namespace_selector.as_ref(),
                    webhook.match_conditions.as_deref(),
                )
            })
            .collect()
    }
}

impl WebhookConfiguration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<ConfiguredWebhook> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| {
                configured(
                    &webhook.name,
                    &webhook.client_config,
                    webhook.namespace_selector.as_ref(),
                    webhook.match_conditions.as_deref(),
                )
            })
            .collect()
    }
}

fn configured(
    name: &str,
    client: &WebhookClientConfig,
    namespaces: Option<&LabelSelector>,
    conditions: Option<&[MatchCondition]>,
) -> ConfiguredWebhook {
    let conditions = conditions.unwrap_or_default();
    ConfiguredWebhook {
        name: name.to_owned(),
        ca_bundle: client.ca_bundle.clone(),
        namespaces: namespaces.cloned().unwrap_or_default(),
        conditions: conditions.iter().map(|item| item.name.clone()).collect(),
    }
}
