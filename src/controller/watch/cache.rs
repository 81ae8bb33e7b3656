//! The cache of watched resources: trimmed metadata, and spec and status as JSON.
//!
//! JSON takes a third of the memory of the parsed types, which matters with ten thousand resources. A [`Summary`] answers the
//! questions that concern all resources at once without parsing each of them.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use kube::Resource;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

use crate::api::{
    ACCEPT_LEFTOVERS, ConditionType, ImageAttachment, ImageAttachmentSpec, ImageAttachmentStatus,
    Reason, TargetState,
};
use crate::engine::Names;
use affix_registry::oci::Reference;

/// The annotation that requests a reconcile, as in Flux.
pub(crate) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// A resource in the cache. Clones share the JSON.
#[derive(Debug, Clone)]
pub(crate) struct CacheEntry {
    metadata: ObjectMeta,
    /// The content, or the reason why it cannot be parsed.
    content: Result<Content, String>,
}

#[derive(Debug, Clone)]
struct Content {
    /// Spec and status as a JSON array.
    json: Arc<[u8]>,
    summary: Summary,
}

/// The namespace and name of a resource, smaller than kube's `ObjectRef`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ResourceName {
    namespace: Option<Box<str>>,
    name: Box<str>,
}

/// The properties of a resource that are read for all resources at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Hashes of the repositories in spec and status.
    repositories: [Option<u32>; 2],
    /// The spec references other objects, directly or through a service account.
    has_references: bool,
    /// The spec suspends the resource.
    pub(crate) is_suspended: bool,
    /// Status has a Ready condition, even one that affix did not write.
    pub(crate) has_ready: bool,
    /// The conditions with a status and reason that affix knows.
    pub(crate) conditions: [Option<ConditionSummary>; ConditionType::ALL.len()],
    /// The number of targets in each state, in the order of [`STATES`].
    pub(crate) targets: [u16; STATES.len()],
}

/// The type, status (`None`: Unknown) and reason of a condition.
pub(crate) type ConditionSummary = (ConditionType, Option<bool>, Reason);

/// All states of a target.
pub(crate) const STATES: [TargetState; 5] = [
    TargetState::Attached,
    TargetState::Pending,
    TargetState::Planned,
    TargetState::Failed,
    TargetState::Skipped,
];

impl CacheEntry {
    /// Returns the entry of an object from the API server.
    pub(crate) fn new(object: DeserializeGuard<ImageAttachment>) -> Self {
        match object.0 {
            Ok(object) => Self {
                content: Content::new(&object.spec, object.status.as_ref())
                    .map_err(|error| error.to_string()),
                metadata: trim(object.metadata),
            },
            Err(invalid) => Self {
                metadata: trim(invalid.metadata),
                content: Err(invalid.error),
            },
        }
    }

    /// Converts a watch event. An unchanged object of a repeated list shares the JSON of the entry in `cache`.
    pub(crate) fn from_event(
        event: Event<DeserializeGuard<ImageAttachment>>,
        cache: &Store<Self>,
    ) -> Event<Self> {
        match event {
            Event::Apply(object) => Event::Apply(Self::new(object)),
            Event::Delete(object) => Event::Delete(Self::new(object)),
            Event::Init => Event::Init,
            Event::InitApply(object) => {
                let entry = Self::new(object);
                let known = cache
                    .get(&entry.name().object_ref())
                    .filter(|known| known.metadata == entry.metadata);
                Event::InitApply(known.map_or(entry, |known| Self::clone(&known)))
            }
            Event::InitDone => Event::InitDone,
        }
    }

    pub(crate) fn name(&self) -> ResourceName {
        ResourceName::new(
            self.metadata.namespace.as_deref(),
            self.metadata.name.as_deref().unwrap_or_default(),
        )
    }

    /// Parses the object. Its metadata is trimmed.
    ///
    /// # Errors
    /// The message of the parser.
    pub(crate) fn object(&self) -> Result<ImageAttachment, Cow<'_, str>> {
        let content = self
            .content
            .as_ref()
            .map_err(|error| Cow::Borrowed(error.as_str()))?;
        let (spec, status) =
            serde_json::from_slice(&content.json).map_err(|error| Cow::Owned(error.to_string()))?;
        Ok(ImageAttachment {
            metadata: self.metadata.clone(),
            spec,
            status,
        })
    }

    /// Returns the summary, or `None` if the object cannot be parsed.
    pub(crate) fn summary(&self) -> Option<&Summary> {
        self.content.as_ref().ok().map(|content| &content.summary)
    }
}

