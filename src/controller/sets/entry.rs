//! The cache of watched sets: trimmed metadata and a summary. A reconcile reads the whole set from the API server, since the status of
//! a set with thousands of tags is large (threat T36).

use std::borrow::Cow;
use std::time::Duration;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::api::{
    CONFIRM_ANNOTATION, ConditionType, ImageAttachmentSet, ImageAttachmentSetSpec,
    ImageAttachmentSetStatus, RawAttachment,
};
use crate::controller::watch::request::{REQUESTED_AT, acknowledgement, bounded};
use crate::controller::watch::resource_name::{Kind, ResourceName};
use crate::controller::watch::secret_watch::SourceKind;
use crate::controller::watch::summary::{
    ConditionSummary, condition_summaries, may_reference, reference_hashes, registry_host,
};
use crate::engine::Names;

/// A set in the cache.
#[derive(Debug, Clone)]
pub(crate) struct SetEntry {
    metadata: ObjectMeta,
    /// The summary, or the reason why the set cannot be parsed.
    summary: Result<SetSummary, String>,
}

/// The properties of a set that are known without its spec and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetSummary {
    /// The size of spec and status in bytes.
    pub(crate) size: usize,
    /// The registry of the first repository. It may be invalid.
    pub(crate) host: Box<str>,
    references: Box<[u32]>,
    pub(crate) interval: Duration,
    /// The last reconcile has not seen the current spec or request.
    pub(crate) is_pending: bool,
    pub(crate) is_suspended: bool,
    /// Status has a Ready condition, even one that affix did not write.
    pub(crate) has_ready: bool,
    /// The conditions with a status and reason that affix knows.
    pub(crate) conditions: [Option<ConditionSummary>; ConditionType::ALL.len()],
    pub(crate) children: u32,
    /// The number of children that are ready.
    pub(crate) ready: u32,
}

impl<'de> Deserialize<'de> for SetEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RawAttachment::deserialize(deserializer).map(Self::new)
    }
}

impl SetEntry {
    /// Returns the entry of an object from the API server.
    fn new(object: RawAttachment) -> Self {
        let parsed = object.parse_as::<ImageAttachmentSetSpec, ImageAttachmentSetStatus>();
        let size = object.size();
        let summary = parsed
            .map(|(spec, status)| SetSummary::new(&object.metadata, &spec, status.as_ref(), size));
        Self {
            metadata: trim(object.metadata),
            summary,
        }
    }

    pub(crate) fn name(&self) -> ResourceName {
        ResourceName::new(
            Kind::Set,
            self.metadata.namespace.as_deref(),
            self.metadata.name.as_deref().unwrap_or_default(),
        )
    }

    /// Returns the summary, or `None` if the set cannot be parsed.
    pub(crate) fn summary(&self) -> Option<&SetSummary> {
        self.summary.as_ref().ok()
    }

    /// Returns the message of the parser for a set that cannot be parsed.
    pub(crate) fn error(&self) -> Option<&str> {
        self.summary.as_ref().err().map(String::as_str)
    }
}

impl SetSummary {
    fn new(
        meta: &ObjectMeta,
        spec: &ImageAttachmentSetSpec,
        status: Option<&ImageAttachmentSetStatus>,
        size: usize,
    ) -> Self {
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let repositories = status.iter().flat_map(|status| &status.repositories);
        let sum = |count: fn(&crate::api::RepositoryStatus) -> Option<i64>| {
            let total: i64 = repositories.clone().filter_map(count).sum();
            u32::try_from(total).unwrap_or_default()
        };
        Self {
            size,
            host: registry_host(spec.repositories.first().map_or("", String::as_str)),
            references: reference_hashes(&Names::of(spec.template.spec.shared())),
            interval: spec.interval(),
            is_pending: is_pending(meta, status),
            is_suspended: spec.suspend(),
            has_ready: conditions
                .iter()
                .any(|condition| condition.type_ == ConditionType::Ready.as_str()),
            conditions: condition_summaries(conditions),
            children: sum(|repository| repository.children),
            ready: sum(|repository| repository.ready),
        }
    }

