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

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::admission::certificates::certificate::{CertificateError, Data, ServingCertificate};
use crate::admission::certificates::resolver::CertificateResolver;
use crate::admission::certificates::shared_certificate::{Assessment, SharedCertificate, assess};
use crate::admission::configurations::ca_bundle::{
    CaBundleError, FIELD_MANAGER, with_timeout, write_ca_bundles,
};
use crate::admission::metrics::Metrics;
use crate::admission::options::{Clock, Configurations, SelfManaged};
use crate::service::{ApiServerError, OwningDeployment, set_owner};

/// Interval of the reconciliation of the Secret and the configurations.
pub(crate) const RECONCILE_INTERVAL: Duration = Duration::from_secs(4);
/// The label of a Secret that affix created.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Time for the API servers to load a new `caBundle`.
const PROPAGATION_TIME: Duration = Duration::from_secs(5);

/// A reconciliation that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotationError {
    #[error("cannot create a certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("cannot {1} the Secret {0:?}: {2}")]
    Secret(String, &'static str, ApiServerError),
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
}

/// Rotates one certificate.
pub(crate) struct CertificateRotator {
    client: Client,
    namespace: String,
    options: SelfManaged,
    configurations: Configurations,
    owner: Option<OwningDeployment>,
    /// The ownership of the Secret was checked.
    is_owned: bool,
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
        (options, configurations): (SelfManaged, Configurations),
        clock: Clock,
        resolver: Arc<CertificateResolver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let namespace = options
            .namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let owner = options
            .owner
            .clone()
            .map(|name| OwningDeployment::new(client.clone(), &namespace, name));
        let service = &options.service;
        let mut names: Vec<String> = [".svc", ".svc.cluster.local", ""]
            .map(|end| format!("{service}.{namespace}{end}"))
            .into();
        names.extend(options.names.iter().cloned());
        Self {
            client,
            namespace,
            owner,
            is_owned: false,
            options,
            configurations,
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
        let bundles = write_ca_bundles(&self.client, &self.configurations, &bundle).await;
        let own = shared.authorities.first().cloned();
        match (&bundles, &self.trusted, own) {
            (Err(_), _, _) => {}
            (Ok(()), Some((trusted, _)), Some(own)) if *trusted == own => {}
            (Ok(()), _, own) => self.trusted = own.map(|own| (own, Instant::now())),
        }
        self.serve(shared, now);
        Ok(bundles?)
    }

    /// Returns the content of the Secret, after creating or repairing it if necessary.
    async fn ensure_secret(
        &mut self,
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
                .await
                .map_err(failed("read"))?;
            let data: Data = found
                .iter()
                .filter_map(|secret| secret.data.as_ref())
                .flatten()
                .map(|(key, value)| (key.clone(), affix_registry::Secret::new(value.0.clone())))
                .collect();
            let (data, shared, reason) = match assess(&data, &self.names, serving, now)? {
                Assessment::Usable(shared) => {
                    if let Some(found) = found.filter(|_| !self.is_owned) {
                        self.own(found).await;
                    }
                    return Ok(shared);
                }
                Assessment::Replace {
                    data,
                    shared,
                    reason,
                } => (data, shared, reason),
            };
            let mut secret = self.secret(found.as_ref(), &data);
            if found.is_none()
                && let Some(owner) = self.owner_reference().await
            {
                self.is_owned = set_owner(&mut secret.metadata, owner);
            }
            let written = match &found {
                None => with_timeout(api.create(&PostParams::default(), &secret)).await,
                Some(_) => with_timeout(api.replace(name, &PostParams::default(), &secret)).await,
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = %name, reason, "created a certificate");
                    return Ok(shared);
                }
                // Another replica was first, or the Secret was just deleted.
                Err(error)
                    if matches!(error.code(), Some(404 | 409)) && attempts < MAX_ATTEMPTS => {}
                Err(error) => return Err(failed("write")(error)),
            }
        }
    }

    /// Makes the Deployment the owner of a Secret that affix created, so that both are deleted together.
    async fn own(&mut self, mut found: Secret) {
        self.is_owned = true;
        let labels = found.metadata.labels.as_ref();
        let is_ours = labels.is_some_and(|labels| {
            labels
                .get(MANAGED_BY)
                .is_some_and(|manager| manager == FIELD_MANAGER)
        });
        if !is_ours {
            return;
        }
        let Some(owner) = self.owner_reference().await else {
            return;
        };
        if set_owner(&mut found.metadata, owner) {
            found.metadata.managed_fields = None;
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
            let name = &self.options.secret;
            // Another replica may have been first.
            if let Err(error) =
                with_timeout(api.replace(name, &PostParams::default(), &found)).await
            {
                self.is_owned = false;
                tracing::debug!(%error, secret = %name, "cannot set the owner of the Secret, retrying");
            }
        }
    }

    async fn owner_reference(&self) -> Option<OwnerReference> {
        match self.owner.as_ref()?.reference().await {
            Ok(owner) => Some(owner),
            Err(error) => {
                tracing::warn!(
                    secret = %self.options.secret,
                    %error,
                    "cannot read the Deployment that owns the Secret; the Secret stays after an uninstall"
                );
                None
            }
        }
    }

    fn secret(&self, found: Option<&Secret>, data: &Data) -> Secret {
        let metadata = found.map_or_else(
            || ObjectMeta {
                name: Some(self.options.secret.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([(
                    MANAGED_BY.to_owned(),
                    FIELD_MANAGER.to_owned(),
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
