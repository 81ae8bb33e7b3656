//! The certificate rotator. It maintains the Secret that all replicas share, the `caBundle` of the
//! webhook configurations, and the certificate that this replica serves.
//!
//! It reconciles every few seconds by the wall clock, so it recovers from a suspended machine, and from
//! a deleted or damaged Secret within ten seconds. Replicas coordinate through the API server: the
//! first write of the Secret wins, and the other replicas adopt it. A replica serves a certificate of a
//! new authority only after all configurations have trusted that authority for a while. No call fails
//! during a rotation.

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

use crate::admission::certificates::certificate::{CertificateError, Data, ServingCertificate};
use crate::admission::certificates::resolver::CertificateResolver;
use crate::admission::certificates::shared_certificate::{Assessment, SharedCertificate, assess};
use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, SelfManaged};

/// Interval of the reconciliation of the Secret and the configurations.
pub(crate) const RECONCILE_INTERVAL: Duration = Duration::from_secs(4);
/// Time for the API servers to load a new `caBundle`.
const PROPAGATION_TIME: Duration = Duration::from_secs(5);
/// Time limit of one API request. The client itself has none.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// The field manager of all writes.
const MANAGER: &str = "affix-webhook";

/// A reconciliation that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotationError {
    #[error("cannot create a certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("cannot {1} the Secret {0:?}: {2}")]
    Secret(String, &'static str, kube::Error),
    #[error("cannot write the caBundle of {0:?}: {1}")]
    Configuration(String, kube::Error),
    #[error("the API server did not answer within {} s", API_TIMEOUT.as_secs())]
    TimedOut,
}

/// Rotates one certificate.
pub(crate) struct CertificateRotator {
    client: Client,
    namespace: String,
    options: SelfManaged,
    names: Vec<String>,
    clock: Clock,
    resolver: Arc<CertificateResolver>,
    metrics: Arc<Metrics>,
    serving: Option<Serving>,
    /// The authority that all configurations trust, and the time at which that was first seen.
    trusted: Option<(CertificateDer<'static>, Instant)>,
}

/// The certificate in use, and the authorities with which clients verify it.
struct Serving {
    certificate: ServingCertificate,
    authorities: Vec<CertificateDer<'static>>,
}

impl CertificateRotator {
    pub(crate) fn new(
        client: Client,
        options: SelfManaged,
        clock: Clock,
        resolver: Arc<CertificateResolver>,
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
            resolver,
            metrics,
            serving: None,
            trusted: None,
        }
    }

    /// Reconciles once. On success a certificate is being served.
    pub(crate) async fn reconcile(&mut self) -> Result<(), RotationError> {
        let now = (self.clock)();
        let shared = self.ensure_secret(now).await?;
        let bundle = shared.bundle();
        // The configurations are written before the certificate is served, so that clients trust it. A
        // failure does not block the first certificate.
        let bundles = self.write_ca_bundles(&bundle).await;
        let own = shared.authorities.first().cloned();
        match (&bundles, &self.trusted, own) {
            (Err(_), _, _) => {}
            (Ok(()), Some((trusted, _)), Some(own)) if *trusted == own => {}
            (Ok(()), _, own) => self.trusted = own.map(|own| (own, Instant::now())),
        }
        self.serve(shared, now);
        bundles
    }

    /// Returns the content of the Secret, after creating or repairing it if necessary.
    async fn ensure_secret(
        &self,
        now: k8s_openapi::jiff::Timestamp,
    ) -> Result<SharedCertificate, RotationError> {
        const MAX_ATTEMPTS: usize = 3;
        let name = &self.options.secret;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed =
            |verb: &'static str| move |error| RotationError::Secret(name.clone(), verb, error);
        let serving = self
            .serving
            .as_ref()
            .map(|serving| serving.authorities.as_slice())
            .unwrap_or_default();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let found = with_timeout(api.get_opt(name))
                .await?
                .map_err(failed("read"))?;
            let data: Data = found
                .iter()
                .filter_map(|secret| secret.data.as_ref())
                .flatten()
                .map(|(key, value)| (key.clone(), affix_registry::Secret::new(value.0.clone())))
                .collect();
            let (data, shared, reason) = match assess(&data, &self.names, serving, now)? {
                Assessment::Usable(shared) => return Ok(shared),
                Assessment::Replace {
                    data,
                    shared,
                    reason,
                } => (data, shared, reason),
            };
            let secret = self.secret(found.as_ref(), &data);
            let written = match &found {
                None => with_timeout(api.create(&PostParams::default(), &secret)).await?,
                Some(_) => with_timeout(api.replace(name, &PostParams::default(), &secret)).await?,
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = %name, reason, "created a certificate");
                    return Ok(shared);
                }
                // Another replica was first, or the Secret was just deleted.
                Err(kube::Error::Api(status))
                    if matches!(status.code, 404 | 409) && attempts < MAX_ATTEMPTS => {}
                Err(error) => return Err(failed("write")(error)),
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
        // The type of a Secret is immutable.
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

