//! End-of-life dates from the status of ImageAttachments, indexed by image digest.
//!
//! Only resources of trusted namespaces count for all pods (threat T24). A tenant's own proxy or certificate authority can
//! make any registry response appear in the status of the tenant's resources. A resource in the pod's own namespace counts
//! only where it restricts the pod.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, Deserializer};

use crate::admission::pods::workload::NodeConstraints;
use crate::api::{
    EndOfLife, ImageAttachment, ImageAttachmentStatus, RawAttachment, SupersededState, TargetKind,
    TargetState,
};
use crate::attachment::{Created, EndOfLifeDate};
use crate::engine::{Basis, LifecycleReport, LifecycleType, Mark, Marks, PlatformReport};
use affix_registry::oci::{Digest, Reference};

/// Namespace and name of a resource.
type ObjectKey = (String, String);

/// The most images and platforms that are indexed of one namespace that is not trusted, and of all of them. A pod with an image beyond
/// that costs a registry look-up (threat T36).
const MAX_REPORTS: [usize; 2] = [10_000, 50_000];

/// An ImageAttachment of a list or watch, of which only the end-of-life dates are kept while it is read.
#[derive(Debug, Clone, Resource)]
#[resource(inherit = ImageAttachment)]
pub(crate) struct ListedAttachment {
    metadata: ObjectMeta,
    /// The artifact type and annotation of the marks.
    kind: (String, String),
    images: Vec<IndexedImage>,
}

impl<'de> Deserialize<'de> for ListedAttachment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = RawAttachment::deserialize(deserializer)?;
        let generation = object.metadata.generation;
        let parsed = object.parse().ok();
        let found = parsed.and_then(|(spec, status)| {
            let end_of_life = spec.end_of_life.as_ref()?;
            let kind = (
                end_of_life.artifact_type().to_owned(),
                end_of_life.annotation().to_owned(),
            );
            let images = indexed_images(generation, &spec.image, end_of_life, &status?);
            Some((kind, images))
        });
        let (kind, images) = found.unwrap_or_default();
        Ok(Self {
            metadata: ObjectMeta {
                name: object.metadata.name,
                namespace: object.metadata.namespace,
                resource_version: object.metadata.resource_version,
                uid: object.metadata.uid,
                ..ObjectMeta::default()
            },
            kind,
            images,
        })
    }
}

/// One image in the status of a resource.
#[derive(Debug, Clone, PartialEq)]
struct IndexedImage {
    /// `host/repository`.
    name: String,
    report: LifecycleReport,
}

/// The images of all resources, by resource and by digest.
#[derive(Default)]
struct Entries {
    by_resource: HashMap<ObjectKey, Vec<IndexedImage>>,
    by_digest: HashMap<Digest, Vec<ObjectKey>>,
    /// The number of images and platforms of each namespace that is not trusted.
    reports: HashMap<String, usize>,
}

/// Returns the number of images and platforms.
fn reports(images: &[IndexedImage]) -> usize {
    images
        .iter()
        .map(|image| 1 + image.report.platforms.len())
        .sum()
}

impl Entries {
    /// Replaces the images of a resource. An empty list removes the resource. Images beyond the limits are not indexed.
    fn set(&mut self, key: ObjectKey, images: Vec<IndexedImage>, is_trusted: bool) {
        self.remove(&key, is_trusted);
        if !is_trusted {
            let (added, all) = (reports(&images), self.reports.values().sum::<usize>());
            let own = self.reports.get(&key.0).copied().unwrap_or_default();
            let [of_namespace, of_all] = MAX_REPORTS;
            if own + added > of_namespace || all + added > of_all {
                tracing::debug!(namespace = key.0, name = key.1, "too many images to index");
                return;
            }
            if added > 0 {
                *self.reports.entry(key.0.clone()).or_default() += added;
            }
        }
        if images.is_empty() {
            return;
        }
        for image in &images {
            self.by_digest
                .entry(image.report.digest.clone())
                .or_default()
                .push(key.clone());
        }
        self.by_resource.insert(key, images);
    }

