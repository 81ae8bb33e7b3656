//! Rotation: Secrets and ConfigMaps that carry the label `reconcile.fluxcd.io/watch: Enabled` are noticed as soon as they change.
//!
//! Only their metadata is watched, and the API server chooses by the label, so what others keep there costs nothing and no content
//! is ever held. Without the right to watch them, changes are seen at the next pass, as those of objects without the label are.

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

use crate::service::WatchFault;

/// The label, as Flux's controllers have it.
const SELECTOR: &str = "reconcile.fluxcd.io/watch=Enabled";
/// How long after a refusal it is tried again: somebody may have granted the right meanwhile.
const REFUSED: Duration = Duration::from_mins(10);

/// An object whose content may have changed, or that has come or gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Changed {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What kind of object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    const fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

/// Watches both kinds in one namespace, or in all; the changes come out of what is returned.
pub(crate) fn watch(
    client: &Client,
    namespace: Option<&str>,
    shutdown: &CancellationToken,
) -> mpsc::UnboundedReceiver<Changed> {
    let (sender, changes) = mpsc::unbounded_channel();
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(follow(
        api::<Secret>(client, namespace),
        Kind::Secret,
        sender.clone(),
    )));
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(follow(
        api::<ConfigMap>(client, namespace),
        Kind::ConfigMap,
        sender,
    )));
    changes
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<PartialObjectMeta<K>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    namespace.map_or_else(
        || Api::all(client.clone()),
        |namespace| Api::namespaced(client.clone(), namespace),
    )
}

/// Follows the objects of one kind until nobody listens.
async fn follow<K>(
    api: Api<PartialObjectMeta<K>>,
    kind: Kind,
    sender: mpsc::UnboundedSender<Changed>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut told = false;
    let mut seen = Seen::default();
    loop {
        let mut events = std::pin::pin!(
            watcher(api.clone(), watcher::Config::default().labels(SELECTOR)).default_backoff()
        );
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    for (namespace, name) in seen.take_in(event) {
                        if sender
                            .send(Changed {
                                kind,
                                namespace,
                                name,
                            })
                            .is_err()
                        {
                            return;
                        }
                    }
                }
                Err(error) if WatchFault::of(&error).is_refusal() => {
                    if !told {
                        tracing::warn!(
                            kind = kind.plural(),
                            "the watch of {} with the label {SELECTOR} is not allowed: going on without it, what they hold is read at the \
                             next pass; grant list and watch on {} to have changes noticed at once",
                            kind.plural(),
                            kind.plural()
                        );
                    }
                    told = true;
                    break;
                }
                Err(error) => {
                    tracing::debug!(kind = kind.plural(), %error, "the watch failed; trying again")
                }
            }
        }
        tokio::time::sleep(REFUSED).await;
    }
}

/// The resource versions that were seen: a list after a break tells by them what has changed meanwhile.
#[derive(Debug, Default)]
struct Seen {
    versions: HashMap<(String, String), String>,
    /// The list that is coming in; the first one of all is no change.
    listing: HashMap<(String, String), String>,
    listed: bool,
}

impl Seen {
    /// Takes in an event; answers with namespace and name of what has changed.
    fn take_in<K>(&mut self, event: watcher::Event<PartialObjectMeta<K>>) -> Vec<(String, String)> {
        let entry = |object: &PartialObjectMeta<K>| {
            let key = (
                object.metadata.namespace.clone().unwrap_or_default(),
                object.metadata.name.clone().unwrap_or_default(),
            );
            (
                key,
                object.metadata.resource_version.clone().unwrap_or_default(),
            )
        };
        match event {
            watcher::Event::Apply(object) => {
                let (key, version) = entry(&object);
                let before = self.versions.insert(key.clone(), version.clone());
                if before == Some(version) {
                    Vec::new()
                } else {
                    vec![key]
                }
            }
            watcher::Event::Delete(object) => {
                let (key, _) = entry(&object);
                self.versions.remove(&key);
                vec![key]
            }
            watcher::Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let (key, version) = entry(&object);
                self.listing.insert(key, version);
                Vec::new()
            }
            watcher::Event::InitDone => {
                let before =
                    std::mem::replace(&mut self.versions, std::mem::take(&mut self.listing));
                if !std::mem::replace(&mut self.listed, true) {
                    return Vec::new();
                }
                let gone = before
                    .keys()
                    .filter(|key| !self.versions.contains_key(*key));
                let changed = self
                    .versions
                    .iter()
                    .filter(|(key, version)| before.get(*key) != Some(*version))
                    .map(|(key, _)| key);
                gone.chain(changed).cloned().collect()
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

    fn list(seen: &mut Seen, objects: &[(&str, &str)]) -> Vec<String> {
        assert!(seen.take_in::<Secret>(Event::Init).is_empty());
        for (name, version) in objects {
            assert!(
                seen.take_in(Event::InitApply(object(name, version)))
                    .is_empty()
            );
        }
        names(seen.take_in::<Secret>(Event::InitDone))
    }

    #[test]
    fn the_first_list_is_no_change_and_a_list_after_a_break_tells_what_changed_meanwhile() {
        let mut seen = Seen::default();
        assert!(list(&mut seen, &[("same", "1"), ("changed", "2"), ("gone", "3")]).is_empty());
        assert_eq!(
            list(&mut seen, &[("same", "1"), ("changed", "4"), ("new", "5")]),
            ["team/changed", "team/gone", "team/new"]
        );
        assert!(list(&mut seen, &[("same", "1"), ("changed", "4"), ("new", "5")]).is_empty());
    }

    #[test]
    fn a_change_a_deletion_and_a_label_that_is_added_are_noticed_once() {
        let mut seen = Seen::default();
        list(&mut seen, &[("login", "1")]);
        assert!(names(seen.take_in(Event::Apply(object("login", "1")))).is_empty());
        assert_eq!(
            names(seen.take_in(Event::Apply(object("login", "2")))),
            ["team/login"]
        );
        assert_eq!(
            names(seen.take_in(Event::Apply(object("labelled", "3")))),
            ["team/labelled"]
        );
        assert_eq!(
            names(seen.take_in(Event::Delete(object("login", "4")))),
            ["team/login"]
        );
    }
}
