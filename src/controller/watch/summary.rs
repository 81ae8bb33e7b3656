//! The summary of a resource: the properties that are read for all resources at once, or before a resource has its turn.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;

use crate::api::{
    ConditionType, DeletionPolicy, ImageAttachmentSpec, ImageAttachmentStatus, Reason, TargetState,
    find_condition,
};
use crate::controller::watch::request::has_pending_change;
use crate::controller::watch::secret_watch::SourceKind;
use crate::engine::{self, Names};
use affix_registry::oci::Reference;

/// The most characters of a registry's name. A longer one is invalid.
const MAX_HOST_CHARS: usize = 260;

/// The properties of a resource that are known without its spec and status. Its size has a bound of a few hundred bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The size of spec and status in bytes.
    pub(crate) size: usize,
    /// Hashes of the repositories in spec and status.
    repositories: [Option<u32>; 2],
    /// The registry's part of the image. It may be invalid.
    pub(crate) host: Box<str>,
    /// Hashes of the Secrets and ConfigMaps in the spec.
    references: Box<[u32]>,
    has_service_account: bool,
    pub(crate) interval: Duration,
    /// The time at which the resource is due without a change in the registry.
    pub(crate) due_at: Option<Timestamp>,
    /// The last reconcile has not seen the current spec or request.
    pub(crate) is_pending: bool,
    pub(crate) is_suspended: bool,
    /// The policy is to delete the attachments with the resource.
    pub(crate) deletes: bool,
    /// The deletion of the resource sends requests to the registry.
    pub(crate) needs_cleanup: bool,
    /// The resource may keep an attachment of another namespace.
    pub(crate) may_keep: bool,
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

impl Summary {
    pub(crate) fn new(
        meta: &ObjectMeta,
        spec: &ImageAttachmentSpec,
        status: Option<&ImageAttachmentStatus>,
        size: usize,
    ) -> Self {
        let image = status
            .and_then(|status| status.image.as_ref())
            .map(|image| &image.reference);
        let conditions = status
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        let count = |state| {
            let targets = status.iter().flat_map(|status| &status.targets);
            let count = targets.filter(|target| target.state == state).count();
            u16::try_from(count).unwrap_or(u16::MAX)
        };
        let names = Names::of(spec);
        let deletes = spec.deletion_policy() == DeletionPolicy::Delete;
        let writes = !spec.suspend() && !spec.dry_run();
        let now = Timestamp::now();
        let due = status.and_then(|status| engine::due_in(spec, status, now));
        let pushes = |status| engine::attachments(status).any(|listed| listed.may_push);
        Self {
            size,
            repositories: [Some(&spec.image), image]
                .map(|image| image?.parse().ok().as_ref().map(repository_hash)),
            host: registry_host(&spec.image),
            references: reference_hashes(&names),
            has_service_account: names.service_account.is_some(),
            interval: spec.interval(),
            due_at: due.and_then(|due| now.checked_add(due).ok()),
            is_pending: has_pending_change(meta, status),
            is_suspended: spec.suspend(),
            deletes,
            needs_cleanup: deletes && writes,
            may_keep: writes && spec.proxy_secret_ref.is_none() && status.is_some_and(pushes),
            has_ready: find_condition(conditions, ConditionType::Ready).is_some(),
            conditions: condition_summaries(conditions),
            targets: STATES.map(count),
        }
    }

    /// Returns `false` only if neither spec nor status names the repository of `reference`. Hashes may collide.
    pub(crate) fn may_name_repository(&self, reference: &Reference) -> bool {
        self.repositories
            .contains(&Some(repository_hash(reference)))
    }

    /// Returns `false` only if the spec does not name the object. Hashes may collide.
    pub(crate) fn may_reference(&self, kind: SourceKind, name: &str) -> bool {
        may_reference(&self.references, kind, name)
    }

    /// Returns a hash of the repository in the spec.
    pub(crate) const fn image_repository(&self) -> Option<u32> {
        let [image, _] = self.repositories;
        image
    }

    pub(crate) const fn has_service_account(&self) -> bool {
        self.has_service_account
    }

    /// Returns whether the resource is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let mut known = self.conditions.iter().flatten();
        known.any(|(kind, status, _)| *kind == ConditionType::Ready && *status == Some(true))
    }
}

/// Returns the conditions with a status and reason that affix knows.
pub(crate) fn condition_summaries(
    conditions: &[Condition],
) -> [Option<ConditionSummary>; ConditionType::ALL.len()] {
    ConditionType::ALL.map(|kind| {
        let condition = find_condition(conditions, kind)?;
        let status = match condition.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            "Unknown" => None,
            _ => return None,
        };
        Some((kind, status, condition.reason.parse().ok()?))
    })
}

/// Returns the registry's part of an image or repository. It works for invalid references too.
pub(crate) fn registry_host(image: &str) -> Box<str> {
    let host = image.split('/').next().unwrap_or_default().chars();
    host.take(MAX_HOST_CHARS).collect()
}

/// Returns `false` only if no hash is that of the object's kind and name.
pub(crate) fn may_reference(references: &[u32], kind: SourceKind, name: &str) -> bool {
    references.contains(&hash(&(kind, name)))
}

/// Returns hashes of the Secrets and ConfigMaps.
pub(crate) fn reference_hashes(names: &Names) -> Box<[u32]> {
    let secrets = names.secrets.iter().map(|name| (SourceKind::Secret, name));
    let config_maps = names.config_maps.iter();
    let config_maps = config_maps.map(|name| (SourceKind::ConfigMap, name));
    secrets
        .chain(config_maps)
        .map(|(kind, name)| hash(&(kind, name.as_str())))
        .collect()
}

/// Returns the hash of a repository without tag and digest.
pub(crate) fn repository_hash_of(repository: &str) -> Option<u32> {
    let reference: Reference = format!("{repository}:latest").parse().ok()?;
    Some(repository_hash(&reference))
}

fn repository_hash(reference: &Reference) -> u32 {
    hash(&reference.name())
}

fn hash(value: &impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish() as u32
}
