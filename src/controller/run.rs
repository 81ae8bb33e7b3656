//! Start to end of the operator: servers, watches, and a clean stop on SIGTERM.

use std::sync::Arc;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::runtime::reflector;
use kube::{Api, Client};

use crate::engine::Engine;
use crate::service::{self, Probes, StartError};
use affix_registry::{self, Registries};

use super::context::Context;
use super::leader::leadership::Leadership;
use super::leader::lease::Election;
use super::leader::write_gate::Fence;
use super::metrics::{CountRequests, Metrics};
use super::options::Options;
use super::watch::cache::Stored;
use super::watch::crd_check::Definition;
use super::watch::resource_watch::{waited_for, watch};
use super::workqueue::alarms::Alarms;
use super::workqueue::pace::pace;
use super::workqueue::worker::{Stores, visit_all};

/// How long passes under way may take to end after SIGTERM; the kubelet's default grace period is 30 s.
const DRAIN: Duration = Duration::from_secs(25);
/// The same where another replica waits to go on with them: it has the work within 2 s.
const HANDOVER: Duration = Duration::from_millis(300);

/// Why the operator could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// As for every long-running part.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The times of leader election do not fit each other.
    #[error("leader election: {0}")]
    Election(String),
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; whatever happens later is retried.
pub async fn run(options: Options) -> Result<(), RunError> {
    if let Some(election) = &options.leader_election {
        election.check().map_err(RunError::Election)?;
    }
    let (mut config, shutdown) = service::begin().await?;
    let api_server = service::api_server(&config);
    // A second try of a write would leave without a look at the gate, so whoever writes tries again.
    config.default_retry = false;
    let leadership = Arc::new(if options.leader_election.is_some() {
        Leadership::standby()
    } else {
        Leadership::alone()
    });
    let metrics = Arc::new(Metrics::new(options.concurrent));
    let client = ClientBuilder::try_from(config.clone())
        .map_err(StartError::Client)?
        .with_layer(&CountRequests(Arc::clone(&metrics.cluster)))
        .with_layer(&pace(options.kube_api_qps, options.kube_api_burst))
        .with_layer(&Fence(leadership.gate().clone()))
        .build();
    let scopes: Vec<Option<String>> = match options.watch_namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let encoded = Arc::clone(&metrics);
    let awaited = scopes.iter().map(|scope| waited_for(scope.as_deref()));
    let probes = Probes::serve(options.addresses, awaited, move || encoded.encode())?;
    let readiness = &probes.readiness;
    // What opens the gate cannot pass it, and what a replica says of itself need not.
    let free = Client::try_from(config.clone()).map_err(StartError::Client)?;
    let definition = Arc::new(Definition::new(
        free.clone(),
        Arc::clone(readiness),
        shutdown.clone(),
    ));
    let looking = Arc::clone(&definition);
    let told = scopes.clone();
    tokio::spawn(async move { looking.watch(&told).await });
    let election = match options.leader_election.clone() {
        None => None,
        Some(election) => {
            let namespace = election
                .namespace
                .clone()
                .unwrap_or(config.default_namespace);
            let leases = Api::namespaced(free, &namespace);
            let election = Election::new(
                leases,
                election,
                Arc::clone(&leadership),
                Arc::clone(readiness),
                Arc::clone(&metrics),
            );
            let (definition, shutdown) = (Arc::clone(&definition), shutdown.clone());
            Some(tokio::spawn(async move {
                // Whoever cannot work leaves the Lease to a replica that can.
                definition.awaited().await;
                election.run(shutdown).await
            }))
        }
    };

    let registries = affix_registry::Options {
        observer: metrics.registries.clone(),
        write_gate: leadership.gate().clone(),
        ..options.registries.clone()
    };
    let registries = registries.without_server(api_server, &shutdown).await;
    let engine = Engine::new(Registries::new(registries), options.engine.clone());
    let gate = leadership.gate().clone();
    let patience = if election.is_some() { HANDOVER } else { DRAIN };
    let context = Arc::new(Context::new(
        client, engine, options, metrics, leadership, definition,
    ));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "affix started");
    let (mut stores, alarms) = (Stores::default(), Arc::new(Alarms::default()));
    let watches: Vec<_> = scopes
        .into_iter()
        .map(|scope| {
            let (store, writer) = reflector::store::<Stored>();
            stores.add(scope.as_deref(), store.clone());
            watch(
                scope.as_deref(),
                store,
                writer,
                &context,
                &alarms,
                readiness,
                &shutdown,
            )
        })
        .collect();
    let all = visit_all(
        context,
        stores,
        futures::stream::select_all(watches),
        alarms,
        shutdown.clone(),
    );
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(patience).await;
        // What has left already is waited for, so that it does not arrive in the middle of the next leader's work.
        gate.close();
        gate.settled(HANDOVER).await;
    };
    let ended = tokio::select! {
        _ = all => true,
        () = drained => false,
    };
    if let Some(election) = election
        && let Ok(election) = election.await
    {
        election.release().await;
    }
    if ended {
        tracing::info!("affix stopped");
    } else {
        tracing::warn!(
            "affix stopped with passes under way; they are taken up again by the next leader, or at the next start"
        );
    }
    Ok(())
}
