//! The watch of resources, and of the Secrets and ConfigMaps that they reference.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::controller::context::Context;
use crate::controller::reconcile::object_state::Change;
use crate::controller::sets::entry::SetEntry;
use crate::controller::sets::watch as set_watch;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::resource_name::ResourceName;
use crate::controller::watch::secret_watch;
use crate::controller::watch::triggers::{flow, longest_wait, trigger_hash, uses};
use crate::controller::workqueue::flow::Flow;
use crate::service::{Readiness, WatchFault, watch_backoff};

/// The number of resources in one page of a list. A page is in memory at once, and a resource can have 1.5 MB.
const PAGE_SIZE: u32 = 16;

/// An event for the work queue.
pub(crate) enum WatchEvent {
    /// The resource needs a reconcile. A resource that is being deleted waits in the queue for this time at most.
    Changed(Arc<ResourceName>, Flow, Option<Duration>),
    /// The resource is gone.
    Deleted(ResourceName),
}

/// Returns the readiness check of a watch: its first list.
pub(crate) fn readiness_check(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("the list of imageattachments in {namespace}"),
        None => "the list of imageattachments".to_owned(),
    }
}

/// Watches the resources of one namespace, or of all, and the objects that they reference.
pub(crate) fn watch(
    namespace: Option<&str>,
    (cache, writer): (Store<CacheEntry>, Writer<CacheEntry>),
    sets: Store<SetEntry>,
    context: &Arc<Context>,
    readiness: &Arc<Readiness>,
    shutdown: &CancellationToken,
) -> BoxStream<'static, WatchEvent> {
    let api: Api<CacheEntry> = match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let mut config = watcher::Config::default().page_size(PAGE_SIZE);
    if let Some(labels) = &context.options.watch_label_selector {
        config = config.labels(labels);
    }
    context.repositories.add(cache.clone());
    let leadership = Arc::clone(&context.leadership);
    context.metrics.resources.add(cache.clone(), leadership);
    let mut handler = EventHandler {
        readiness_check: readiness_check(namespace),
        namespace: namespace.map(Into::into),
        cache: cache.clone(),
        context: Arc::clone(context),
        readiness: Arc::clone(readiness),
        listed: Vec::new(),
        last_error: String::new(),
    };
    let known = cache.clone();
    let resources = watcher(api, config)
        .backoff(watch_backoff())
        .map_ok(move |event| CacheEntry::from_event(event, &known))
        .reflect(writer)
        .flat_map(move |event| stream::iter(handler.handle(event)));
    let changes = secret_watch::watch(&context.client, namespace, shutdown);
    let changes = stream::unfold(changes, |mut changes| async {
        Some((changes.recv().await?, changes))
    });
    let context = Arc::clone(context);
    let references = changes.flat_map(move |source| {
        tracing::debug!(
            namespace = source.namespace,
            name = source.name,
            resource = source.kind.plural(),
            "referenced object changed"
        );
        let users = cache.state_filter(|entry| uses(&context.states, entry, &source));
        let changed = |entry: &Arc<CacheEntry>| event(entry, true, &context);
        let mut events: Vec<_> = users.iter().map(changed).collect();
        events.extend(set_watch::users(&sets, &source));
        stream::iter(events)
    });
    stream::select(resources, references).boxed()
}

/// Turns the events of one watch into events for the work queue.
struct EventHandler {
    readiness_check: String,
    namespace: Option<Box<str>>,
    cache: Store<CacheEntry>,
    context: Arc<Context>,
    readiness: Arc<Readiness>,
    /// The events of a list. They wait for its end, since a reconcile needs the other resources too.
    listed: Vec<WatchEvent>,
    /// The last error that was logged. An outage is logged once, not at each attempt.
    last_error: String,
}

impl EventHandler {
    fn handle(&mut self, event: watcher::Result<Event<CacheEntry>>) -> Vec<WatchEvent> {
        match event {
            Ok(Event::Apply(entry)) => match self.observe(&entry) {
                Change::None => Vec::new(),
                Change::New | Change::Trigger => vec![self::event(&entry, true, &self.context)],
            },
            Ok(Event::InitApply(entry)) => {
                match self.observe(&entry) {
                    Change::None => {}
                    change => {
                        let has_changed = change == Change::Trigger;
                        let event = self::event(&entry, has_changed, &self.context);
                        self.listed.push(event);
                    }
                }
                Vec::new()
            }
            Ok(Event::InitDone) => {
                self.readiness.done(&self.readiness_check);
                self.last_error.clear();
                // No event reports the resources that were deleted while the watch was interrupted.
                let uids = self.context.repositories.uids();
                self.context.states.retain(&uids);
                self.context.quotas.retain(&uids);
                self.context.sets.retain_children(|child| {
                    let is_other = self.namespace.is_some() && *child.namespace() != self.namespace;
                    is_other || self.cache.get(&child.object_ref()).is_some()
                });
                std::mem::take(&mut self.listed)
            }
            Ok(Event::Init) => {
                // A list begins, perhaps of objects that another CRD has pruned.
                self.context.crd_check.invalidate();
                Vec::new()
            }
            Ok(Event::Delete(entry)) => {
                self.context.quotas.remove(entry.meta());
                self.context.sets.remove_child(&entry);
                self.context.states.remove(&entry.uid().unwrap_or_default());
                vec![WatchEvent::Deleted(entry.name())]
            }
            Err(error) => {
                let error = WatchFault::of(&error).to_string();
                self.readiness.because(&self.readiness_check, &error);
                if error != self.last_error {
                    tracing::warn!(error, "watch of imageattachments failed; retrying");
                    self.last_error = error;
                }
                Vec::new()
            }
        }
    }

    fn observe(&self, entry: &CacheEntry) -> Change {
        let size = entry.summary().map(|summary| summary.size);
        self.context.quotas.observe(entry.meta(), size);
        let change = self.context.states.observe(
            &entry.uid().unwrap_or_default(),
            entry.meta().resource_version.as_deref(),
            trigger_hash(entry),
        );
        self.context.sets.observe_child(entry, change);
        change
    }
}

fn event(entry: &CacheEntry, has_changed: bool, context: &Context) -> WatchEvent {
    let timeout = context.options.deletion_timeout;
    WatchEvent::Changed(
        Arc::new(entry.name()),
        flow(entry, has_changed),
        longest_wait(entry, timeout),
    )
}
