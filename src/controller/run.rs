//! Start and stop of the controller: servers, watches, leader election, and the shutdown on SIGTERM.

use std::sync::Arc;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::runtime::reflector;
use kube::{Client, Config};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ImageAttachment, ImageAttachmentSet};
use crate::engine::Engine;
use crate::service::{self, Election, Leadership, Probes, Readiness, StartError};
use affix_registry::{self, Registries};

use super::context::Context;
use super::leader::write_gate::WriteGateLayer;
use super::metrics::{CountRequests, Metrics};
use super::options::Options;
use super::sets::entry::SetEntry;
use super::sets::watch as set_watch;
use super::watch::cache::CacheEntry;
use super::watch::crd_check::{CheckedKind, CrdCheck};
use super::watch::resource_watch::{readiness_check, watch};
use super::workqueue::caches::Caches;
use super::workqueue::limiter::api_rate_limit;
use super::workqueue::worker::run_workers;

/// The time for reconciles in flight after SIGTERM. The kubelet's default grace period is 30 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// The same with leader election: another replica takes over within 2 s.
const HANDOVER_TIMEOUT: Duration = Duration::from_millis(300);

/// An error that prevents the start of the controller.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An error that every long-running command can have.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The durations of leader election contradict each other.
    #[error("leader election: {0}")]
    Election(String),
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start. Later errors are retried.
pub async fn run(options: Options) -> Result<(), RunError> {
    if let Some(election) = &options.leader_election {
        election.check().map_err(RunError::Election)?;
    }
    let (mut config, shutdown) = service::begin().await?;
    let api_server = service::api_server(&config);
    // The client's own retry of a write would not pass the write gate.
    config.default_retry = false;
    let leadership = Arc::new(if options.leader_election.is_some() {
        Leadership::standby()
    } else {
        Leadership::permanent()
    });
    let metrics = Arc::new(Metrics::new(options.concurrent));
    let client = gated_client(&config, &options, &metrics, &leadership)?;
    let scopes: Vec<Option<String>> = match options.watch_namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let encoded = Arc::clone(&metrics);
    let lists = scopes.iter().flat_map(|scope| {
        let scope = scope.as_deref();
        [readiness_check(scope), set_watch::readiness_check(scope)]
    });
    let probes = Probes::serve(options.addresses, lists, move || encoded.encode())?;
    let readiness = &probes.readiness;
    // Leader election opens the gate, so its client cannot pass it. Events about the CRD need no leadership.
    let ungated = Client::try_from(config.clone()).map_err(StartError::Client)?;
    let [crd_check, set_crd_check] = [
        CheckedKind::new::<ImageAttachment>(api::crd(), false),
        CheckedKind::new::<ImageAttachmentSet>(api::set_crd(), true),
    ]
    .map(|kind| start_crd_check(kind, &ungated, readiness, &scopes, &shutdown));
    let election = options.leader_election.clone().map(|election| {
        let namespace = election.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let (leadership, readiness) = (Arc::clone(&leadership), Arc::clone(readiness));
        let (gauge, lease) = (Arc::clone(&metrics), election.name.clone());
        let on_change = move |is_leader| gauge.leader.set(&lease, is_leader);
        let election = Election::new(
            (ungated, &namespace),
            election,
            leadership,
            readiness,
            on_change,
        );
        start_election(election, Arc::clone(&crd_check), shutdown.clone())
    });

    let registries = affix_registry::Options {
        observer: metrics.registries.clone(),
        write_gate: leadership.gate().clone(),
        ..options.registries.clone()
    };
    let registries = registries.deny_server(api_server, &shutdown).await;
    let engine = Engine::new(Registries::new(registries), options.engine.clone());
    let gate = leadership.gate().clone();
    let context = Arc::new(Context::new(
        client,
        engine,
        options,
        metrics,
        leadership,
        [crd_check, set_crd_check],
        shutdown.clone(),
    ));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "affix started");
    let mut caches = Caches::default();
    let watches: Vec<_> = scopes
        .iter()
        .flat_map(|scope| {
            let scope = scope.as_deref();
            let (cache, writer) = reflector::store::<CacheEntry>();
            let (sets, set_writer) = reflector::store::<SetEntry>();
            caches.add(scope, cache.clone(), sets.clone());
            [
                set_watch::watch(scope, sets.clone(), set_writer, &context, readiness),
                watch(scope, (cache, writer), sets, &context, readiness, &shutdown),
            ]
        })
        .chain([set_watch::changed_children(&context)])
        .collect();
    let events = futures::stream::select_all(watches);
    let workers = run_workers(context, caches, events, shutdown.clone());
    let timeout = if election.is_some() {
        HANDOVER_TIMEOUT
    } else {
        DRAIN_TIMEOUT
    };
    let timed_out = async {
        shutdown.cancelled().await;
        tokio::time::sleep(timeout).await;
        // A write in flight must not reach the API server or a registry during the work of the next leader.
        gate.close();
        gate.settled(HANDOVER_TIMEOUT).await;
    };
    let is_drained = tokio::select! {
        () = workers => true,
        () = timed_out => false,
    };
    if let Some(election) = election
        && let Ok(election) = election.await
    {
        election.release().await;
    }
    if is_drained {
        tracing::info!("affix stopped");
    } else {
        tracing::warn!(
            "affix stopped with reconciles in flight; the next leader or the next start repeats them"
        );
    }
    Ok(())
}

/// Returns a client with metrics, the rate limit and the write gate.
fn gated_client(
    config: &Config,
    options: &Options,
    metrics: &Metrics,
    leadership: &Leadership,
) -> Result<Client, StartError> {
    let builder = ClientBuilder::try_from(config.clone()).map_err(StartError::Client)?;
    let rate_limit = api_rate_limit(options.kube_api_qps, options.kube_api_burst);
    let client = builder
        .with_layer(&CountRequests(Arc::clone(&metrics.api_server)))
        .with_layer(&rate_limit)
        .with_layer(&WriteGateLayer(leadership.gate().clone()))
        .build();
    Ok(client)
}

fn start_crd_check(
    kind: CheckedKind,
    client: &Client,
    readiness: &Arc<Readiness>,
    scopes: &[Option<String>],
    shutdown: &CancellationToken,
) -> Arc<CrdCheck> {
    let check = CrdCheck::new(
        kind,
        client.clone(),
        Arc::clone(readiness),
        shutdown.clone(),
    );
    let check = Arc::new(check);
    let (running, scopes) = (Arc::clone(&check), scopes.to_vec());
    tokio::spawn(async move { running.run(&scopes).await });
    check
}

/// Starts the election once the CRD is compatible. Until then another replica can take the Lease.
fn start_election(
    election: Election,
    crd_check: Arc<CrdCheck>,
    shutdown: CancellationToken,
) -> JoinHandle<Election> {
    tokio::spawn(async move {
        crd_check.wait().await;
        election.run(shutdown).await
    })
}
