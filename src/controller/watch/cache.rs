//! The cache of watched resources: trimmed metadata, a [`Summary`], and spec and status of small resources as JSON.
//!
//! JSON takes a third of the memory of the parsed types, which matters with ten thousand resources. Of a large resource only the
//! summary is kept, while a list or watch is read, and the rest is read when the resource has its turn (threat T36, decision 0097).

use std::borrow::Cow;
use std::sync::Arc;

use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::Event;

use serde::{Deserialize, Deserializer};

use crate::api::{ACCEPT_LEFTOVERS, ImageAttachment, RawAttachment};
use crate::controller::reconcile::finalizer::is_own_finalizer;
use crate::controller::watch::child::Child;
use crate::controller::watch::request::{REQUESTED_AT, bounded};
use crate::controller::watch::resource_name::{Kind, ResourceName};
use crate::controller::watch::summary::Summary;

/// The most bytes of spec and status that the cache keeps of a resource.
pub(crate) const MAX_KEPT_BYTES: usize = 8 << 10;

/// A resource in the cache. Clones share the JSON.
#[derive(Debug, Clone, Resource)]
#[resource(inherit = ImageAttachment)]
pub(crate) struct CacheEntry {
    metadata: ObjectMeta,
    /// The content, or the reason why it cannot be parsed.
    content: Result<Content, String>,
}

#[derive(Debug, Clone)]
struct Content {
    /// Spec and status as a JSON array. `None`: the resource is large.
    json: Option<Arc<[u8]>>,
    summary: Summary,
    /// Set for a resource that belongs to a set.
    child: Option<Box<Child>>,
}

impl<'de> Deserialize<'de> for CacheEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawAttachment::deserialize(deserializer).map(Self::new)
    }
}

impl CacheEntry {
    /// Returns the entry of an object from the API server.
    fn new(object: RawAttachment) -> Self {
        let content = Content::new(&object);
        Self {
            metadata: trim(object.metadata),
            content,
        }
    }

    /// Converts a watch event. An unchanged object of a repeated list shares the JSON of the entry in `cache`.
    pub(crate) fn from_event(event: Event<Self>, cache: &Store<Self>) -> Event<Self> {
        match event {
            Event::InitApply(entry) => {
                let known = cache
                    .get(&entry.name().object_ref())
                    .filter(|known| known.metadata == entry.metadata);
                Event::InitApply(known.map_or(entry, |known| Self::clone(&known)))
            }
            event => event,
        }
    }

    pub(crate) fn name(&self) -> ResourceName {
        ResourceName::new(
            Kind::Attachment,
            self.metadata.namespace.as_deref(),
            self.metadata.name.as_deref().unwrap_or_default(),
        )
    }

    /// Parses the object. Its metadata is trimmed. `None`: the cache does not keep it.
    ///
    /// # Errors
    /// The message of the parser.
    pub(crate) fn object(&self) -> Result<Option<ImageAttachment>, Cow<'_, str>> {
        let content = self
            .content
            .as_ref()
            .map_err(|error| Cow::Borrowed(error.as_str()))?;
        let Some(json) = &content.json else {
            return Ok(None);
        };
        let (spec, status) =
            serde_json::from_slice(json).map_err(|error| Cow::Owned(error.to_string()))?;
        Ok(Some(ImageAttachment {
            metadata: self.metadata.clone(),
            spec,
            status,
        }))
    }

    /// Returns the summary, or `None` if the object cannot be parsed.
    pub(crate) fn summary(&self) -> Option<&Summary> {
        self.content.as_ref().ok().map(|content| &content.summary)
    }

    /// Returns what a set compares, or `None` if the object belongs to no set or cannot be parsed.
    pub(crate) fn child(&self) -> Option<&Child> {
        self.content.as_ref().ok()?.child.as_deref()
    }
}

impl Content {
    fn new(object: &RawAttachment) -> Result<Self, String> {
        let (spec, status) = object.parse()?;
        let (size, meta) = (object.size(), &object.metadata);
        let json = || serde_json::to_vec(&(&spec, &status)).map_err(|error| error.to_string());
        let is_small = size <= MAX_KEPT_BYTES;
        Ok(Self {
            json: is_small.then(json).transpose()?.map(Arc::from),
            summary: Summary::new(meta, &spec, status.as_ref(), size),
            child: Child::of(meta, &spec).map(Box::new),
        })
    }
}