    /// Returns `false` only if the spec does not name the object. Hashes may collide.
    pub(crate) fn may_reference(&self, kind: SourceKind, name: &str) -> bool {
        may_reference(&self.references, kind, name)
    }

    /// Returns whether the set is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let mut known = self.conditions.iter().flatten();
        known.any(|(kind, status, _)| *kind == ConditionType::Ready && *status == Some(true))
    }
}

/// Returns whether the last reconcile has not seen the current spec or request.
pub(crate) fn is_pending(meta: &ObjectMeta, status: Option<&ImageAttachmentSetStatus>) -> bool {
    let request = acknowledgement(meta);
    status.map(|status| status.observed_generation) != meta.generation
        || (request.is_some()
            && request != status.and_then(|status| status.last_handled_reconcile_at.clone()))
}

impl Resource for SetEntry {
    type DynamicType = ();
    type Scope = <ImageAttachmentSet as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        ImageAttachmentSet::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ImageAttachmentSet::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ImageAttachmentSet::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ImageAttachmentSet::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Keeps the metadata that triggers a reconcile. Annotations of others may repeat the whole spec.
fn trim(metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| [REQUESTED_AT, CONFIRM_ANNOTATION].contains(&name.as_str()));
    for text in annotations.values_mut() {
        *text = bounded(text);
    }
    ObjectMeta {
        annotations: (!annotations.is_empty()).then_some(annotations),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
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

    fn parsed(value: &serde_json::Value) -> SetEntry {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    fn set() -> serde_json::Value {
        json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet",
            "metadata": {
                "name": "releases", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 2,
                "annotations": {CONFIRM_ANNOTATION: "90", "other": "x".repeat(10_000)}, "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {
                "repositories": ["r.example.com/team/app"], "interval": "1h",
                "template": {"spec": {"secretRef": {"name": "login"}, "artifact": {"artifactType": "application/vnd.demo"}}},
            },
            "status": {
                "observedGeneration": 2,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Attached", "message": "", "lastTransitionTime": "2026-11-26T10:00:00Z"}],
                "repositories": [{"name": "r.example.com/team/app", "children": 40, "ready": 39, "seen": {"v1": "x".repeat(10_000)}}],
            },
        })
    }

    #[test]
    fn t36_of_a_set_with_many_tags_a_few_hundred_bytes_are_kept() {
        let entry = parsed(&set());
        let summary = entry.summary().unwrap();
        assert!(summary.size > 10_000 && summary.is_ready() && !summary.is_pending);
        assert_eq!(
            (
                &*summary.host,
                summary.interval.as_secs(),
                summary.children,
                summary.ready
            ),
            ("r.example.com", 3600, 40, 39)
        );
        assert!(
            summary.may_reference(SourceKind::Secret, "login")
                && !summary.may_reference(SourceKind::Secret, "other")
        );
        let kept = format!("{entry:?}").len();
        assert!(kept < 2048, "{kept}: {entry:?}");
        assert_eq!(entry.name().to_string(), "team/releases");
    }

    #[test]
    fn a_changed_spec_and_a_request_are_pending_and_a_broken_set_is_not_parsed() {
        let mut changed = set();
        changed["metadata"]["generation"] = json!(3);
        assert!(parsed(&changed).summary().unwrap().is_pending);
        let mut requested = set();
        requested["metadata"]["annotations"][REQUESTED_AT] = json!("now");
        assert!(parsed(&requested).summary().unwrap().is_pending);
        requested["status"]["lastHandledReconcileAt"] = json!("now");
        assert!(!parsed(&requested).summary().unwrap().is_pending);
        let mut broken = set();
        broken["spec"]["repositories"] = json!(7);
        let broken = parsed(&broken);
        assert!(broken.summary().is_none() && broken.error().is_some());
    }
}
