//! The children of a set: their names, their metadata, and the children that already exist.

use std::collections::BTreeSet;

use kube::core::ObjectMeta;

use crate::api::{
    ConditionType, ImageAttachment, Reason, SET_LABEL, TAGS_ANNOTATION, find_condition,
};
use crate::attachment::EndOfLifeDate;
use affix_registry::oci::{Digest, Reference, Tag};

use super::policy::{SetPolicy, SetRepository};

/// The maximum number of manifests that `targets.digests` lists.
pub(super) const MAX_DIGESTS: usize = 100;

/// The maximum length of the value of a label.
const LABEL_MAX: usize = 63;
/// The maximum length of the part of a child's name that is the name of its set.
const NAME_MAX: usize = 200;

/// A child that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingChild {
    /// Its name.
    pub name: String,
    /// Its repository as `host/repository`.
    pub repository: String,
    /// The tag of its image.
    pub tag: Option<Tag>,
    /// The digest of its image.
    pub root: Digest,
    /// Its `targets.digests`.
    pub digests: Option<BTreeSet<Digest>>,
    /// The date of its marks.
    pub date: Option<EndOfLifeDate>,
    /// The tags of its annotation.
    pub tags: BTreeSet<Tag>,
    /// True if the last pass found that the registry lacks its image.
    pub is_gone: bool,
}

impl ExistingChild {
    /// Reads a child. Returns `None` for an object without a name or a digest, which no set has made.
    #[must_use]
    pub fn of(object: &ImageAttachment) -> Option<Self> {
        let reference: Reference = object.spec.image.parse().ok()?;
        let mark = object.spec.end_of_life.as_ref();
        let targets = object.spec.targets.as_ref();
        let digests = targets.and_then(|targets| targets.digests.as_ref());
        let tags = (object.metadata.annotations.as_ref())
            .and_then(|annotations| annotations.get(TAGS_ANNOTATION));
        let status = object.status.as_ref();
        let ready =
            status.and_then(|status| find_condition(&status.conditions, ConditionType::Ready));
        Some(Self {
            name: object.metadata.name.clone()?,
            repository: reference.name(),
            root: reference.digest?,
            tag: reference.tag,
            digests: digests.map(|digests| digests.iter().flat_map(|text| text.parse()).collect()),
            date: mark.and_then(|mark| mark.date.as_deref()?.parse().ok()),
            tags: tags
                .into_iter()
                .flat_map(|tags| tags.split(','))
                .flat_map(str::parse)
                .collect(),
            is_gone: ready.is_some_and(|ready| ready.reason == Reason::NotFound.as_str()),
        })
    }

    pub(super) fn lists(&self, digest: &Digest) -> bool {
        self.digests
            .as_ref()
            .is_some_and(|digests| digests.contains(digest))
    }
}

/// A child as it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// The position of its repository in the spec of the set.
    pub repository: usize,
    /// The digest of its image.
    pub root: Digest,
    /// The object, without namespace and owner reference.
    pub object: ImageAttachment,
}

/// Returns the name of a child, which follows from set, repository and digest.
#[must_use]
pub fn child_name(set: &str, repository: &str, root: &Digest) -> String {
    let hash = Digest::sha256(format!("{set}\n{repository}\n{root}").as_bytes());
    let prefix: String = set.chars().take(NAME_MAX).collect();
    format!(
        "{}-{}",
        prefix.trim_end_matches(['-', '.']),
        short(&hash, 16)
    )
}

/// Returns the value of the label of a set's children: its name, or a shortened name with a hash where a label cannot hold the name.
#[must_use]
pub fn set_label(set: &str) -> String {
    if set.len() <= LABEL_MAX {
        return set.to_owned();
    }
    let hash = Digest::sha256(set.as_bytes());
    let prefix: String = set.chars().take(LABEL_MAX - 17).collect();
    format!(
        "{}-{}",
        prefix.trim_end_matches(['-', '.']),
        short(&hash, 16)
    )
}

fn short(digest: &Digest, length: usize) -> String {
    digest.hex().chars().take(length).collect()
}

/// Makes the object of a child.
pub(super) fn object(
    set: &str,
    policy: &SetPolicy,
    repository: &SetRepository,
    (tag, root): (Option<&Tag>, &Digest),
    tags: &BTreeSet<Tag>,
    mark: Option<(&BTreeSet<Digest>, &EndOfLifeDate)>,
) -> ImageAttachment {
    let reference = Reference {
        tag: tag.cloned(),
        digest: Some(root.clone()),
        ..repository.reference()
    };
    let digests = mark.map(|(digests, _)| digests.iter().map(ToString::to_string).collect());
    let date = mark.map(|(_, date)| date.to_string());
    let metadata = policy.template.metadata.clone().unwrap_or_default();
    let (mut labels, mut annotations) = (metadata.labels, metadata.annotations);
    labels.insert(SET_LABEL.to_owned(), set_label(set));
    let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    annotations.insert(TAGS_ANNOTATION.to_owned(), tags.join(","));
    let spec = policy
        .template
        .spec
        .child(reference.to_string(), digests, date);
    ImageAttachment {
        metadata: ObjectMeta {
            name: Some(child_name(set, &repository.name, root)),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        ..ImageAttachment::new("", spec)
    }
}