    fn remove(&mut self, key: &ObjectKey, is_trusted: bool) {
        let images = self.by_resource.remove(key).unwrap_or_default();
        if !is_trusted && let Some(count) = self.reports.get_mut(&key.0) {
            *count = count.saturating_sub(reports(&images));
            if *count == 0 {
                self.reports.remove(&key.0);
            }
        }
        for image in images {
            if let Some(keys) = self.by_digest.get_mut(&image.report.digest) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.by_digest.remove(&image.report.digest);
                }
            }
        }
    }
}

/// The index of ImageAttachments.
pub(crate) struct AttachmentIndex {
    types: Vec<LifecycleType>,
    trusted: Vec<String>,
    entries: RwLock<Entries>,
    /// The resources with images of each list in progress, by its namespace. Resources outside of the list are removed
    /// when it is complete.
    listed: Mutex<HashMap<Option<String>, HashSet<ObjectKey>>>,
}

impl AttachmentIndex {
    pub(crate) fn new(types: Vec<LifecycleType>, trusted: Vec<String>) -> Self {
        Self {
            types,
            trusted,
            entries: RwLock::default(),
            listed: Mutex::default(),
        }
    }

    /// Applies an event of the watch of all namespaces.
    #[cfg(test)]
    pub(crate) fn on_event(&self, event: Event<ListedAttachment>) {
        self.on_event_in(None, event);
    }

    /// Applies an event of the watch of a namespace, or of all with `None`.
    pub(crate) fn on_event_in(&self, scope: Option<&str>, event: Event<ListedAttachment>) {
        let key =
            |object: &ListedAttachment| (object.namespace().unwrap_or_default(), object.name_any());
        let images = |object: ListedAttachment| {
            let (artifact_type, annotation) = &object.kind;
            let is_configured = self.types.iter().any(|kind| {
                kind.artifact_type.as_str() == artifact_type && *kind.annotation == **annotation
            });
            if is_configured {
                object.images
            } else {
                Vec::new()
            }
        };
        let set = |key: ObjectKey, images| {
            let is_trusted = self.trusted.contains(&key.0);
            self.entries
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .set(key, images, is_trusted);
        };
        let mut all_listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = all_listed.entry(scope.map(str::to_owned)).or_default();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                let (key, images) = (key(&object), images(object));
                if !images.is_empty() {
                    listed.insert(key.clone());
                }
                set(key, images);
            }
            Event::Apply(object) => set(key(&object), images(object)),
            Event::Delete(object) => set(key(&object), Vec::new()),
            Event::InitDone => {
                let known: Vec<_> = self
                    .entries
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .by_resource
                    .keys()
                    .cloned()
                    .collect();
                let is_gone = |key: &ObjectKey| {
                    scope.is_none_or(|scope| key.0 == scope) && !listed.contains(key)
                };
                for gone in known.into_iter().filter(is_gone) {
                    set(gone, Vec::new());
                }
                *listed = HashSet::new();
            }
        }
    }

    /// Returns the reports on an image for a pod of `namespace`.
    pub(crate) fn reports(
        &self,
        reference: &Reference,
        digest: &Digest,
        namespace: &str,
    ) -> IndexedReports {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let Some(keys) = entries.by_digest.get(digest) else {
            return IndexedReports::default();
        };
        let name = reference.name();
        let mut reports = IndexedReports::default();
        for key in keys {
            let is_trusted = self.trusted.contains(&key.0);
            if !is_trusted && key.0 != namespace {
                continue;
            }
            let slot = if is_trusted {
                &mut reports.trusted
            } else {
                &mut reports.own
            };
            for image in entries
                .by_resource
                .get(key)
                .into_iter()
                .flatten()
                .filter(|image| image.name == name && image.report.digest == *digest)
            {
                *slot = Some(match slot.take() {
                    Some(report) => report.merge(&image.report),
                    None => image.report.clone(),
                });
            }
        }
        reports
    }
}

/// The reports of the cluster on one image.
#[derive(Debug, Clone, Default)]
pub(crate) struct IndexedReports {
    /// From trusted namespaces.
    pub(crate) trusted: Option<LifecycleReport>,
    /// From the namespace of the pod.
    own: Option<LifecycleReport>,
}

