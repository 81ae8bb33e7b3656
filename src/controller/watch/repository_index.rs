//! The resources of a repository, for a resource that is about to remove an attachment.
//!
//! A controller that watches all namespaces and labels finds them in its cache. One that watches a part
//! (`--watch-namespaces`, `--watch-label-selector`) lists them from the API server, since an unwatched resource may need the
//! same attachment.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use kube::{Client, Resource as _, ResourceExt as _};

use crate::api::ImageAttachment;
use crate::controller::api_server::{ApiServerError, with_timeout};
use crate::controller::options::Options;
use crate::controller::reconcile::object_read::{self, ReadError};
use crate::controller::reconcile::object_state::ObjectStates;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::claimant::Claimant;
use affix_registry::oci::Reference;

/// An object of a list. An invalid one does not fail the list.
type Guarded = DeserializeGuard<ImageAttachment>;
/// The number of resources in one page of a list. A page is in memory at once, and a resource can have 1.5 MB.
const PAGE_SIZE: u32 = 16;

/// The resources by repository.
pub(crate) struct RepositoryIndex {
    client: Client,
    watched_namespaces: Vec<String>,
    /// The caches hold the resources of the whole cluster.
    is_complete: bool,
    caches: Mutex<Vec<Store<CacheEntry>>>,
    lists: SharedList,
}

/// The last list from the API server. Passes that remove attachments at the same time share one: each waits for a list that began after it
/// asked.
#[derive(Default)]
struct SharedList {
    waiting: AtomicUsize,
    last: tokio::sync::Mutex<Option<(Instant, Vec<Arc<Claimant>>)>>,
}

impl SharedList {
    /// Returns a list that began after this call. It stays in memory only while other calls wait for one.
    async fn get<E>(
        &self,
        list: impl AsyncFnOnce() -> Result<Vec<Arc<Claimant>>, E>,
    ) -> Result<Vec<Arc<Claimant>>, E> {
        let asked = Instant::now();
        let waiting = Waiting::new(self);
        let mut last = self.last.lock().await;
        drop(waiting);
        let (began, list) = match last.take() {
            Some((began, list)) if began > asked => (began, list),
            _ => (Instant::now(), list().await?),
        };
        if self.waiting.load(Ordering::SeqCst) > 0 {
            *last = Some((began, list.clone()));
        }
        Ok(list)
    }
}

/// Counts a call that waits for a list. The last list goes with the last of them.
struct Waiting<'a>(&'a SharedList);

impl<'a> Waiting<'a> {
    fn new(lists: &'a SharedList) -> Self {
        lists.waiting.fetch_add(1, Ordering::SeqCst);
        Self(lists)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let is_last = self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
        // A call that holds the lock sees the count.
        if is_last && let Ok(mut last) = self.0.last.try_lock() {
            *last = None;
        }
    }
}

impl RepositoryIndex {
    pub(crate) fn new(client: &Client, options: &Options) -> Self {
        Self {
            client: client.clone(),
            watched_namespaces: options.watch_namespaces.clone(),
            is_complete: options.watch_namespaces.is_empty()
                && options.watch_label_selector.is_none(),
            caches: Mutex::default(),
            lists: SharedList::default(),
        }
    }

