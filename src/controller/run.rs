//! Start to end of the operator: servers, watches, and a clean stop on SIGTERM.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::ready;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use kube::client::ClientBuilder;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{self, Action, applier};
use kube::runtime::reflector;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::ImageAttachment;
use crate::engine::Engine;
use crate::registry::{self, Registries};
use crate::service::{self, Probes, Readiness, StartError, WatchFault};

use super::alarms::Alarms;
use super::context::Context;
use super::definition::Definition;
use super::fence::Fence;
use super::leadership::Leadership;
use super::lease::Election;
use super::metrics::{CountRequests, Metrics};
use super::options::Options;
use super::pace::pace;
use super::reconcile::{Begun, interesting, reconcile, uses};
use super::rotation;
use super::stored::Stored;

/// How long passes under way may take to end after SIGTERM; the kubelet's default grace period is 30 s.
const DRAIN: Duration = Duration::from_secs(25);
/// The same where another replica waits to go on with them: it has the work within 2 s.
const HANDOVER: Duration = Duration::from_millis(300);

/// How many resources an answer to the list brings. Each is several times as large on the wire and parsed as what is kept of it.
const PAGE: u32 = 100;

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
    let leadership = Arc::new(if options.leader_election.is_some() { Leadership::standby() } else { Leadership::alone() });
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
    let definition = Arc::new(Definition::new(free.clone(), Arc::clone(readiness), shutdown.clone()));
    let looking = Arc::clone(&definition);
    let told = scopes.clone();
    tokio::spawn(async move { looking.watch(&told).await });
    let election = match options.leader_election.clone() {
        None => None,
        Some(election) => {
            let namespace = election.namespace.clone().unwrap_or(config.default_namespace);
            let leases = Api::namespaced(free, &namespace);
            let election = Election::new(leases, election, Arc::clone(&leadership), Arc::clone(readiness), Arc::clone(&metrics));
            let (definition, shutdown) = (Arc::clone(&definition), shutdown.clone());
            Some(tokio::spawn(async move {
                // Whoever cannot work leaves the Lease to a replica that can.
                definition.awaited().await;
                election.run(shutdown).await
            }))
        }
    };

    let registries =
        registry::Options { observer: metrics.registries.clone(), write_gate: leadership.gate().clone(), ..options.registries.clone() };
    let registries = registries.without_server(api_server, &shutdown).await;
    let engine = Engine::new(Registries::new(registries), options.engine.clone());
    let gate = leadership.gate().clone();
    let patience = if election.is_some() { HANDOVER } else { DRAIN };
    let context = Arc::new(Context::new(client, engine, options, metrics, leadership, definition));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "affix started");
    let watches = scopes.into_iter().map(|scope| watch(scope, Arc::clone(&context), Arc::clone(readiness), shutdown.clone()));
    let all = futures::future::join_all(watches);
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
        tracing::warn!("affix stopped with passes under way; they are taken up again by the next leader, or at the next start");
    }
    Ok(())
}

fn waited_for(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "the list of imageattachments".to_owned(), |namespace| format!("the list of imageattachments in {namespace}"))
}

/// Watches one namespace, or all, and reconciles what it sees.
async fn watch(namespace: Option<String>, context: Arc<Context>, readiness: Arc<Readiness>, shutdown: CancellationToken) {
    let api: Api<DeserializeGuard<ImageAttachment>> = match &namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let mut selection = watcher::Config::default().page_size(PAGE);
    if let Some(labels) = &context.options.watch_label_selector {
        selection = selection.labels(labels);
    }
    let (store, writer) = reflector::store::<Stored>();
    context.neighbours.add(store.clone());
    context.metrics.resources.watch(store.clone(), Arc::clone(&context.leadership));
    let (forgetful, waiting) = (Arc::clone(&context), Arc::clone(&context));
    let alarms = Arc::new(Alarms::default());
    let deleted = Arc::clone(&alarms);
    let listed = CancellationToken::new();
    let (scope, seen, known) = (waited_for(namespace.as_deref()), listed.clone(), store.clone());
    let (awaiting, awaited) = (Arc::clone(&readiness), scope.clone());
    let touched = watcher(api, selection)
        .default_backoff()
        .map_ok(move |event| Stored::event(event, &known))
        .reflect(writer)
        .inspect_ok(move |event| match event {
            watcher::Event::Delete(object) => {
                deleted.cancel(object);
                forgetful.objects.forget(&object.uid().unwrap_or_default());
            }
            // Not by `Store::wait_until_ready`: it wakes only the last of several waiters, and the applier is one.
            watcher::Event::InitDone => {
                readiness.done(&scope);
                seen.cancel();
            }
            _ => {}
        })
        .applied_objects()
        .try_filter_map(move |object| {
            let uid = object.uid().unwrap_or_default();
            let changed = waiting.objects.saw(&uid, object.meta().resource_version.as_deref(), interesting(&object));
            if changed {
                waiting.objects.hurry(&uid);
            }
            ready(Ok(changed.then(|| object.key())))
        })
        .inspect_err(move |error| {
            let error = WatchFault::of(error);
            awaiting.because(&awaited, &error.to_string());
            tracing::warn!(%error, "the watch of imageattachments failed; trying again");
        })
        .filter_map(|seen| async { seen.ok().map(Ok::<_, watcher::Error>) });
    let changes = rotation::watch(&context.client, namespace.as_deref(), &shutdown);
    let changes = futures::stream::unfold(changes, |mut changes| async { Some((changes.recv().await?, changes)) });
    let (users, hurrying) = (store.clone(), Arc::clone(&context));
    let rotated = changes.flat_map(move |changed| {
        tracing::debug!(?changed, "what resources use has changed");
        let used = users.state().into_iter().filter(|object| uses(&hurrying, object, &changed));
        let used: Vec<_> = used
            .map(|object| {
                hurrying.objects.hurry(&object.uid().unwrap_or_default());
                Ok(object.key())
            })
            .collect();
        futures::stream::iter(used)
    });
    let due = futures::stream::unfold(Arc::clone(&alarms), |alarms| async move {
        let key = alarms.next().await;
        Some((Ok(key), alarms))
    });
    let touched = futures::stream::select(futures::stream::select(touched, rotated), due).take_until(shutdown.clone().cancelled_owned());
    let config = controller::Config::default();
    let visit = |object: Arc<Stored>, context| {
        alarms.cancel(&object);
        let (begun, alarms, visited) = (Begun::with(&object, context), Arc::clone(&alarms), Arc::clone(&object));
        Box::pin(reconcile(object, begun).map(move |next| {
            if let Some(next) = next.and_then(|next| Instant::now().checked_add(next)) {
                alarms.set(&visited, next);
            }
            Ok::<_, Infallible>(Action::await_change())
        }))
    };
    let passes = applier(visit, |_, never, _| match *never {}, context, store, touched, config).for_each(|result| async move {
        if let Err(error) = result {
            tracing::debug!(%error, "a visit did not take place");
        }
    });
    // The applier ends with its last pass, but waits for the first list even when there will be none.
    let never_listed = async {
        shutdown.cancelled().await;
        if listed.is_cancelled() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = passes => {}
        () = never_listed => {}
    }
}
