//! The `caBundle` of the webhook configurations.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;

use crate::admission::configurations::WebhookConfiguration;
use crate::admission::options::Configurations;
use crate::service::ApiServerError;

/// The field manager of all writes.
pub(crate) const FIELD_MANAGER: &str = "affix-webhook";
/// Time limit of one API request. The client itself has none.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of attempts to write one configuration. Each of them follows a concurrent write.
const MAX_ATTEMPTS: usize = 8;

/// A `caBundle` that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the caBundle of {kind} {name:?}: {source}")]
pub(crate) struct CaBundleError {
    kind: String,
    name: String,
    source: ApiServerError,
}

/// Writes the authorities to the configurations. A missing configuration is skipped.
///
/// # Errors
/// The API server does not answer, or refuses.
pub(crate) async fn write_ca_bundles(
    client: &Client,
    configurations: &Configurations,
    bundle: &str,
) -> Result<(), CaBundleError> {
    if let Some(name) = &configurations.validating {
        write::<ValidatingWebhookConfiguration>(client, name, bundle).await?;
    }
    if let Some(name) = &configurations.mutating {
        write::<MutatingWebhookConfiguration>(client, name, bundle).await?;
    }
    Ok(())
}

/// Writes `bundle` to every webhook of a configuration, if it differs. After a concurrent write of
/// another replica, the configuration is read again at once.
async fn write<K: WebhookConfiguration>(
    client: &Client,
    name: &str,
    bundle: &str,
) -> Result<(), CaBundleError> {
    let api: Api<K> = Api::all(client.clone());
    let failed = |source| CaBundleError {
        kind: K::kind(&()).into_owned(),
        name: name.to_owned(),
        source,
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let Some(found) = with_timeout(api.get_opt(name)).await.map_err(failed)? else {
            return Ok(());
        };
        let webhooks = found.webhooks();
        if webhooks.iter().all(|webhook| {
            let present = webhook.ca_bundle.as_ref();
            present.is_some_and(|present| present.0 == bundle.as_bytes())
        }) {
            return Ok(());
        }
        let encoded = STANDARD.encode(bundle);
        let webhooks: Vec<_> = webhooks
            .into_iter()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": encoded}}))
            .collect();
        // Webhooks are merged by name. The resourceVersion prevents the patch from restoring a
        // webhook that was removed meanwhile.
        let patch = json!({"metadata": {"resourceVersion": found.resource_version()}, "webhooks": webhooks});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        match with_timeout(api.patch(name, &params, &Patch::Strategic(&patch))).await {
            Ok(_) => {
                tracing::info!(configuration = name, kind = %K::kind(&()), "updated the caBundle");
                return Ok(());
            }
            Err(error) if error.code() == Some(409) && attempts < MAX_ATTEMPTS => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Runs a request with the time limit of the webhook.
pub(crate) async fn with_timeout<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiServerError> {
    match timeout(API_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiServerError::TimedOut(API_TIMEOUT)),
    }
}