    /// Adds the cache of a watch.
    pub(crate) fn add(&self, cache: Store<CacheEntry>) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.push(cache);
    }

    /// Returns the UIDs of all cached resources.
    pub(crate) fn uids(&self) -> HashSet<String> {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = caches.iter().flat_map(Store::state);
        entries.filter_map(|entry| entry.uid()).collect()
    }

    /// Returns the claims of each resource that may name the repository of `reference` and is not being deleted, by its newest known status.
    /// One whole resource is in memory at a time. Resources of other repositories may be among them; resources of other namespaces than
    /// `namespace` that keep no attachment are not.
    ///
    /// # Errors
    /// When a request to the API server fails.
    pub(crate) async fn find(
        &self,
        reference: &Reference,
        namespace: Option<&str>,
        states: &ObjectStates,
    ) -> Result<Vec<Arc<Claimant>>, ApiServerError> {
        if !self.is_complete {
            return self.lists.get(async || self.list(states).await).await;
        }
        let mut found = Vec::new();
        for entry in self.cached(reference, namespace, states) {
            match object_read::load(&self.client, &entry).await {
                Ok(object) => found.extend(claimant(object, states)),
                Err(ReadError::Invalid(_) | ReadError::ApiServer(ApiServerError::ResourceGone)) => {
                }
                Err(ReadError::ApiServer(error)) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Finds resources in the caches. A status that was written and not yet watched may name another repository than the
    /// cached one, so its resource is included.
    fn cached(
        &self,
        reference: &Reference,
        namespace: Option<&str>,
        states: &ObjectStates,
    ) -> Vec<Arc<CacheEntry>> {
        let written = states.written();
        let is_near = |entry: &CacheEntry| entry.meta().namespace.as_deref() == namespace;
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = caches.iter().flat_map(|cache| {
            cache.state_filter(|entry| {
                entry.summary().is_some_and(|summary| {
                    summary.may_name_repository(reference) && (summary.may_keep || is_near(entry))
                }) || entry.uid().is_some_and(|uid| written.contains(&uid))
            })
        });
        entries.collect()
    }

    /// Lists all namespaces, or, if that is forbidden, the watched ones.
    async fn list(&self, states: &ObjectStates) -> Result<Vec<Arc<Claimant>>, ApiServerError> {
        let all = self
            .list_pages(&Api::all(self.client.clone()), states)
            .await;
        match all {
            Err(error) if error.code() == Some(403) && !self.watched_namespaces.is_empty() => {}
            all => return all,
        }
        let mut found = Vec::new();
        for namespace in &self.watched_namespaces {
            let api = Api::namespaced(self.client.clone(), namespace);
            found.extend(self.list_pages(&api, states).await?);
        }
        Ok(found)
    }

    async fn list_pages(
        &self,
        api: &Api<Guarded>,
        states: &ObjectStates,
    ) -> Result<Vec<Arc<Claimant>>, ApiServerError> {
        let mut found = Vec::new();
        let mut params = ListParams::default().limit(PAGE_SIZE);
        loop {
            let page = with_timeout(api.list(&params)).await?;
            let parsed = page.items.into_iter().filter_map(|object| object.0.ok());
            found.extend(parsed.filter_map(|object| claimant(object, states)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }
}

/// Returns the claims of a resource by its newest known status, or `None` if it is being deleted.
fn claimant(object: ImageAttachment, states: &ObjectStates) -> Option<Arc<Claimant>> {
    let is_deleted = object.metadata.deletion_timestamp.is_some();
    (!is_deleted).then(|| Arc::new(Claimant::of(&states.with_newest_status(object))))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::convert::Infallible;

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn calls_during_a_list_share_the_next_one() {
        let (lists, counter, gate) = (
            SharedList::default(),
            AtomicUsize::new(0),
            Semaphore::new(0),
        );
        let list = || {
            lists.get(async || {
                counter.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Vec::new())
            })
        };
        let calls = join_all((0..10).map(|_| list()));
        let release = async {
            while lists.waiting.load(Ordering::SeqCst) < 9 {
                tokio::task::yield_now().await;
            }
            gate.add_permits(2);
        };
        tokio::join!(calls, release);
        assert_eq!(counter.load(Ordering::SeqCst), 2);
        // A later call gets a list of its own, and nothing stays in memory.
        gate.add_permits(1);
        list().await.unwrap();
        assert_eq!(counter.load(Ordering::SeqCst), 3);
        assert!(lists.last.lock().await.is_none());
    }

    #[tokio::test]
    async fn a_call_that_ends_while_it_waits_leaves_no_list_behind() {
        let (lists, gate) = (SharedList::default(), Semaphore::new(0));
        let list = || {
            lists.get(async || {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Vec::new())
            })
        };
        let mut first = Box::pin(list());
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(list());
        assert!(futures::poll!(&mut second).is_pending());
        gate.add_permits(1);
        first.await.unwrap();
        assert!(lists.last.try_lock().is_err() || lists.last.lock().await.is_some());
        drop(second);
        assert!(lists.last.lock().await.is_none());
    }
}
