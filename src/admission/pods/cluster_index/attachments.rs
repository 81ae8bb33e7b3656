//! End-of-life dates from the status of ImageAttachments, indexed by image digest.
//!
//! Only resources of trusted namespaces count for all pods (threat T24). A tenant's own proxy or certificate authority can
//! make any registry response appear in the status of the tenant's resources. A resource in the pod's own namespace counts
//! only where it restricts the pod.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError, RwLock};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;

use crate::admission::options::LifecycleType;
use crate::admission::pods::lifecycle_report::{LifecycleReport, PlatformReport};
use crate::admission::pods::mark::Mark;
use crate::admission::pods::workload::NodeConstraints;
use crate::api::{
    ImageAttachment, ImageAttachmentStatus, SupersededState, TargetKind, TargetState,
};
use crate::attachment::{Created, EndOfLifeDate};
use affix_registry::oci::{Digest, Reference};

/// Namespace and name of a resource.
type ObjectKey = (String, String);

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
}

impl Entries {
    /// Replaces the images of a resource. An empty list removes the resource.
    fn set(&mut self, key: ObjectKey, images: Vec<IndexedImage>) {
        for image in self.by_resource.remove(&key).into_iter().flatten() {
            if let Some(keys) = self.by_digest.get_mut(&image.report.digest) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.by_digest.remove(&image.report.digest);
                }
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
}

/// The index of ImageAttachments.
pub(crate) struct AttachmentIndex {
    types: Vec<LifecycleType>,
    trusted: Vec<String>,
    entries: RwLock<Entries>,
    /// The resources of each list in progress, by its namespace. Resources outside of the list are removed
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
    pub(crate) fn on_event(&self, event: Event<DeserializeGuard<ImageAttachment>>) {
        self.on_event_in(None, event);
    }

    /// Applies an event of the watch of a namespace, or of all with `None`.
    pub(crate) fn on_event_in(
        &self,
        scope: Option<&str>,
        event: Event<DeserializeGuard<ImageAttachment>>,
    ) {
        let key = |object: &DeserializeGuard<ImageAttachment>| {
            (object.namespace().unwrap_or_default(), object.name_any())
        };
        let images = |object: &DeserializeGuard<ImageAttachment>| {
            object
                .0
                .as_ref()
                .map(|resource| indexed_images(resource, &self.types))
                .unwrap_or_default()
        };
        let set = |key, images| {
            self.entries
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .set(key, images);
        };
        let mut all_listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = all_listed.entry(scope.map(str::to_owned)).or_default();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                set(key(&object), images(&object));
                listed.insert(key(&object));
            }
            Event::Apply(object) => set(key(&object), images(&object)),
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
fn indexed_images(resource: &ImageAttachment, types: &[LifecycleType]) -> Vec<IndexedImage> {
    let (Some(status), Some(end_of_life)) = (&resource.status, &resource.spec.end_of_life) else {
        return Vec::new();
    };
    let is_configured = types.iter().any(|kind| {
        kind.artifact_type.as_str() == end_of_life.artifact_type()
            && *kind.annotation == *end_of_life.annotation()
    });
    let Ok(reference) = resource.spec.image.parse::<Reference>() else {
        return Vec::new();
    };
    if !is_configured || Some(status.observed_generation) != resource.metadata.generation {
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
        });
        Some((target, target.digest.parse::<Digest>().ok()?, mark))
    });
    let mut report = LifecycleReport {
        digest,
        mark: None,
        platforms: Vec::new(),
    };
    for (target, digest, mark) in targets {
        if digest == report.digest {
            report.mark = mark;
        } else if let (TargetKind::Platform, Some(Ok(platform))) = (
            target.kind,
            target.platform.as_ref().map(|text| text.parse()),
        ) {
            report.platforms.push(PlatformReport {
                platform,
                digest,
                mark,
            });
        }
    }
    let has_marks = report.mark.is_some()
        || report
            .platforms
            .iter()
            .any(|platform| platform.mark.is_some());
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
            };
            Some(LifecycleReport {
                digest: image.digest.parse().ok()?,
                mark: Some(mark),
                platforms: Vec::new(),
            })
        })
        .collect()
}