impl IndexedReports {
    /// Returns the reports where only signed dates are enforced. A status is not signed.
    pub(crate) fn unsigned(self) -> Self {
        Self {
            trusted: self.trusted.map(LifecycleReport::unsigned),
            own: None,
        }
    }

    /// Returns the report that makes a registry look-up unnecessary for a pod on `nodes`.
    ///
    /// A trusted report is conclusive if it has every applicable mark. A report from the pod's own namespace is conclusive
    /// if every applicable date has passed.
    pub(crate) fn conclusive(
        &self,
        nodes: &NodeConstraints,
        now: SignedDuration,
    ) -> Option<LifecycleReport> {
        if let Some(trusted) = self
            .trusted
            .as_ref()
            .filter(|report| report.applicable_marks(nodes).iter().all(Option::is_some))
        {
            return Some(trusted.clone());
        }
        let has_ended = |report: &&LifecycleReport| {
            report
                .applicable_marks(nodes)
                .iter()
                .all(|mark| mark.is_some_and(|mark| mark.has_ended(now)))
        };
        self.own.as_ref().filter(has_ended).cloned()
    }
}

/// Returns the images and dates of a resource whose status is current.
fn indexed_images(
    generation: Option<i64>,
    image: &str,
    end_of_life: &EndOfLife,
    status: &ImageAttachmentStatus,
) -> Vec<IndexedImage> {
    let Ok(reference) = image.parse::<Reference>() else {
        return Vec::new();
    };
    if Some(status.observed_generation) != generation {
        return Vec::new();
    }
    let name = reference.name();
    let reports = match &end_of_life.date {
        Some(date) => date
            .parse()
            .ok()
            .and_then(|date| current_image(status, &date))
            .into_iter()
            .collect(),
        None => superseded_images(status),
    };
    reports
        .into_iter()
        .map(|report| IndexedImage {
            name: name.clone(),
            report,
        })
        .collect()
}

/// Returns the report on the image in the status, with a mark on every attached target.
fn current_image(status: &ImageAttachmentStatus, date: &EndOfLifeDate) -> Option<LifecycleReport> {
    let digest: Digest = status.image.as_ref()?.digest.parse().ok()?;
    let targets = status.targets.iter().filter_map(|target| {
        let created = target
            .created
            .as_ref()
            .map(|created| Created::at(created.0));
        let mark = (target.state == TargetState::Attached).then(|| Mark {
            date: date.clone(),
            created,
            basis: Basis::Enforced,
        });
        Some((target, target.digest.parse::<Digest>().ok()?, mark))
    });
    let mut report = LifecycleReport {
        digest,
        marks: Marks::default(),
        platforms: Vec::new(),
    };
    for (target, digest, mark) in targets {
        if digest == report.digest {
            report.marks = mark.into();
        } else if let (TargetKind::Platform, Some(Ok(platform))) = (
            target.kind,
            target.platform.as_ref().map(|text| text.parse()),
        ) {
            report.platforms.push(PlatformReport {
                platform,
                digest,
                marks: mark.into(),
            });
        }
    }
    let has_marks = !report.marks.is_empty()
        || report
            .platforms
            .iter()
            .any(|platform| !platform.marks.is_empty());
    has_marks.then_some(report)
}

/// Returns a report for each superseded image that has its mark.
fn superseded_images(status: &ImageAttachmentStatus) -> Vec<LifecycleReport> {
    status
        .superseded
        .iter()
        .filter(|image| image.state == SupersededState::Attached)
        .filter_map(|image| {
            let created = Created::at(Timestamp::from_second(image.moved_at.0.as_second()).ok()?);
            let mark = Mark {
                date: image.date.as_ref()?.parse().ok()?,
                created: Some(created),
                basis: Basis::Enforced,
            };
            Some(LifecycleReport {
                digest: image.digest.parse().ok()?,
                marks: Some(mark).into(),
                platforms: Vec::new(),
            })
        })
        .collect()
}
