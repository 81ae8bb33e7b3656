//! Startup and graceful shutdown of the webhooks.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::admission::certificates::provided::ProvidedCertificate;
use crate::admission::certificates::resolver::CertificateResolver;
use crate::admission::certificates::rotator::{CertificateRotator, RECONCILE_INTERVAL};
use crate::admission::configurations::monitor::Monitor;
use crate::admission::configurations::self_check::wait_for_refusal;
use crate::admission::metrics::Metrics;
use crate::admission::options::{CertificateSource, Clock, Configurations, Options};
use crate::admission::pods::cluster_index::watch::WatchedList;
use crate::admission::pods::trust::LifecycleTrust;
use crate::admission::reports::Reporter;
use crate::admission::server::https::Server;
use crate::admission::server::reviewer::Reviewer;
use crate::admission::server::routes::routes;
use crate::admission::server::tls::TlsSettings;
use crate::service::{self, Probes, Readiness, StartError};
use affix_registry::Registries;

/// The condition of `/readyz` for the serving certificate.
const CERTIFICATE: &str = "the certificate";
/// The condition of `/readyz` during shutdown.
const STOPPING: &str = "the shutdown";

/// Runs the webhooks until SIGTERM or SIGINT.
///
/// # Errors
/// The webhooks cannot start. Later failures are retried.
pub async fn run(options: Options) -> Result<(), StartError> {
    let (config, stop) = service::begin().await?;
    let registries = options
        .registries
        .deny_server(service::api_server(&config), &stop)
        .await;
    let options = Options {
        registries,
        ..options
    };
    serve(
        options,
        Client::try_from(config)?,
        Arc::new(Timestamp::now),
        stop,
    )
    .await
}

/// Checks that calls of the API server arrive: repeats the dry run of an invalid ImageAttachment in
/// `namespace` until the webhook refuses it.
///
/// # Errors
/// There is no configuration of a cluster, or the webhook does not refuse the dry run within `patience`.
pub async fn self_check(namespace: &str, patience: Duration) -> Result<(), StartError> {
    let (config, stop) = service::begin().await?;
    let client = Client::try_from(config)?;
    tokio::select! {
        refused = wait_for_refusal(&client, namespace, patience) => refused.map_err(StartError::SelfCheck),
        () = stop.cancelled() => Err(StartError::SelfCheck("the self-check was interrupted".to_owned())),
    }
}

/// Runs the webhooks until `stop` with the given clock.
///
/// # Errors
/// An address cannot be bound, or the keys of `--lifecycle-trust` cannot be read.
pub async fn serve(
    options: Options,
    client: Client,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let trust = LifecycleTrust::read(&options.lookups.lifecycle_trust)
        .map_err(StartError::LifecycleTrust)?;
    let metrics = Arc::new(Metrics::new());
    let encoded = Arc::clone(&metrics);
    let scopes = options.lookups.attachment_scopes();
    let awaited = [CERTIFICATE]
        .into_iter()
        .map(str::to_owned)
        .chain(WatchedList::all(&scopes).map(WatchedList::list));
    let probes = Probes::serve(options.addresses, awaited, move || encoded.encode())?;
    let readiness = &probes.readiness;
    let resolver = Arc::new(CertificateResolver::default());
    let tls = TlsSettings::new(Arc::clone(&resolver), options.client_ca);
    let server = tls.and_then(|tls| {
        let server = Server::bind(
            options.listen_addr,
            Arc::clone(&tls),
            options.limits.clone(),
            Arc::clone(&metrics),
        );
        Ok((tls, server?))
    });
    let (tls, server) = server.map_err(|source| StartError::Listen {
        what: "webhooks",
        address: options.listen_addr,
        source,
    })?;

    let monitor = Monitor::new(
        client.clone(),
        options.configurations.clone(),
        Arc::clone(&metrics),
        Arc::clone(readiness),
    );
    let certificates = manage_certificate(
        options.certificate,
        options.configurations,
        client.clone(),
        Arc::clone(&clock),
        resolver,
        Arc::clone(&metrics),
        Arc::clone(readiness),
    );
    let registries = Registries::new(options.registries);
    let reviewer = Arc::new(Reviewer::new(
        client.clone(),
        registries.clone(),
        options.lookups.clone(),
        trust.clone(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
    ));
    let reporter = options.reports.map(|reports| {
        Reporter::new(
            client,
            (reports, options.lookups),
            registries,
            trust.clone(),
            reviewer.cluster_index(),
            clock,
            Arc::clone(&metrics),
        )
    });
    let reports = async {
        match &reporter {
            Some(reporter) => reporter.run(stop.clone()).await,
            None => std::future::pending().await,
        }
    };
    let routes = routes(Arc::clone(&reviewer), &options.limits, metrics)
        .layer(middleware::from_fn_with_state(stop.clone(), end_connection));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "webhook started");

    // The server accepts connections until the Service has removed this replica from its endpoints.
    let closed = CancellationToken::new();
    let closing = async {
        stop.cancelled().await;
        readiness.wait_for(STOPPING);
        tokio::time::sleep(options.shutdown_delay).await;
        closed.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = server.run(routes, closed.clone()) => {}
        () = certificates => {}
        () = tls.follow() => {}
        () = follow(trust) => {}
        () = reviewer.run_watches(readiness) => {}
        () = monitor.run() => {}
        () = reports => {}
        () = closing => {}
    }
    tracing::info!("webhook stopped");
    Ok(())
}