/// Keeps the metadata that the controller reads. Annotations of others may repeat the whole spec.
fn trim(metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| [REQUESTED_AT, ACCEPT_LEFTOVERS].contains(&name.as_str()));
    for text in annotations.values_mut() {
        *text = bounded(text);
    }
    let mut finalizers = metadata.finalizers;
    if let Some(finalizers) = &mut finalizers {
        finalizers.retain(|finalizer| is_own_finalizer(finalizer));
    }
    ObjectMeta {
        annotations: (!annotations.is_empty()).then_some(annotations),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        finalizers,
        generation: metadata.generation,
        name: metadata.name,
        namespace: metadata.namespace,
        resource_version: metadata.resource_version,
        uid: metadata.uid,
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ConditionType;
    use crate::api::Reason;
    use crate::controller::watch::secret_watch::SourceKind;

    fn parsed(value: &serde_json::Value) -> CacheEntry {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    fn resource() -> serde_json::Value {
        json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment",
            "metadata": {
                "name": "app", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 2, "labels": {"a": "b"},
                "annotations": {REQUESTED_AT: "now", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "finalizers": ["affix.dev/finalizer"], "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"image": "r.example.com/team/app:v1", "secretRef": {"name": "login"},
                "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b\u{1}"}}},
            "status": {
                "observedGeneration": 2, "image": {"reference": format!("r.example.com/team/old@sha256:{}", "0".repeat(64)), "digest": "sha256:00"},
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "Attached", "message": "", "lastTransitionTime": "2026-11-26T10:00:00Z"},
                    {"type": "Resolved", "status": "Odd", "reason": "Attached", "message": "", "lastTransitionTime": "2026-11-26T10:00:00Z"},
                    {"type": "Foreign", "status": "True", "reason": "Attached", "message": "", "lastTransitionTime": "2026-11-26T10:00:00Z"},
                ],
                "targets": [{"kind": "Index", "digest": "sha256:00", "state": "Attached"}, {"kind": "Index", "digest": "sha256:01", "state": "Skipped"}],
            },
        })
    }

    #[test]
    fn an_entry_keeps_spec_status_and_the_metadata_that_is_read() {
        let whole = serde_json::from_value::<ImageAttachment>(resource()).unwrap();
        let object = parsed(&resource()).object().unwrap().unwrap();
        assert_eq!(
            (serde_json::to_value(&object.spec).unwrap(), &object.status),
            (serde_json::to_value(&whole.spec).unwrap(), &whole.status)
        );
        let kept = serde_json::to_value(&object.metadata).unwrap();
        let wanted = json!({
            "name": "app", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 2,
            "annotations": {REQUESTED_AT: "now"}, "finalizers": ["affix.dev/finalizer"],
        });
        assert_eq!(kept, wanted);
    }

    #[test]
    fn the_summary_has_repositories_references_conditions_and_targets() {
        let entry = parsed(&resource());
        let summary = entry.summary().unwrap();
        let may_name = |reference: &str| summary.may_name_repository(&reference.parse().unwrap());
        assert!(
            may_name("r.example.com/team/app:v2")
                && may_name("r.example.com/team/old:v1")
                && !may_name("r.example.com/team/other:v1"),
            "{summary:?}"
        );
        assert!(
            summary.may_reference(SourceKind::Secret, "login")
                && !summary.may_reference(SourceKind::ConfigMap, "login")
                && summary.has_ready
                && summary.is_pending
        );
        assert_eq!(
            summary.conditions,
            [
                Some((ConditionType::Ready, Some(true), Reason::Attached)),
                None,
                None,
                None,
                None
            ]
        );
        assert_eq!(summary.targets, [1, 0, 0, 0, 1]);
    }

    #[test]
    fn an_invalid_object_keeps_the_error_and_its_finalizers() {
        let mut broken = resource();
        broken["spec"]["image"] = json!(7);
        let entry = parsed(&broken);
        assert!(
            entry
                .object()
                .unwrap_err()
                .contains("invalid type: integer `7`"),
            "{entry:?}"
        );
        assert!(entry.summary().is_none());
        assert_eq!(
            entry.meta().finalizers.as_deref(),
            Some(&["affix.dev/finalizer".to_owned()][..])
        );
    }

    #[test]
    fn t36_of_a_large_resource_a_few_hundred_bytes_are_kept() {
        let mut large = resource();
        let big = "x".repeat(200_000);
        large["metadata"]["annotations"] =
            json!({REQUESTED_AT: big, ACCEPT_LEFTOVERS: big, "other": big});
        large["metadata"]["finalizers"] = json!(["affix.dev/finalizer", "example.com/other"]);
        large["metadata"]["labels"] = json!({"a": "b"});
        large["spec"]["artifact"]["files"] = json!([{"name": "a", "value": big}]);
        let entry = parsed(&large);
        assert_eq!(entry.object(), Ok(None));
        assert!(entry.summary().unwrap().size > 200_000);
        let kept = format!("{entry:?}").len();
        assert!(kept < 4096, "{kept}: {entry:?}");

        // Status counts too, and what the parser says of a bad value.
        let mut rows = resource();
        rows["status"]["conditions"][0]["message"] = json!("y".repeat(MAX_KEPT_BYTES));
        assert_eq!(parsed(&rows).object(), Ok(None));
        let mut broken = resource();
        broken["spec"]["interval"] = json!(big);
        let error = format!("{:?}", parsed(&broken));
        assert!(error.len() < 4096, "{error}");
    }

    #[test]
    fn a_repeated_list_shares_the_json_of_unchanged_objects() {
        let (store, mut writer) = kube::runtime::reflector::store::<CacheEntry>();
        let list = |version: &str| {
            let mut object = resource();
            object["metadata"]["resourceVersion"] = json!(version);
            Event::InitApply(parsed(&object))
        };
        let json =
            |entry: &CacheEntry| Arc::clone(entry.content.as_ref().unwrap().json.as_ref().unwrap());
        for event in [Event::Init, list("7"), Event::InitDone] {
            writer.apply_watcher_event(&CacheEntry::from_event(event, &store));
        }
        let first = store.state().pop().unwrap();
        for (version, shares) in [("7", true), ("8", false)] {
            let Event::InitApply(again) = CacheEntry::from_event(list(version), &store) else {
                unreachable!("InitApply stays InitApply")
            };
            assert_eq!(
                Arc::ptr_eq(&json(&first), &json(&again)),
                shares,
                "{version}"
            );
        }
    }
}
