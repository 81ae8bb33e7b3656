//! What the watch keeps of a resource: little, since there may be ten thousand.
//!
//! Owns: which parts of metadata are kept, the packed rest, and what must be known of all resources at once without unpacking each.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use kube::Resource;
use kube::core::{DeserializeGuard, ObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

use crate::api::{
    ConditionType, ImageAttachment, ImageAttachmentSpec, ImageAttachmentStatus, Reason, TargetState,
};
use crate::engine::Names;
use affix_registry::oci::Reference;

use crate::controller::reconcile::reconciler::REQUESTED_AT;
use crate::controller::watch::packed::Packed;

/// A resource as the watch has brought it. Clones share what is large.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    metadata: ObjectMeta,
    content: Result<Content, String>,
}

/// Which resource: what keeps many of them keeps this, and not the client's larger key.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    namespace: Option<Box<str>>,
    name: Box<str>,
}

#[derive(Debug, Clone)]
struct Content {
    packed: Packed,
    summary: Summary,
}

/// What is asked of all resources at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The repositories that spec and status speak of.
    repositories: [Option<u32>; 2],
    /// Whether the spec names other objects, or a service account that does.
    has_names: bool,
    /// Whether status has the condition Ready, in whatever words.
    pub(crate) has_ready: bool,
    /// Conditions in words that affix knows: others may have written more.
    pub(crate) conditions: [Option<Known>; ConditionType::ALL.len()],
    /// Targets by state, in the order of [`STATES`].
    pub(crate) targets: [u16; STATES.len()],
}

/// A condition as a metric shows it: its type, its status (`None`: Unknown) and its reason.
pub(crate) type Known = (ConditionType, Option<bool>, Reason);

/// Every state of a target.
pub(crate) const STATES: [TargetState; 5] = [
    TargetState::Attached,
    TargetState::Pending,
    TargetState::Planned,
    TargetState::Failed,
    TargetState::Skipped,
];

impl Stored {
    /// What is kept of an object.
    pub(crate) fn of(object: DeserializeGuard<ImageAttachment>) -> Self {
        match object.0 {
            Ok(ImageAttachment {
                metadata,
                spec,
                status,
            }) => {
                let content =
                    Content::of(&spec, status.as_ref()).map_err(|error| error.to_string());
                Self {
                    metadata: trimmed(metadata),
                    content,
                }
            }
            Err(invalid) => Self {
                metadata: trimmed(invalid.metadata),
                content: Err(invalid.error),
            },
        }
    }

    /// The same of what a watch brings. What comes once more as it was, in a list after a break, shares what `known` has of it.
    pub(crate) fn event(
        event: Event<DeserializeGuard<ImageAttachment>>,
        known: &Store<Self>,
    ) -> Event<Self> {
        match event {
            Event::Apply(object) => Event::Apply(Self::of(object)),
            Event::Delete(object) => Event::Delete(Self::of(object)),
            Event::Init => Event::Init,
            Event::InitApply(object) => {
                let object = Self::of(object);
                let same = |known: &Arc<Self>| known.metadata == object.metadata;
                Event::InitApply(
                    known
                        .get(&object.name().key())
                        .filter(same)
                        .map_or(object, |known| Self::clone(&known)),
                )
            }
            Event::InitDone => Event::InitDone,
        }
    }

    /// What tells it from others.
    pub(crate) fn name(&self) -> Name {
        Name::new(
            self.metadata.namespace.as_deref(),
            self.metadata.name.as_deref().unwrap_or_default(),
        )
    }

    /// The object, without what nobody reads.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn object(&self) -> Result<ImageAttachment, Cow<'_, str>> {
        let content = self
            .content
            .as_ref()
            .map_err(|error| Cow::Borrowed(error.as_str()))?;
        let (spec, status) = content
            .packed
            .unpack()
            .map_err(|error| Cow::Owned(error.to_string()))?;
        Ok(ImageAttachment {
            metadata: self.metadata.clone(),
            spec,
            status,
        })
    }

    /// What is known without a look into it; `None` where it cannot be read.
    pub(crate) fn summary(&self) -> Option<&Summary> {
        self.content.as_ref().ok().map(|content| &content.summary)
    }
}