    /// Writes the authorities to the configurations. A missing configuration is skipped.
    async fn write_ca_bundles(&self, bundle: &str) -> Result<(), RotationError> {
        if let Some(name) = &self.options.validating {
            let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
            let webhooks = |found: &ValidatingWebhookConfiguration| {
                let webhooks = found.webhooks.iter().flatten();
                webhooks
                    .map(|webhook| {
                        (
                            webhook.name.clone(),
                            webhook.client_config.ca_bundle.clone(),
                        )
                    })
                    .collect()
            };
            set_ca_bundle(&api, name, bundle, webhooks).await?;
        }
        if let Some(name) = &self.options.mutating {
            let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
            let webhooks = |found: &MutatingWebhookConfiguration| {
                let webhooks = found.webhooks.iter().flatten();
                webhooks
                    .map(|webhook| {
                        (
                            webhook.name.clone(),
                            webhook.client_config.ca_bundle.clone(),
                        )
                    })
                    .collect()
            };
            set_ca_bundle(&api, name, bundle, webhooks).await?;
        }
        Ok(())
    }

    /// Serves the shared certificate. The previous certificate stays in use while it is valid and
    /// clients may not yet trust the new authority.
    fn serve(&mut self, shared: SharedCertificate, now: k8s_openapi::jiff::Timestamp) {
        if let Some(serving) = &self.serving {
            if serving.certificate == shared.certificate {
                self.serving = Some(Serving {
                    certificate: shared.certificate,
                    authorities: shared.authorities,
                });
                return;
            }
            let is_propagated = self.trusted.as_ref().is_some_and(|(own, since)| {
                shared.authorities.first() == Some(own) && since.elapsed() >= PROPAGATION_TIME
            });
            if !is_propagated
                && serving
                    .certificate
                    .verify(&serving.authorities, &[], now)
                    .is_ok()
                && now < serving.certificate.not_after
            {
                return;
            }
        }
        self.resolver.set(Arc::clone(&shared.certificate.key));
        self.metrics
            .set_certificate_expiry(shared.certificate.not_after.as_second());
        tracing::info!(not_after = %shared.certificate.not_after, "serving a new certificate");
        self.serving = Some(Serving {
            certificate: shared.certificate,
            authorities: shared.authorities,
        });
    }
}

/// Writes `bundle` to every webhook of a configuration, if it differs.
async fn set_ca_bundle<K>(
    api: &Api<K>,
    name: &str,
    bundle: &str,
    webhooks: impl Fn(&K) -> Vec<(String, Option<ByteString>)>,
) -> Result<(), RotationError>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let failed = |error| RotationError::Configuration(name.to_owned(), error);
    let Some(found) = with_timeout(api.get_opt(name)).await?.map_err(failed)? else {
        return Ok(());
    };
    let webhooks = webhooks(&found);
    if webhooks.iter().all(|(_, present)| {
        present
            .as_ref()
            .is_some_and(|present| present.0 == bundle.as_bytes())
    }) {
        return Ok(());
    }
    let encoded = STANDARD.encode(bundle);
    let webhooks: Vec<_> = webhooks
        .into_iter()
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": encoded}}))
        .collect();
    // Webhooks are merged by name. The resourceVersion prevents the patch from restoring a webhook
    // that was removed meanwhile.
    let patch =
        json!({"metadata": {"resourceVersion": found.resource_version()}, "webhooks": webhooks});
    with_timeout(api.patch(
        name,
        &PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        },
        &Patch::Strategic(&patch),
    ))
    .await?
    .map_err(failed)?;
    tracing::info!(configuration = name, kind = %K::kind(&()), "updated the caBundle");
    Ok(())
}

async fn with_timeout<T>(call: impl Future<Output = T>) -> Result<T, RotationError> {
    timeout(API_TIMEOUT, call)
        .await
        .map_err(|_| RotationError::TimedOut)
}
