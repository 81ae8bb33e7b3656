//! Keeps the webhook's own certificate: the Secret that the replicas share, the `caBundle` of the configurations, and which
//! certificate this replica serves.
//!
//! A look every few seconds by the wall clock, so that a machine that slept wakes right and a Secret that was deleted or broken
//! is back within ten. Replicas agree by the API server: who creates or replaces the Secret first wins, and the others take what
//! is there. A certificate of a new authority is served only once every configuration has trusted it for a while, so no call
//! fails during a rotation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::admission::certificates::certificate::{CertificateError, Data, Servable};
use crate::admission::certificates::resolver::Served;
use crate::admission::certificates::shared_certificate::{Judgement, Shared, judge};
use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, SelfManaged};

/// How often the Secret and the configurations are looked at.
pub(crate) const EVERY: Duration = Duration::from_secs(4);
/// How long the API servers may take to learn of a new `caBundle`.
const SETTLES: Duration = Duration::from_secs(5);
/// The client has no time-out of its own.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// The field manager of what is written.
const MANAGER: &str = "affix-webhook";

/// Why a look did not lead to a certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the certificate cannot be made: {0}")]
    Certificate(#[from] CertificateError),
    #[error("the Secret {0:?} cannot be {1}: {2}")]
    Secret(String, &'static str, kube::Error),
    #[error("the caBundle of {0:?} cannot be kept: {1}")]
    Configuration(String, kube::Error),
    #[error("the API server did not answer within {} s", API_TIMEOUT.as_secs())]
    TimedOut,
}

/// Keeps one certificate.
pub(crate) struct Keeper {
    client: Client,
    namespace: String,
    options: SelfManaged,
    names: Vec<String>,
    clock: Clock,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    now_serving: Option<Serving>,
    /// The authority that the configurations trust, and since when all of them do.
    trusted: Option<(CertificateDer<'static>, Instant)>,
}

/// What is served, and under which authorities callers accept it.
struct Serving {
    servable: Servable,
    authorities: Vec<CertificateDer<'static>>,
}

impl Keeper {
    pub(crate) fn new(
        client: Client,
        options: SelfManaged,
        clock: Clock,
        served: Arc<Served>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let namespace = options
            .namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let service = &options.service;
        let mut names: Vec<String> = [".svc", ".svc.cluster.local", ""]
            .map(|end| format!("{service}.{namespace}{end}"))
            .into();
        names.extend(options.names.iter().cloned());
        Self {
            client,
            namespace,
            options,
            names,
            clock,
            served,
            metrics,
            now_serving: None,
            trusted: None,
        }
    }

    /// One look. Afterwards a certificate is served unless it is an error.
    pub(crate) async fn look(&mut self) -> Result<(), KeepError> {
        let now = (self.clock)();
        let shared = self.share(now).await?;
        let bundle = shared.bundle();
        // What is to be served must be there before anybody is told to trust it alone, and the other way round: so first
        // the configurations, whose failure does not keep a first certificate from being served.
        let told = self.tell(&bundle).await;
        let own = shared.authorities.first().cloned();
        match (&told, &self.trusted, own) {
            (Err(_), _, _) => {}
            (Ok(()), Some((trusted, _)), Some(own)) if *trusted == own => {}
            (Ok(()), _, own) => self.trusted = own.map(|own| (own, Instant::now())),
        }
        self.serve(shared, now);
        told
    }

    /// What the Secret holds, after it was mended where that was needed.
    async fn share(&self, now: k8s_openapi::jiff::Timestamp) -> Result<Shared, KeepError> {
        const TRIES: usize = 3;
        let name = &self.options.secret;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed = |what: &'static str| move |error| KeepError::Secret(name.clone(), what, error);
        let serving = self
            .now_serving
            .as_ref()
            .map(|serving| serving.authorities.as_slice())
            .unwrap_or_default();
        let mut tries = 0;
        loop {
            tries += 1;
            let found = in_time(api.get_opt(name)).await?.map_err(failed("read"))?;
            let data: Data = found
                .iter()
                .filter_map(|secret| secret.data.as_ref())
                .flatten()
                .map(|(key, value)| (key.clone(), affix_registry::Secret::new(value.0.clone())))
                .collect();
            let (data, shared, why) = match judge(&data, &self.names, serving, now)? {
                Judgement::Good(shared) => return Ok(shared),
                Judgement::Replace { data, shared, why } => (data, shared, why),
            };
            let secret = self.secret(found.as_ref(), &data);
            let written = match &found {
                None => in_time(api.create(&PostParams::default(), &secret)).await?,
                Some(_) => in_time(api.replace(name, &PostParams::default(), &secret)).await?,
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = %name, why, "the webhook's certificate was made");
                    return Ok(shared);
                }
                // Another replica was first, or the Secret was just deleted: look again.
                Err(kube::Error::Api(status))
                    if matches!(status.code, 404 | 409) && tries < TRIES => {}
                Err(error) => return Err(failed("written")(error)),
            }
        }
    }

    fn secret(&self, found: Option<&Secret>, data: &Data) -> Secret {
        let metadata = found.map_or_else(
            || ObjectMeta {
                name: Some(self.options.secret.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    MANAGER.to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            |found| ObjectMeta {
                managed_fields: None,
                ..found.metadata.clone()
            },
        );
        // The type of a Secret cannot be changed.
        let kind = found.map_or_else(
            || Some("kubernetes.io/tls".to_owned()),
            |found| found.type_.clone(),
        );
        let data = data
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.expose().to_vec())))
            .collect();
        Secret {
            metadata,
            type_: kind,
            data: Some(data),
            ..Secret::default()
        }
    }

    /// Puts the authorities into the configurations, where they are not there yet. A configuration that is absent needs none.
    async fn tell(&self, bundle: &str) -> Result<(), KeepError> {
        if let Some(name) = &self.options.validating {
            let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
            let hooks = |found: &ValidatingWebhookConfiguration| {
                let hooks = found.webhooks.iter().flatten();
                hooks
                    .map(|hook| (hook.name.clone(), hook.client_config.ca_bundle.clone()))
                    .collect()
            };
            keep_bundle(&api, name, bundle, hooks).await?;
        }
        if let Some(name) = &self.options.mutating {
            let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
            let hooks = |found: &MutatingWebhookConfiguration| {
                let hooks = found.webhooks.iter().flatten();
                hooks
                    .map(|hook| (hook.name.clone(), hook.client_config.ca_bundle.clone()))
                    .collect()
            };
            keep_bundle(&api, name, bundle, hooks).await?;
        }
        Ok(())
    }

    /// Serves the shared certificate, unless callers may not know its authority yet and the present one still does.
    fn serve(&mut self, shared: Shared, now: k8s_openapi::jiff::Timestamp) {
        if let Some(serving) = &self.now_serving {
            if serving.servable == shared.servable {
                self.now_serving = Some(Serving {
                    servable: shared.servable,
                    authorities: shared.authorities,
                });
                return;
            }
            let is_known = self.trusted.as_ref().is_some_and(|(own, since)| {
                shared.authorities.first() == Some(own) && since.elapsed() >= SETTLES
            });
            if !is_known
                && serving
                    .servable
                    .is_accepted(&serving.authorities, &[], now)
                    .is_ok()
                && now < serving.servable.not_after
            {
                return;
            }
        }
        self.served.set(Arc::clone(&shared.servable.key));
        self.metrics
            .serves_certificate_until(shared.servable.not_after.as_second());
        tracing::info!(until = %shared.servable.not_after, "serving another certificate");
        self.now_serving = Some(Serving {
            servable: shared.servable,
            authorities: shared.authorities,
        });
    }
}

