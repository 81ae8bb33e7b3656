//! The claims of a resource, for another resource that is about to remove attachments.

use std::collections::HashSet;

use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use crate::api::{ConditionType, ImageAttachment, ImageAttachmentStatus, find_condition};
use crate::engine::{self, ListedAttachment};
use affix_registry::oci::{Digest, Reference};

/// The claims of one resource. The resource itself may be large and is read again if it is needed.
pub(crate) struct Claimant {
    pub(crate) metadata: ObjectMeta,
    /// The repositories of its spec, and of its status from an earlier spec.
    repositories: [Option<String>; 2],
    /// Status may not list all attachments that the spec needs.
    is_unsettled: bool,
    /// The manifests of its image, if they are known: then it needs no attachment of any other.
    manifests: Option<HashSet<Digest>>,
    /// The controller writes for it, and directly. A tenant's own proxy may lead to any server, and that server's answers prove nothing about
    /// the registry (threat T24).
    is_writer: bool,
    insecure: bool,
    attachments: Vec<ListedAttachment>,
}

impl Claimant {
    pub(crate) fn of(object: &ImageAttachment) -> Self {
        let (meta, spec) = (&object.metadata, &object.spec);
        let status = object.status.as_ref();
        let image = status.and_then(|status| status.image.as_ref());
        let references = [Some(&spec.image), image.map(|image| &image.reference)];
        let repository = |text: &String| Some(text.parse::<Reference>().ok()?.name());
        Self {
            metadata: ObjectMeta {
                creation_timestamp: meta.creation_timestamp.clone(),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                ..ObjectMeta::default()
            },
            repositories: references.map(|text| text.and_then(repository)),
            is_unsettled: is_unsettled(object),
            manifests: manifests(object),
            is_writer: !spec.dry_run() && !spec.suspend() && spec.proxy_secret_ref.is_none(),
            insecure: spec.insecure(),
            attachments: status
                .iter()
                .flat_map(|status| engine::attachments(status))
                .collect(),
        }
    }

    /// Returns whether it names the repository of `reference`.
    pub(crate) fn names(&self, reference: &Reference) -> bool {
        let name = reference.name();
        self.repositories
            .iter()
            .flatten()
            .any(|known| *known == name)
    }

    /// Returns whether it is in the namespace of `own`.
    pub(crate) fn is_local(&self, own: &ImageAttachment) -> bool {
        self.metadata.namespace == own.namespace()
    }

    /// Returns whether status lists an attachment. For a resource of another namespace than `own`, the controller must write to the same
    /// registry for both, and the resource must have shown that it may push the attachment.
    pub(crate) fn lists(
        &self,
        own: &ImageAttachment,
        subject: &Digest,
        attachment: &Digest,
    ) -> bool {
        let is_local = self.is_local(own);
        let is_writer = self.is_writer && self.insecure == own.spec.insecure();
        self.attachments.iter().any(|listed| {
            listed.subject == *subject
                && listed.attachment == *attachment
                && (is_local || (is_writer && listed.may_push))
        })
    }

    /// Returns whether a plan could need an attachment of `subject` that status does not list.
    pub(crate) fn may_need(&self, subject: &Digest) -> bool {
        let manifests = self.manifests.as_ref();
        self.is_unsettled && manifests.is_none_or(|manifests| manifests.contains(subject))
    }
}

/// Returns whether status may not list all attachments that the spec needs.
fn is_unsettled(object: &ImageAttachment) -> bool {
    let Some(status) = &object.status else {
        return true;
    };
    let ready = find_condition(&status.conditions, ConditionType::Ready);
    Some(status.observed_generation) != object.metadata.generation
        || ready.is_none_or(|ready| ready.status != "True")
}

/// Returns the manifests of an image, if spec pins the one that status lists whole. Without this the children of a set, which change
/// together, would each plan all others.
fn manifests(object: &ImageAttachment) -> Option<HashSet<Digest>> {
    let pinned = object.spec.image.parse::<Reference>().ok()?.digest?;
    let status = object.status.as_ref()?;
    let is_same = status
        .image
        .as_ref()?
        .digest
        .parse()
        .is_ok_and(|parsed: Digest| parsed == pinned);
    let targets = &status.targets;
    let is_whole = (1..ImageAttachmentStatus::MAX_SKIPPED).contains(&targets.len());
    let digests = || targets.iter().flat_map(|target| target.digest.parse());
    (is_same && is_whole).then(|| digests().collect())
}
