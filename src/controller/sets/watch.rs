//! The watch of sets, and the stream of sets whose children have changed.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource as _};

use crate::controller::context::Context;
use crate::controller::reconcile::object_state::Change;
use crate::controller::sets::entry::SetEntry;
use crate::controller::watch::resource_watch::WatchEvent;
use crate::controller::watch::secret_watch::ChangedSource;
use crate::controller::workqueue::flow::Flow;
use crate::service::{Readiness, WatchFault, watch_backoff};
use affix_registry::Priority;

/// The number of sets in one page of a list. A page is in memory at once, and a set can have 1.5 MB.
const PAGE_SIZE: u32 = 16;

/// Returns the readiness check of a watch: its first list.
pub(crate) fn readiness_check(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("the list of imageattachmentsets in {namespace}"),
        None => "the list of imageattachmentsets".to_owned(),
    }
}

/// Watches the sets of one namespace, or of all.
pub(crate) fn watch(
    namespace: Option<&str>,
    cache: Store<SetEntry>,
    writer: Writer<SetEntry>,
    context: &Arc<Context>,
    readiness: &Arc<Readiness>,
) -> BoxStream<'static, WatchEvent> {
    let api: Api<SetEntry> = match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let mut config = watcher::Config::default().page_size(PAGE_SIZE);
    if let Some(labels) = &context.options.watch_label_selector {
        config = config.labels(labels);
    }
    let leadership = Arc::clone(&context.leadership);
    context.metrics.sets.add(cache.clone(), leadership);
    let mut handler = EventHandler {
        readiness_check: readiness_check(namespace),
        namespace: namespace.map(Into::into),
        cache,
        context: Arc::clone(context),
        readiness: Arc::clone(readiness),
        listed: Vec::new(),
        last_error: String::new(),
    };
    watcher(api, config)
        .backoff(watch_backoff())
        .reflect(writer)
        .flat_map(move |event| stream::iter(handler.handle(event)))
        .boxed()
}

/// Returns the sets whose children have changed.
pub(crate) fn changed_children(context: &Arc<Context>) -> BoxStream<'static, WatchEvent> {
    stream::unfold(Arc::clone(context), |context| async {
        let changed = context.sets.changed().await;
        Some((stream::iter(changed), context))
    })
    .flatten()
    .map(|name| {
        let flow = Flow::unlimited(name.namespace().as_deref().unwrap_or_default());
        WatchEvent::Changed(Arc::new(name), flow, None)
    })
    .boxed()
}

/// Returns the sets that use a changed Secret.
pub(crate) fn users(cache: &Store<SetEntry>, changed: &ChangedSource) -> Vec<WatchEvent> {
    let uses = |entry: &SetEntry| {
        entry.meta().namespace.as_deref() == Some(changed.namespace.as_str())
            && entry
                .summary()
                .is_some_and(|summary| summary.may_reference(changed.kind, &changed.name))
    };
    let users = cache.state_filter(uses);
    users.iter().map(|entry| event(entry, true)).collect()
}

/// Returns the flow of a set in the work queue: that of its first registry. `has_changed`: the set has changed.
pub(crate) fn flow(entry: &SetEntry, has_changed: bool) -> Flow {
    let namespace = entry.meta().namespace.as_deref().unwrap_or_default();
    let Some(summary) = entry.summary() else {
        return Flow::unlimited(namespace);
    };
    if entry.meta().deletion_timestamp.is_some() {
        return Flow::unlimited(namespace);
    }
    let priority = if has_changed || summary.is_pending {
        Priority::Interactive
    } else {
        Priority::Background
    };
    Flow::to_host(priority, namespace, &summary.host).for_size(summary.size)
}

fn event(entry: &SetEntry, has_changed: bool) -> WatchEvent {
    WatchEvent::Changed(Arc::new(entry.name()), flow(entry, has_changed), None)
}

/// Turns the events of one watch into events for the work queue.
struct EventHandler {
    readiness_check: String,
    namespace: Option<Box<str>>,
    cache: Store<SetEntry>,
    context: Arc<Context>,
    readiness: Arc<Readiness>,
    /// The events of a list. They wait for its end.
    listed: Vec<WatchEvent>,
    /// The last error that was logged. An outage is logged once, not at each attempt.
    last_error: String,
}

impl EventHandler {
    fn handle(&mut self, event: watcher::Result<Event<SetEntry>>) -> Vec<WatchEvent> {
        let sets = &self.context.sets;
        match event {
            Ok(Event::Apply(entry)) => match self.observe(&entry) {
                Change::None => Vec::new(),
                Change::New | Change::Trigger => vec![self::event(&entry, true)],
            },
            Ok(Event::InitApply(entry)) => {
                match self.observe(&entry) {
                    Change::None => {}
                    change => self
                        .listed
                        .push(self::event(&entry, change == Change::Trigger)),
                }
                Vec::new()
            }
            Ok(Event::InitDone) => {
                self.readiness.done(&self.readiness_check);
                self.last_error.clear();
                // No event reports the sets that were deleted while the watch was interrupted.
                sets.retain(|set| {
                    let is_other = self.namespace.is_some() && *set.namespace() != self.namespace;
                    is_other || self.cache.get(&set.object_ref()).is_some()
                });
                let uids = self.context.metrics.sets.uids();
                self.context.set_quotas.retain(&uids);
                std::mem::take(&mut self.listed)
            }
            Ok(Event::Init) => {
                // A list begins, perhaps of sets that another CRD has pruned.
                self.context.set_crd_check.invalidate();
                Vec::new()
            }
            Ok(Event::Delete(entry)) => {
                self.context.set_quotas.remove(entry.meta());
                sets.remove(&entry.name());
                vec![WatchEvent::Deleted(entry.name())]
            }
            Err(error) => {
                let fault = WatchFault::of(&error);
                let text = fault.to_string();
                self.readiness.because(&self.readiness_check, &text);
                if fault.is_refusal() || fault.is_unknown() {
                    // Attachments do not need the sets.
                    self.readiness.wait_no_longer(&self.readiness_check);
                }
                if text != self.last_error {
                    tracing::warn!(
                        error = text,
                        "watch of imageattachmentsets failed; retrying"
                    );
                    self.last_error = text;
                }
                Vec::new()
            }
        }
    }

    fn observe(&self, entry: &SetEntry) -> Change {
        let size = entry.summary().map(|summary| summary.size);
        self.context.set_quotas.observe(entry.meta(), size);
        self.context.sets.observe(entry)
    }
}
