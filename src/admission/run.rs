//! Start to end of the webhooks: servers, the certificate, and a stop without a failed call.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::admission::certificates::provided::Given;
use crate::admission::certificates::resolver::Served;
use crate::admission::certificates::rotator::{EVERY, Keeper};
use crate::admission::metrics::Metrics;
use crate::admission::options::{CertificateSource, Clock, Options};
use crate::admission::pods::cluster_index::watch::Watched;
use crate::admission::server::https::Server;
use crate::admission::server::reviewer::Reviewer;
use crate::admission::server::routes::routes;
use crate::service::{self, Probes, Readiness, StartError};
use affix_registry::Registries;

/// What `/readyz` waits for first, beside what is listed.
const CERTIFICATE: &str = "the certificate";
/// What it says while the process ends.
const STOPPING: &str = "the end";

/// Runs the webhooks until SIGTERM or SIGINT.
///
/// # Errors
/// When they cannot start; whatever happens later is retried.
pub async fn run(options: Options) -> Result<(), StartError> {
    let (config, stop) = service::begin().await?;
    let registries = options
        .registries
        .without_server(service::api_server(&config), &stop)
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

/// Runs the webhooks until `stop`, by `clock`.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn serve(
    options: Options,
    client: Client,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let metrics = Arc::new(Metrics::new());
    let encoded = Arc::clone(&metrics);
    let awaited = [CERTIFICATE]
        .into_iter()
        .chain(Watched::ALL.map(Watched::list))
        .map(str::to_owned);
    let probes = Probes::serve(options.addresses, awaited, move || encoded.encode())?;
    let readiness = &probes.readiness;
    let served = Arc::new(Served::default());
    let server = Server::bind(
        options.listen_addr,
        Arc::clone(&served),
        options.limits.clone(),
        Arc::clone(&metrics),
    );
    let server = server.map_err(|source| StartError::Listen {
        what: "webhooks",
        address: options.listen_addr,
        source,
    })?;

    let keeping = keep(
        options.certificate,
        client.clone(),
        Arc::clone(&clock),
        served,
        Arc::clone(&metrics),
        Arc::clone(readiness),
    );
    let registries = Registries::new(options.registries);
    let reviewer = Arc::new(Reviewer::new(
        client,
        registries,
        options.lookups,
        clock,
        Arc::clone(&metrics),
    ));
    let routes = routes(Arc::clone(&reviewer), &options.limits, metrics);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "affix webhook started");

    // New calls come for as long as not everybody knows that this replica goes.
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
        () = keeping => {}
        () = reviewer.learn(readiness) => {}
        () = closing => {}
    }
    tracing::info!("affix webhook stopped");
    Ok(())
}

/// What looks after a certificate.
trait Look: Send {
    /// One look.
    fn look(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

impl Look for Given {
    async fn look(&mut self) -> Result<(), String> {
        Self::look(self).await.map_err(|error| error.to_string())
    }
}

impl Look for Keeper {
    async fn look(&mut self) -> Result<(), String> {
        Self::look(self).await.map_err(|error| error.to_string())
    }
}

/// Keeps the certificate for ever.
async fn keep(
    source: CertificateSource,
    client: Client,
    clock: Clock,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
) {
    match source {
        CertificateSource::Given(dir) => {
            repeat(
                Given::new(dir, served, Arc::clone(&metrics)),
                &metrics,
                &readiness,
            )
            .await
        }
        CertificateSource::SelfManaged(options) => {
            repeat(
                Keeper::new(client, options, clock, served, Arc::clone(&metrics)),
                &metrics,
                &readiness,
            )
            .await;
        }
    }
}

/// Looks every few seconds; says the same failure once.
async fn repeat(mut looked_after: impl Look, metrics: &Metrics, readiness: &Readiness) {
    let mut said = String::new();
    loop {
        match looked_after.look().await {
            Ok(()) => {
                readiness.done(CERTIFICATE);
                said.clear();
            }
            Err(error) => {
                metrics.certificate_failed();
                if error != said {
                    tracing::warn!(error, "the certificate was not looked after; trying again");
                    said = error;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
