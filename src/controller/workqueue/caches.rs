//! The caches of the watches, by kind and namespace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::Store;

use crate::controller::sets::entry::SetEntry;
use crate::controller::sets::watch as set_watch;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::resource_name::{Kind, ResourceName};
use crate::controller::watch::triggers;
use crate::controller::workqueue::flow::Flow;

/// The caches of the watches: of each kind one for all namespaces, or one for each watched namespace.
#[derive(Default)]
pub(crate) struct Caches {
    attachments: HashMap<Option<Box<str>>, Store<CacheEntry>>,
    sets: HashMap<Option<Box<str>>, Store<SetEntry>>,
}

/// A resource in a cache.
pub(crate) enum Entry {
    Attachment(Arc<CacheEntry>),
    Set(Arc<SetEntry>),
}

impl Caches {
    /// Adds the caches of one namespace, or of all.
    pub(crate) fn add(
        &mut self,
        namespace: Option<&str>,
        attachments: Store<CacheEntry>,
        sets: Store<SetEntry>,
    ) {
        self.attachments
            .insert(namespace.map(Into::into), attachments);
        self.sets.insert(namespace.map(Into::into), sets);
    }

    pub(crate) fn get(&self, name: &ResourceName) -> Option<Entry> {
        match name.kind() {
            Kind::Attachment => self.attachment(name).map(Entry::Attachment),
            Kind::Set => find(&self.sets, name).map(Entry::Set),
        }
    }

    pub(crate) fn attachment(&self, name: &ResourceName) -> Option<Arc<CacheEntry>> {
        find(&self.attachments, name)
    }

    /// Waits for the first list of the attachments in the namespace of a set. Before it, the children of the set are unknown.
    pub(crate) async fn attachments_listed(&self, set: &ResourceName) {
        if let Some(cache) = scope(&self.attachments, set) {
            // The writer is dropped only when the process ends.
            drop(cache.wait_until_ready().await);
        }
    }
}

fn find<K>(caches: &HashMap<Option<Box<str>>, Store<K>>, name: &ResourceName) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    scope(caches, name)?.get(&name.object_ref())
}

/// Returns the cache that has the namespace of a resource.
fn scope<'a, K>(
    caches: &'a HashMap<Option<Box<str>>, Store<K>>,
    name: &ResourceName,
) -> Option<&'a Store<K>>
where
    K: Resource<DynamicType = ()>,
{
    caches.get(name.namespace()).or_else(|| caches.get(&None))
}

impl Entry {
    pub(crate) fn namespace(&self) -> &str {
        let meta = match self {
            Self::Attachment(entry) => entry.meta(),
            Self::Set(entry) => entry.meta(),
        };
        meta.namespace.as_deref().unwrap_or_default()
    }

    /// Returns the flow of the resource if it is due without a change.
    pub(crate) fn flow(&self) -> Flow {
        match self {
            Self::Attachment(entry) => triggers::flow(entry, false),
            Self::Set(entry) => set_watch::flow(entry, false),
        }
    }

    /// Returns the longest time for which a resource that is being deleted waits in the queue.
    pub(crate) fn longest_wait(&self, deletion_timeout: Duration) -> Option<Duration> {
        match self {
            Self::Attachment(entry) => triggers::longest_wait(entry, deletion_timeout),
            Self::Set(_) => None,
        }
    }
}
