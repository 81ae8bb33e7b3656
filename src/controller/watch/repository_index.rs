//! The resources of a repository, for a resource that is about to remove an attachment.
//!
//! A controller that watches all namespaces and labels finds them in its cache. One that watches a part
//! (`--watch-namespaces`, `--watch-label-selector`) lists them from the API server, since an unwatched resource may need the
//! same attachment.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

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
}

impl RepositoryIndex {
    pub(crate) fn new(client: &Client, options: &Options) -> Self {
        Self {
            client: client.clone(),
            watched_namespaces: options.watch_namespaces.clone(),
            is_complete: options.watch_namespaces.is_empty()
                && options.watch_label_selector.is_none(),
            caches: Mutex::default(),
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

    /// Passes each resource that may name the repository of `reference` and is not being deleted, with its newest known status, to
    /// `map`, and returns the results. One whole resource is in memory at a time. Resources of other repositories may be among them;
    /// resources of other namespaces than `namespace` that keep no attachment are not.
    ///
    /// # Errors
    /// When a request to the API server fails.
    pub(crate) async fn find<T>(
        &self,
        reference: &Reference,
        namespace: Option<&str>,
        states: &ObjectStates,
        mut map: impl FnMut(ImageAttachment) -> Option<T>,
    ) -> Result<Vec<T>, ApiServerError> {
        let mut map = |object: ImageAttachment| {
            let is_deleted = object.metadata.deletion_timestamp.is_some();
            (!is_deleted).then(|| map(states.with_newest_status(object)))?
        };
        if !self.is_complete {
            return self.list(&mut map).await;
        }
        let mut found = Vec::new();
        for entry in self.cached(reference, namespace, states) {
            match object_read::load(&self.client, &entry).await {
                Ok(object) => found.extend(map(object)),
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
    async fn list<T>(
        &self,
        map: &mut impl FnMut(ImageAttachment) -> Option<T>,
    ) -> Result<Vec<T>, ApiServerError> {
        let all = self.list_pages(&Api::all(self.client.clone()), map).await;
        match all {
            Err(error) if error.code() == Some(403) && !self.watched_namespaces.is_empty() => {}
            all => return all,
        }
        let mut objects = Vec::new();
        for namespace in &self.watched_namespaces {
            let api = Api::namespaced(self.client.clone(), namespace);
            objects.extend(self.list_pages(&api, map).await?);
        }
        Ok(objects)
    }

    async fn list_pages<T>(
        &self,
        api: &Api<Guarded>,
        map: &mut impl FnMut(ImageAttachment) -> Option<T>,
    ) -> Result<Vec<T>, ApiServerError> {
        let mut objects = Vec::new();
        let mut params = ListParams::default().limit(PAGE_SIZE);
        loop {
            let page = with_timeout(api.list(&params)).await?;
            let parsed = page.items.into_iter().filter_map(|object| object.0.ok());
            objects.extend(parsed.filter_map(&mut *map));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }
}
