//! The resources of a repository, for a resource that is about to remove an attachment.
//!
//! A controller that watches all namespaces and labels finds them in its cache. One that watches a part
//! (`--watch-namespaces`, `--watch-label-selector`) lists them from the API server, since an unwatched resource may need the
//! same attachment.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};

use crate::api::ImageAttachment;
use crate::controller::api_server::{ApiServerError, with_timeout};
use crate::controller::options::Options;
use crate::controller::reconcile::object_state::ObjectStates;
use crate::controller::watch::cache::{CacheEntry, Summary};
use affix_registry::oci::Reference;

/// An object of a list. An invalid one does not fail the list.
type Guarded = DeserializeGuard<ImageAttachment>;
/// The number of resources in one page of a list.
const PAGE_SIZE: u32 = 500;

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

    /// Returns the resources that may name the repository of `reference` and are not being deleted, each with its newest known
    /// status. The result may contain resources of other repositories.
    ///
    /// # Errors
    /// When the resources have to be listed and the request fails.
    pub(crate) async fn find(
        &self,
        reference: &Reference,
        states: &ObjectStates,
    ) -> Result<Vec<ImageAttachment>, ApiServerError> {
        let mut objects = if self.is_complete {
            self.cached(reference, states)
        } else {
            self.list().await?
        };
        objects.retain(|object| object.metadata.deletion_timestamp.is_none());
        Ok(objects
            .into_iter()
            .map(|object| states.with_newest_status(object))
            .collect())
    }

    /// Finds resources in the caches. A status that was written and not yet watched may name another repository than the
    /// cached one, so its resource is included.
    fn cached(&self, reference: &Reference, states: &ObjectStates) -> Vec<ImageAttachment> {
        let written = states.written();
        let may_name = |summary: &Summary| summary.may_name_repository(reference);
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = caches.iter().flat_map(|cache| {
            cache.state_filter(|entry| {
                entry.summary().is_some_and(may_name)
                    || entry.uid().is_some_and(|uid| written.contains(&uid))
            })
        });
        entries.filter_map(|entry| entry.object().ok()).collect()
    }

    /// Lists all namespaces, or, if that is forbidden, the watched ones.
    async fn list(&self) -> Result<Vec<ImageAttachment>, ApiServerError> {
        let all = self.list_pages(&Api::all(self.client.clone())).await;
        match all {
            Err(error) if error.code() == Some(403) && !self.watched_namespaces.is_empty() => {}
            all => return all,
        }
        let mut objects = Vec::new();
        for namespace in &self.watched_namespaces {
            let api = Api::namespaced(self.client.clone(), namespace);
            objects.extend(self.list_pages(&api).await?);
        }
        Ok(objects)
    }

    async fn list_pages(&self, api: &Api<Guarded>) -> Result<Vec<ImageAttachment>, ApiServerError> {
        let mut objects = Vec::new();
        let mut params = ListParams::default().limit(PAGE_SIZE);
        loop {
            let page = with_timeout(api.list(&params)).await?;
            objects.extend(page.items.into_iter().filter_map(|object| object.0.ok()));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }
}
