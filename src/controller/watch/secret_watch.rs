//! The watch of Secrets and ConfigMaps with the label `reconcile.fluxcd.io/watch: Enabled`.
//!
//! A change of such an object triggers a reconcile at once. Only metadata is watched, and the API server filters by the label,
//! so the watch holds no content and other objects cost nothing. Without the permission to watch, and for objects without the
//! label, the next reconcile at the interval reads the change.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::service::{WatchFault, watch_backoff};

/// The label of Flux's controllers.
const SELECTOR: &str = "reconcile.fluxcd.io/watch=Enabled";
/// The number of objects in one page of a list. Their annotations can have 256 KiB.
const PAGE_SIZE: u32 = 50;
/// The delay after a refusal. The permission may have been granted by then.
const RETRY_FORBIDDEN: Duration = Duration::from_mins(10);

/// A Secret or ConfigMap that was changed, created or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ChangedSource {
    pub(crate) kind: SourceKind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The kind of a watched object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SourceKind {
    Secret,
    ConfigMap,
}

impl SourceKind {
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

/// Watches both kinds in one namespace, or in all, until `shutdown`.
pub(crate) fn watch(
    client: &Client,
    namespace: Option<&str>,
    shutdown: &CancellationToken,
) -> mpsc::UnboundedReceiver<ChangedSource> {
    let (sender, changes) = mpsc::unbounded_channel();
    let secrets = api::<Secret>(client, namespace);
    let secrets = watch_kind(secrets, SourceKind::Secret, sender.clone());
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(secrets));
    let config_maps = api::<ConfigMap>(client, namespace);
    let config_maps = watch_kind(config_maps, SourceKind::ConfigMap, sender);
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(config_maps));
    changes
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<PartialObjectMeta<K>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Watches one kind until the receiver is dropped.
async fn watch_kind<K>(
    api: Api<PartialObjectMeta<K>>,
    kind: SourceKind,
    sender: mpsc::UnboundedSender<ChangedSource>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let resource = kind.plural();
    let mut is_reported = false;
    let mut versions = Versions::default();
    loop {
        let config = watcher::Config::default()
            .labels(SELECTOR)
            .page_size(PAGE_SIZE);
        let mut events = std::pin::pin!(watcher(api.clone(), config).backoff(watch_backoff()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    for (namespace, name) in versions.apply(event) {
                        let change = ChangedSource {
                            kind,
                            namespace,
                            name,
                        };
                        if sender.send(change).is_err() {
                            return;
                        }
                    }
                }
                Err(error) if WatchFault::of(&error).is_refusal() => {
                    if !is_reported {
                        tracing::warn!(
                            resource,
                            error = %WatchFault::of(&error),
                            "watch of {resource} with the label {SELECTOR} is not permitted: a change is read at the next \
                             interval; grant list and watch on {resource} to reconcile at once"
                        );
                    }
                    is_reported = true;
                    break;
                }
                Err(error) => {
                    tracing::debug!(resource, error = %WatchFault::of(&error), "watch failed; retrying");
                }
            }
        }
        tokio::time::sleep(RETRY_FORBIDDEN).await;
    }
}

/// The resource versions by namespace and name. A repeated list is compared with them.
#[derive(Debug, Default)]
struct Versions {
    current: HashMap<(String, String), String>,
    /// The list in progress.
    listing: HashMap<(String, String), String>,
    /// The first list is complete. It reports no change.
    is_listed: bool,
}

impl Versions {
    /// Applies an event. Returns the namespaces and names of the objects that have changed.
    fn apply<K>(&mut self, event: watcher::Event<PartialObjectMeta<K>>) -> Vec<(String, String)> {
        let entry = |object: PartialObjectMeta<K>| {
            let metadata = object.metadata;
            let key = (
                metadata.namespace.unwrap_or_default(),
                metadata.name.unwrap_or_default(),
            );
            (key, metadata.resource_version.unwrap_or_default())
        };
        match event {
            watcher::Event::Apply(object) => {
                let (key, version) = entry(object);
                let before = self.current.insert(key.clone(), version.clone());
                if before == Some(version) {
                    Vec::new()
                } else {
                    vec![key]
                }
            }
            watcher::Event::Delete(object) => {
                let (key, _) = entry(object);
                self.current.remove(&key);
                vec![key]
            }
            watcher::Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.listing.extend([entry(object)]);
                Vec::new()
            }
            watcher::Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                let before = std::mem::replace(&mut self.current, listing);
                if !std::mem::replace(&mut self.is_listed, true) {
                    return Vec::new();
                }
                let deleted = before.keys().filter(|key| !self.current.contains_key(*key));
                let current = self.current.iter();
                let changed = current.filter(|(key, version)| before.get(*key) != Some(*version));
                deleted
                    .chain(changed.map(|(key, _)| key))
                    .cloned()
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::ObjectMeta;
    use watcher::Event;

    fn object(name: &str, version: &str) -> PartialObjectMeta<Secret> {
        let metadata = ObjectMeta {
            namespace: Some("team".to_owned()),
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        PartialObjectMeta {
            metadata,
            ..PartialObjectMeta::default()
        }
    }

    fn names(mut changed: Vec<(String, String)>) -> Vec<String> {
        changed.sort();
        changed
            .into_iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect()
    }

    fn list(versions: &mut Versions, objects: &[(&str, &str)]) -> Vec<String> {
        assert!(versions.apply::<Secret>(Event::Init).is_empty());
        for (name, version) in objects {
            assert!(
                versions
                    .apply(Event::InitApply(object(name, version)))
                    .is_empty()
            );
        }
        names(versions.apply::<Secret>(Event::InitDone))
    }

    #[test]
    fn a_repeated_list_reports_the_changes_and_the_first_list_none() {
        let mut versions = Versions::default();
        assert!(
            list(
                &mut versions,
                &[("same", "1"), ("changed", "2"), ("gone", "3")]
            )
            .is_empty()
        );
        assert_eq!(
            list(
                &mut versions,
                &[("same", "1"), ("changed", "4"), ("new", "5")]
            ),
            ["team/changed", "team/gone", "team/new"]
        );
        assert!(
            list(
                &mut versions,
                &[("same", "1"), ("changed", "4"), ("new", "5")]
            )
            .is_empty()
        );
    }

    #[test]
    fn a_change_a_deletion_and_an_added_label_are_reported_once() {
        let mut versions = Versions::default();
        list(&mut versions, &[("login", "1")]);
        assert!(names(versions.apply(Event::Apply(object("login", "1")))).is_empty());
        assert_eq!(
            names(versions.apply(Event::Apply(object("login", "2")))),
            ["team/login"]
        );
        assert_eq!(
            names(versions.apply(Event::Apply(object("labelled", "3")))),
            ["team/labelled"]
        );
        assert_eq!(
            names(versions.apply(Event::Delete(object("login", "4")))),
            ["team/login"]
        );
    }
}