impl Name {
    pub(crate) fn new(namespace: Option<&str>, name: &str) -> Self {
        Self {
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    pub(crate) const fn namespace(&self) -> &Option<Box<str>> {
        &self.namespace
    }

    /// What a store knows it by.
    pub(crate) fn key(&self) -> ObjectRef<Stored> {
        let key = ObjectRef::new(&self.name);
        match &self.namespace {
            Some(namespace) => key.within(namespace),
            None => key,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Resource for Stored {
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
    fn of(
        spec: &ImageAttachmentSpec,
        status: Option<&ImageAttachmentStatus>,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            packed: Packed::of(&(spec, status))?,
            summary: Summary::of(spec, status),
        })
    }
}

impl Summary {
    fn of(spec: &ImageAttachmentSpec, status: Option<&ImageAttachmentStatus>) -> Self {
        let image = status
            .and_then(|status| status.image.as_ref())
            .map(|image| &image.reference);
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let known = ConditionType::ALL.map(|kind| {
            let condition = conditions
                .iter()
                .find(|condition| condition.type_ == kind.as_str())?;
            let status = match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                "Unknown" => None,
                _ => return None,
            };
            Some((kind, status, condition.reason.parse().ok()?))
        });
        let rows = status.iter().flat_map(|status| &status.targets);
        let mut targets = [0_u16; STATES.len()];
        for row in rows {
            if let Some((_, count)) = STATES
                .iter()
                .zip(&mut targets)
                .find(|(state, _)| **state == row.state)
            {
                *count = count.saturating_add(1);
            }
        }
        Self {
            repositories: [Some(&spec.image), image]
                .map(|image| image?.parse().ok().as_ref().map(repository)),
            has_names: Names::of(spec) != Names::default(),
            has_ready: conditions
                .iter()
                .any(|condition| condition.type_ == ConditionType::Ready.as_str()),
            conditions: known,
            targets,
        }
    }

    /// Whether spec or status may speak of the repository of `reference`. `false` is certain.
    pub(crate) fn may_speak_of(&self, reference: &Reference) -> bool {
        self.repositories.contains(&Some(repository(reference)))
    }

    /// Whether the spec names other objects.
    pub(crate) const fn has_names(&self) -> bool {
        self.has_names
    }
}

/// Metadata without what nobody reads; others' annotations may hold the whole spec once more.
fn trimmed(metadata: ObjectMeta) -> ObjectMeta {
    let annotations = metadata
        .annotations
        .and_then(|mut annotations| annotations.remove_entry(REQUESTED_AT));
    ObjectMeta {
        annotations: annotations.map(|asked| [asked].into()),
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

/// A repository as a number; two may have the same.
fn repository(reference: &Reference) -> u32 {
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

    fn guarded(value: &serde_json::Value) -> DeserializeGuard<ImageAttachment> {
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
                    {"type": "Of others", "status": "True", "reason": "Attached", "message": "", "lastTransitionTime": "2026-11-26T10:00:00Z"},
                ],
                "targets": [{"kind": "Index", "digest": "sha256:00", "state": "Attached"}, {"kind": "Index", "digest": "sha256:01", "state": "Skipped"}],
            },
        })
    }

    #[test]
    fn spec_and_status_come_back_and_of_metadata_what_is_read() {
        let whole = serde_json::from_value::<ImageAttachment>(resource()).unwrap();
        let object = Stored::of(guarded(&resource())).object().unwrap();
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
    fn the_summary_tells_repositories_names_conditions_and_targets() {
        let stored = Stored::of(guarded(&resource()));
        let summary = stored.summary().unwrap();
        let speaks = |reference: &str| summary.may_speak_of(&reference.parse().unwrap());
        assert!(
            speaks("r.example.com/team/app:v2")
                && speaks("r.example.com/team/old:v1")
                && !speaks("r.example.com/team/other:v1"),
            "{summary:?}"
        );
        assert!(summary.has_names() && summary.has_ready);
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
    fn what_cannot_be_read_says_why_and_keeps_its_finalizer() {
        let mut broken = resource();
        broken["spec"]["image"] = json!(7);
        let stored = Stored::of(guarded(&broken));
        assert!(
            stored
                .object()
                .unwrap_err()
                .contains("Invalid type integer `7`"),
            "{stored:?}"
        );
        assert!(stored.summary().is_none());
        assert_eq!(
            stored.meta().finalizers.as_deref(),
            Some(&["affix.dev/finalizer".to_owned()][..])
        );
    }

    #[test]
    fn a_list_after_a_break_shares_what_has_not_changed() {
        let (store, mut writer) = kube::runtime::reflector::store::<Stored>();
        let list = |version: &str| {
            let mut object = resource();
            object["metadata"]["resourceVersion"] = json!(version);
            Event::InitApply(guarded(&object))
        };
        let bytes = |stored: &Stored| stored.content.as_ref().unwrap().packed.clone();
        for event in [Event::Init, list("7"), Event::InitDone] {
            writer.apply_watcher_event(&Stored::event(event, &store));
        }
        let first = store.state().pop().unwrap();
        for (version, shares) in [("7", true), ("8", false)] {
            let Event::InitApply(again) = Stored::event(list(version), &store) else {
                unreachable!("it is one of a list")
            };
            assert_eq!(
                bytes(&first).shares_with(&bytes(&again)),
                shares,
                "{version}"
            );
        }
    }
}
