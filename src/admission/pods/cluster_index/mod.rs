//! An in-memory index of the cluster: the end-of-life dates in the status of ImageAttachments, and the labels of
//! namespaces.
//!
//! Two watches keep the index current, so a review normally sends no request to the API server.

mod attachments;
mod namespaces;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use futures::future::join_all;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};

use self::attachments::{AttachmentIndex, ListedAttachment};
use self::namespaces::NamespaceIndex;
use self::watch::WatchedList;
use crate::engine::LifecycleType;
use crate::service::{Readiness, watch_backoff};
use affix_registry::oci::{Digest, Reference};
use k8s_openapi::api::core::v1::Namespace;

pub(crate) use self::attachments::IndexedReports;
pub(crate) use self::namespaces::{END_OF_LIFE, EndOfLifeMode, NamespacePolicy, RESOLVE_DIGESTS};

/// The number of ImageAttachments in one page of a list. A page is in memory at once, and a resource can have 1.5 MB.
const ATTACHMENTS_PAGE_SIZE: u32 = 16;
/// The number of namespaces in one page of a list. The annotations of each can have 256 KiB.
const NAMESPACES_PAGE_SIZE: u32 = 50;

/// Both indexes and the watches that feed them.
pub(crate) struct ClusterIndex {
    client: Client,
    attachments: AttachmentIndex,
    namespaces: NamespaceIndex,
    /// The namespaces whose ImageAttachments are watched. `None`: all.
    scopes: Vec<Option<String>>,
}

impl ClusterIndex {
    pub(crate) fn new(
        client: Client,
        types: Vec<LifecycleType>,
        trusted: Vec<String>,
        scopes: Vec<Option<String>>,
    ) -> Self {
        Self {
            attachments: AttachmentIndex::new(types, trusted),
            namespaces: NamespaceIndex::new(client.clone()),
            scopes,
            client,
        }
    }

    /// Runs both watches forever. Each completed list is reported to `readiness`.
    pub(crate) async fn run_watches(&self, readiness: &Readiness) {
        let namespaces = Api::all(self.client.clone());
        let namespaces = || {
            let config = watcher::Config::default().page_size(NAMESPACES_PAGE_SIZE);
            watcher::<PartialObjectMeta<Namespace>>(namespaces.clone(), config)
                .backoff(watch_backoff())
        };
        let attachments = self
            .scopes
            .iter()
            .map(|scope| self.watch_attachments(scope.as_deref(), readiness));
        tokio::join!(
            join_all(attachments),
            WatchedList::Namespaces.run(namespaces, readiness, |event| self
                .namespaces
                .on_event(event)),
            watch::limit_startup_wait(readiness, &self.scopes),
        );
    }

    /// Watches the ImageAttachments of a namespace, or of all with `None`, forever.
    async fn watch_attachments(&self, scope: Option<&str>, readiness: &Readiness) {
        let client = self.client.clone();
        let api = scope.map_or_else(
            || Api::all(client.clone()),
            |scope| Api::namespaced(client.clone(), scope),
        );
        let watch = || {
            let config = watcher::Config::default().page_size(ATTACHMENTS_PAGE_SIZE);
            watcher::<ListedAttachment>(api.clone(), config).backoff(watch_backoff())
        };
        WatchedList::ImageAttachments(scope)
            .run(watch, readiness, |event| {
                self.attachments.on_event_in(scope, event);
            })
            .await;
    }

    /// Returns the lifecycle reports on an image that apply to a pod of `namespace`.
    pub(crate) fn reports(
        &self,
        reference: &Reference,
        digest: &Digest,
        namespace: &str,
    ) -> IndexedReports {
        self.attachments.reports(reference, digest, namespace)
    }

    /// Returns the policy of a namespace, or `None` if it cannot be determined.
    pub(crate) async fn policy(&self, namespace: &str) -> Option<NamespacePolicy> {
        self.namespaces.policy(namespace).await
    }
}