impl ResourceName {
    pub(crate) fn new(namespace: Option<&str>, name: &str) -> Self {
        Self {
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    pub(crate) const fn namespace(&self) -> &Option<Box<str>> {
        &self.namespace
    }

    /// Returns the key of the resource in a store.
    pub(crate) fn object_ref(&self) -> ObjectRef<CacheEntry> {
        let key = ObjectRef::new(&self.name);
        match &self.namespace {
            Some(namespace) => key.within(namespace),
            None => key,
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Resource for CacheEntry {
    type DynamicType = ();
    type Scope = <ImageAttachment as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        ImageAttachment::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ImageAttachment::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ImageAttachment::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ImageAttachment::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Content {
    fn new(
        spec: &ImageAttachmentSpec,
        status: Option<&ImageAttachmentStatus>,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            json: serde_json::to_vec(&(spec, status))?.into(),
            summary: Summary::new(spec, status),
        })
    }
}

impl Summary {
    fn new(spec: &ImageAttachmentSpec, status: Option<&ImageAttachmentStatus>) -> Self {
        let image = status
            .and_then(|status| status.image.as_ref())
            .map(|image| &image.reference);
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let find = |kind: ConditionType| {
            conditions
                .iter()
                .find(|condition| condition.type_ == kind.as_str())
        };
        let known = ConditionType::ALL.map(|kind| {
            let condition = find(kind)?;
            let status = match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                "Unknown" => None,
                _ => return None,
            };
            Some((kind, status, condition.reason.parse().ok()?))
        });
        let count = |state| {
            let targets = status.iter().flat_map(|status| &status.targets);
            let count = targets.filter(|target| target.state == state).count();
            u16::try_from(count).unwrap_or(u16::MAX)
        };
        Self {
            repositories: [Some(&spec.image), image]
                .map(|image| image?.parse().ok().as_ref().map(repository_hash)),
            has_references: Names::of(spec) != Names::default(),
            is_suspended: spec.suspend(),
            has_ready: find(ConditionType::Ready).is_some(),
            conditions: known,
            targets: STATES.map(count),
        }
    }

    /// Returns `false` only if neither spec nor status names the repository of `reference`. Hashes may collide.
    pub(crate) fn may_name_repository(&self, reference: &Reference) -> bool {
        self.repositories
            .contains(&Some(repository_hash(reference)))
    }

    pub(crate) const fn has_references(&self) -> bool {
        self.has_references
    }
}

/// Keeps the metadata that the controller reads. Annotations of others may repeat the whole spec.
fn trim(metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| [REQUESTED_AT, ACCEPT_LEFTOVERS].contains(&name.as_str()));
    ObjectMeta {
        annotations: (!annotations.is_empty()).then_some(annotations),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        finalizers: metadata.finalizers,
        generation: metadata.generation,
        name: metadata.name,
        namespace: metadata.namespace,
        resource_version: metadata.resource_version,
        uid: metadata.uid,
        ..ObjectMeta::default()
    }
}

fn repository_hash(reference: &Reference) -> u32 {
    let mut hasher = DefaultHasher::new();
    reference.name().hash(&mut hasher);
    hasher.finish() as u32
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

    fn parsed(value: &serde_json::Value) -> DeserializeGuard<ImageAttachment> {
        serde_json::from_value(value.clone()).unwrap()
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
        let object = CacheEntry::new(parsed(&resource())).object().unwrap();
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
        let entry = CacheEntry::new(parsed(&resource()));
        let summary = entry.summary().unwrap();
        let may_name = |reference: &str| summary.may_name_repository(&reference.parse().unwrap());
        assert!(
            may_name("r.example.com/team/app:v2")
                && may_name("r.example.com/team/old:v1")
                && !may_name("r.example.com/team/other:v1"),
            "{summary:?}"
        );
        assert!(summary.has_references() && summary.has_ready);
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
        let entry = CacheEntry::new(parsed(&broken));
        assert!(
            entry
                .object()
                .unwrap_err()
                .contains("Invalid type integer `7`"),
            "{entry:?}"
        );
        assert!(entry.summary().is_none());
        assert_eq!(
            entry.meta().finalizers.as_deref(),
            Some(&["affix.dev/finalizer".to_owned()][..])
        );
    }

    #[test]
    fn a_repeated_list_shares_the_json_of_unchanged_objects() {
        let (store, mut writer) = kube::runtime::reflector::store::<CacheEntry>();
        let list = |version: &str| {
            let mut object = resource();
            object["metadata"]["resourceVersion"] = json!(version);
            Event::InitApply(parsed(&object))
        };
        let json = |entry: &CacheEntry| Arc::clone(&entry.content.as_ref().unwrap().json);
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