/// Puts `bundle` into every webhook of a configuration, if it is not there.
async fn keep_bundle<K>(
    api: &Api<K>,
    name: &str,
    bundle: &str,
    hooks: impl Fn(&K) -> Vec<(String, Option<ByteString>)>,
) -> Result<(), KeepError>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let failed = |error| KeepError::Configuration(name.to_owned(), error);
    let Some(found) = in_time(api.get_opt(name)).await?.map_err(failed)? else {
        return Ok(());
    };
    let hooks = hooks(&found);
    if hooks.iter().all(|(_, present)| {
        present
            .as_ref()
            .is_some_and(|present| present.0 == bundle.as_bytes())
    }) {
        return Ok(());
    }
    let encoded = STANDARD.encode(bundle);
    let hooks: Vec<_> = hooks
        .into_iter()
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": encoded}}))
        .collect();
    // Merged by name; the resourceVersion keeps a webhook that was removed meanwhile from coming back.
    let patch =
        json!({"metadata": {"resourceVersion": found.resource_version()}, "webhooks": hooks});
    in_time(api.patch(
        name,
        &PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        },
        &Patch::Strategic(&patch),
    ))
    .await?
    .map_err(failed)?;
    tracing::info!(configuration = name, kind = %K::kind(&()), "the caBundle was set");
    Ok(())
}

async fn in_time<T>(call: impl Future<Output = T>) -> Result<T, KeepError> {
    timeout(API_TIMEOUT, call)
        .await
        .map_err(|_| KeepError::TimedOut)
}
