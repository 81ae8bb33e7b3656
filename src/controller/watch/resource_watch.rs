//! The watch of resources, and of what they use: who is to be visited, and how urgently.

use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::api::ImageAttachment;
use crate::service::{Readiness, WatchFault};

use crate::controller::context::Context;
use crate::controller::reconcile::object_state::Seen;
use crate::controller::reconcile::reconciler::{interesting, line_of, uses};
use crate::controller::watch::cache::Stored;
use crate::controller::watch::secret_watch;
use crate::controller::workqueue::alarms::Alarms;
use crate::controller::workqueue::worker::Arrival;

/// How many resources an answer to the list brings. Each is several times as large on the wire and parsed as what is kept of it.
const PAGE: u32 = 100;

/// What a process whose watch of a namespace, or of all, has not listed yet says that it waits for.
pub(crate) fn waited_for(namespace: Option<&str>) -> String {
    namespace.map_or_else(
        || "the list of imageattachments".to_owned(),
        |namespace| format!("the list of imageattachments in {namespace}"),
    )
}

/// Watches one namespace, or all: its resources, and what they use.
pub(crate) fn watch(
    namespace: Option<&str>,
    store: Store<Stored>,
    writer: Writer<Stored>,
    context: &Arc<Context>,
    alarms: &Arc<Alarms>,
    readiness: &Arc<Readiness>,
    shutdown: &CancellationToken,
) -> BoxStream<'static, Arrival> {
    let api: Api<DeserializeGuard<ImageAttachment>> = match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let mut selection = watcher::Config::default().page_size(PAGE);
    if let Some(labels) = &context.options.watch_label_selector {
        selection = selection.labels(labels);
    }
    context.neighbours.add(store.clone());
    context
        .metrics
        .resources
        .watch(store.clone(), Arc::clone(&context.leadership));
    let mut seen = Sight {
        scope: waited_for(namespace),
        context: Arc::clone(context),
        alarms: Arc::clone(alarms),
        readiness: Arc::clone(readiness),
        listed: Vec::new(),
    };
    let known = store.clone();
    let touched = watcher(api, selection)
        .default_backoff()
        .map_ok(move |event| Stored::event(event, &known))
        .reflect(writer)
        .flat_map(move |event| stream::iter(seen.take_in(event)));
    let changes = secret_watch::watch(&context.client, namespace, shutdown);
    let changes = stream::unfold(changes, |mut changes| async {
        Some((changes.recv().await?, changes))
    });
    let context = Arc::clone(context);
    let rotated = changes.flat_map(move |changed| {
        tracing::debug!(?changed, "what resources use has changed");
        let users = store
            .state()
            .into_iter()
            .filter(|object| uses(&context, object, &changed));
        stream::iter(
            users
                .map(|object| arrival(&object, true))
                .collect::<Vec<_>>(),
        )
    });
    stream::select(touched, rotated).boxed()
}

/// What one watch of resources has brought so far.
struct Sight {
    scope: String,
    context: Arc<Context>,
    alarms: Arc<Alarms>,
    readiness: Arc<Readiness>,
    /// What a list has brought: it waits for the end of the list, since a visit asks what other resources say.
    listed: Vec<Arrival>,
}

impl Sight {
    /// What is to be visited now.
    fn take_in(&mut self, event: watcher::Result<Event<Stored>>) -> Vec<Arrival> {
        match event {
            Ok(Event::Apply(object)) => self
                .saw(&object)
                .map(|_| arrival(&object, true))
                .into_iter()
                .collect(),
            Ok(Event::InitApply(object)) => {
                let arrived = self
                    .saw(&object)
                    .map(|seen| arrival(&object, seen == Seen::Changed));
                self.listed.extend(arrived);
                Vec::new()
            }
            Ok(Event::InitDone) => {
                self.readiness.done(&self.scope);
                self.context.forget_the_gone();
                std::mem::take(&mut self.listed)
            }
            Ok(Event::Init) => Vec::new(),
            Ok(Event::Delete(object)) => {
                self.alarms.cancel(&object.name());
                self.context
                    .objects
                    .forget(&object.uid().unwrap_or_default());
                Vec::new()
            }
            Err(error) => {
                let error = WatchFault::of(&error);
                self.readiness.because(&self.scope, &error.to_string());
                tracing::warn!(%error, "the watch of imageattachments failed; trying again");
                Vec::new()
            }
        }
    }

    /// Whether it is new, or has changed in what a visit depends on.
    fn saw(&self, object: &Stored) -> Option<Seen> {
        let (uid, version) = (
            object.uid().unwrap_or_default(),
            object.meta().resource_version.as_deref(),
        );
        Some(self.context.objects.saw(&uid, version, interesting(object)))
            .filter(|seen| *seen != Seen::Same)
    }
}

fn arrival(object: &Stored, hurried: bool) -> Arrival {
    (Arc::new(object.name()), line_of(object, hurried))
}