/// Follows changes of the trusted keys, forever.
async fn follow(trust: Option<Arc<LifecycleTrust>>) {
    match trust {
        Some(trust) => trust.follow().await,
        None => std::future::pending().await,
    }
}

/// Asks HTTP/1.1 clients to close their connections during the shutdown. The API server calls webhooks
/// over HTTP/1.1, and its call fails if the server closes a kept connection at that moment.
async fn end_connection(
    State(stop): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    let kept = request.version() == Version::HTTP_11;
    let mut response = next.run(request).await;
    if kept && stop.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// A certificate that is reconciled periodically.
trait ReconcileCertificate: Send {
    /// Reconciles once.
    fn reconcile(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

impl ReconcileCertificate for ProvidedCertificate {
    async fn reconcile(&mut self) -> Result<(), String> {
        Self::reconcile(self)
            .await
            .map_err(|error| error.to_string())
    }
}

impl ReconcileCertificate for CertificateRotator {
    async fn reconcile(&mut self) -> Result<(), String> {
        Self::reconcile(self)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Maintains the certificate forever.
async fn manage_certificate(
    source: CertificateSource,
    configurations: Configurations,
    client: Client,
    clock: Clock,
    resolver: Arc<CertificateResolver>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
) {
    match source {
        CertificateSource::Provided(dir) => {
            reconcile_forever(
                ProvidedCertificate::new(dir, resolver, Arc::clone(&metrics)),
                &metrics,
                &readiness,
            )
            .await;
        }
        CertificateSource::SelfManaged(options) => {
            reconcile_forever(
                CertificateRotator::new(
                    client,
                    (options, configurations),
                    clock,
                    resolver,
                    Arc::clone(&metrics),
                ),
                &metrics,
                &readiness,
            )
            .await;
        }
    }
}

/// Reconciles periodically and logs each failure once.
async fn reconcile_forever(
    mut certificate: impl ReconcileCertificate,
    metrics: &Metrics,
    readiness: &Readiness,
) {
    let mut last_error = String::new();
    loop {
        match certificate.reconcile().await {
            Ok(()) => {
                readiness.done(CERTIFICATE);
                last_error.clear();
            }
            Err(error) => {
                metrics.certificate_failed();
                if error != last_error {
                    tracing::warn!(error, "cannot maintain the certificate, retrying");
                    last_error = error;
                }
            }
        }
        tokio::time::sleep(RECONCILE_INTERVAL).await;
    }
}
