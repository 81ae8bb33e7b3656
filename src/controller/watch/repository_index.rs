//! The other resources, as far as somebody who is about to remove something must know them.
//!
//! An operator of all namespaces and labels has them in the store of its watch. One that watches a part (`--watch-namespaces`,
//! `--watch-label-selector`) asks the API server for all of them, since what it does not watch may want the same attachments.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;

use crate::api::ImageAttachment;
use affix_registry::oci::Reference;

use crate::controller::context::{ClusterError, Context};
use crate::controller::reconcile::object_state::Objects;
use crate::controller::watch::cache::Stored;

/// What a watch brings; what cannot be read is kept apart from what can.
pub(crate) type Guarded = DeserializeGuard<ImageAttachment>;
/// How many resources one answer of the API server brings.
const PAGE: u32 = 500;

/// The stores of the watches.
#[derive(Default)]
pub(crate) struct Neighbours(Mutex<Vec<Store<Stored>>>);

impl Neighbours {
    /// Adds the store of a watch.
    pub(crate) fn add(&self, store: Store<Stored>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(store);
    }

    /// The UIDs of all of them.
    fn uids(&self) -> HashSet<String> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores
            .iter()
            .flat_map(Store::state)
            .filter_map(|stored| stored.uid())
            .collect()
    }

    /// Those that may speak of the repository. What was written and has not come back yet may speak of another than the store knows.
    fn stored(&self, reference: &Reference, objects: &Objects) -> Vec<ImageAttachment> {
        let written = objects.written();
        let may = |stored: &Stored| {
            stored
                .summary()
                .is_some_and(|summary| summary.may_speak_of(reference))
                || stored.uid().is_some_and(|uid| written.contains(&uid))
        };
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores
            .iter()
            .flat_map(|store| store.state_filter(may))
            .filter_map(|stored| stored.object().ok())
            .collect()
    }
}

impl Context {
    /// Forgets what went while a watch was broken: nobody tells of it.
    pub(crate) fn forget_the_gone(&self) {
        self.objects.keep(&self.neighbours.uids());
    }

    /// Every resource that is not being deleted and may speak of the repository of `reference`, each with the newest status that this
    /// process knows of it; others may be among them.
    ///
    /// # Errors
    /// When the API server must be asked and does not answer.
    pub(crate) async fn neighbours(
        &self,
        reference: &Reference,
    ) -> Result<Vec<ImageAttachment>, ClusterError> {
        let whole =
            self.options.watch_namespaces.is_empty() && self.options.watch_label_selector.is_none();
        let all = if whole {
            self.neighbours.stored(reference, &self.objects)
        } else {
            self.listed().await?
        };
        let there = all
            .into_iter()
            .filter(|object| object.metadata.deletion_timestamp.is_none());
        Ok(there.map(|object| self.objects.freshest(object)).collect())
    }

    /// All namespaces where affix may list them; else those that it watches, which are then the world that it serves.
    async fn listed(&self) -> Result<Vec<ImageAttachment>, ClusterError> {
        match self.pages(Api::all(self.client.clone())).await {
            Err(ClusterError::Api(kube::Error::Api(answer)))
                if answer.code == 403 && !self.options.watch_namespaces.is_empty() =>
            {
                let mut all = Vec::new();
                for namespace in &self.options.watch_namespaces {
                    all.extend(
                        self.pages(Api::namespaced(self.client.clone(), namespace))
                            .await?,
                    );
                }
                Ok(all)
            }
            listed => listed,
        }
    }

    async fn pages(&self, api: Api<Guarded>) -> Result<Vec<ImageAttachment>, ClusterError> {
        let mut all = Vec::new();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = self.bounded(api.list(&params)).await?;
            all.extend(page.items.into_iter().filter_map(|object| object.0.ok()));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }
}
