//! The policy of each namespace, from its labels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::admission::review::single_flight::SingleFlightCache;

/// The label that enables the end-of-life check of pod images.
pub(crate) const END_OF_LIFE: &str = "affix.dev/end-of-life";
/// The label that enables the replacement of tags by digests.
pub(crate) const RESOLVE_DIGESTS: &str = "affix.dev/resolve-digests";

/// Concurrent reads of namespaces.
pub(super) const MAX_READS: usize = 8;
/// Minimum time between two reads of one permit. Together with [`MAX_READS`] it limits the request rate.
const READ_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit of one read. Reviews wait less; a late answer serves the next review.
const API_TIMEOUT: Duration = Duration::from_secs(10);
/// Lifetime of a cached answer.
const CACHE_TTL: Duration = Duration::from_secs(1);

/// The action on a pod whose image has reached its end of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndOfLifeMode {
    Warn,
    Audit,
    Enforce,
}

impl EndOfLifeMode {
    /// Parses the value of the label. Returns `None` for an unknown value, which counts as `warn`: a
    /// misspelled `enforce` must not end the check.
    pub(crate) fn from_label(value: &str) -> Option<Self> {
        match value {
            "enabled" | "warn" => Some(Self::Warn),
            "audit" => Some(Self::Audit),
            "enforce" => Some(Self::Enforce),
            _ => None,
        }
    }
}

/// The policy that the labels of a namespace express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NamespacePolicy {
    /// `None`: no end-of-life check.
    pub(crate) end_of_life: Option<EndOfLifeMode>,
    /// Tags of new pods are replaced by digests.
    pub(crate) resolve_digests: bool,
}

impl NamespacePolicy {
    fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        Self {
            end_of_life: labels
                .get(END_OF_LIFE)
                .map(|value| EndOfLifeMode::from_label(value).unwrap_or(EndOfLifeMode::Warn)),
            resolve_digests: labels
                .get(RESOLVE_DIGESTS)
                .is_some_and(|value| value == "enabled"),
        }
    }
}

/// The policies of all namespaces.
pub(crate) struct NamespaceIndex {
    client: Client,
    policies: RwLock<HashMap<String, NamespacePolicy>>,
    /// The namespaces of the list in progress. Namespaces outside of the list are removed when it is complete.
    listed: Mutex<HashSet<String>>,
    reads: Arc<SingleFlightCache<String, Option<NamespacePolicy>>>,
    pub(super) read_permits: Arc<Semaphore>,
}

impl NamespaceIndex {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            policies: RwLock::default(),
            listed: Mutex::default(),
            reads: SingleFlightCache::new(CACHE_TTL),
            read_permits: Arc::new(Semaphore::new(MAX_READS)),
        }
    }

    pub(crate) fn on_event(&self, event: Event<PartialObjectMeta<Namespace>>) {
        let mut policies = self
            .policies
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut set = |object: &PartialObjectMeta<Namespace>| {
            let policy = NamespacePolicy::from_labels(object.labels());
            policies.insert(object.name_any(), policy);
        };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                set(&object);
                listed.insert(object.name_any());
            }
            Event::Apply(object) => set(&object),
            Event::Delete(object) => {
                policies.remove(&object.name_any());
            }
            Event::InitDone => {
                policies.retain(|name, _| listed.contains(name));
                *listed = HashSet::new();
            }
        }
    }

    pub(super) fn cached(&self, namespace: &str) -> Option<NamespacePolicy> {
        self.policies
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .copied()
    }

    /// Returns the policy of a namespace, or `None` if the API server gives no answer.
    ///
    /// An unknown namespace is newer than the watch and is read from the API server. The read rate is limited, because a
    /// direct caller can invent names.
    pub(crate) async fn policy(&self, namespace: &str) -> Option<NamespacePolicy> {
        let indexed = self.cached(namespace);
        if indexed.is_some() {
            return indexed;
        }
        let (api, name) = (
            Api::<Namespace>::all(self.client.clone()),
            namespace.to_owned(),
        );
        if let Some(answer) = self.reads.cached(&name) {
            return answer;
        }
        // The permit is acquired before the read starts: a review that times out here leaves no task behind.
        let permit = Arc::clone(&self.read_permits).acquire_owned().await;
        let read = || {
            let name = name.clone();
            async move {
                let found = timeout(API_TIMEOUT, api.get_metadata_opt(&name)).await;
                tokio::spawn(async move {
                    sleep(READ_INTERVAL).await;
                    drop(permit);
                });
                found.ok()?.ok().map(|found| {
                    found
                        .map(|found| NamespacePolicy::from_labels(found.labels()))
                        .unwrap_or_default()
                })
            }
        };
        self.reads
            .get(name.clone(), |_| true, read)
            .await
            .0
            .flatten()
    }
}
