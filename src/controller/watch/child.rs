//! The part of a child that its set compares: its owner, and hashes of its spec and metadata.
//!
//! The cache keeps no labels and annotations, and 12,000 children must fit into memory. So hashes stand for them.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use kube::Resource as _;
use kube::core::ObjectMeta;

use crate::api::{ImageAttachmentSet, ImageAttachmentSpec, SET_LABEL};
use crate::attachment::sets::set_label;

/// The most labels and annotations that are compared. An object can have 256 KiB of them.
const MAX_HASHES: usize = 512;

/// A child of a set, or an attachment that was one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Child {
    set: Box<str>,
    owner: Owner,
    spec: u64,
    /// The kind of attachment, which never changes.
    kind: u64,
    /// Hashes of the labels and annotations, sorted.
    metadata: Box<[u64]>,
}

/// The owner that controls an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// No owner controls it: it was orphaned, or restored without owners.
    None,
    /// A set of this UID.
    Set(Box<str>),
    /// An object of another kind.
    Stranger,
}

impl Owner {
    /// Returns the owner in metadata, and the name of the set if it is one.
    pub(crate) fn of(meta: &ObjectMeta) -> (Self, Option<&str>) {
        let mut owners = meta.owner_references.iter().flatten();
        match owners.find(|owner| owner.controller == Some(true)) {
            None => (Self::None, None),
            Some(owner)
                if owner.kind == ImageAttachmentSet::kind(&())
                    && owner.api_version.split('/').next()
                        == Some(&*ImageAttachmentSet::group(&())) =>
            {
                (Self::Set(owner.uid.as_str().into()), Some(&owner.name))
            }
            Some(_) => (Self::Stranger, None),
        }
    }
}

impl Child {
    /// Returns the child of this metadata and spec, or `None` for an object that belongs to no set.
    pub(crate) fn of(meta: &ObjectMeta, spec: &ImageAttachmentSpec) -> Option<Self> {
        let (owner, name) = Owner::of(meta);
        let labels = meta.labels.iter().flatten();
        let label = || {
            let mut labels = labels.clone();
            labels.find(|(key, _)| *key == SET_LABEL)
        };
        let set = name.or_else(|| label().map(|(_, value)| value.as_str()))?;
        let annotations = meta.annotations.iter().flatten();
        let mut metadata: Vec<u64> = labels
            .map(|label| hash(&("label", label)))
            .chain(annotations.map(|annotation| hash(&("annotation", annotation))))
            .take(MAX_HASHES)
            .collect();
        metadata.sort_unstable();
        Some(Self {
            set: set.into(),
            owner,
            spec: hash(&serde_json::to_vec(spec).unwrap_or_default()),
            kind: hash(&spec.kind().map(|kind| kind.to_string())),
            metadata: metadata.into(),
        })
    }

    /// Returns the name of the set that owns it, or the value of the label.
    pub(crate) const fn set(&self) -> &str {
        &self.set
    }

    /// Returns whether the set of this name owns it, or its label names that set.
    pub(crate) fn is_of(&self, set: &str) -> bool {
        let name = match self.owner {
            Owner::Set(_) => Cow::Borrowed(set),
            Owner::None | Owner::Stranger => Cow::Owned(set_label(set)),
        };
        *self.set == *name
    }

    pub(crate) const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Returns whether the object has the owner, the spec, and all labels and annotations of `desired`. It may have more of both.
    pub(crate) fn matches(&self, desired: &Self) -> bool {
        self.owner == desired.owner
            && self.spec == desired.spec
            && (desired.metadata.iter()).all(|hash| self.metadata.binary_search(hash).is_ok())
    }

    /// Returns whether the object has the kind of attachment of `desired`.
    pub(crate) const fn has_kind_of(&self, desired: &Self) -> bool {
        self.kind == desired.kind
    }

    /// Returns whether the object has the spec of `desired`.
    pub(crate) const fn has_spec_of(&self, desired: &Self) -> bool {
        self.spec == desired.spec
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn child(object: &Value) -> Option<Child> {
        let meta = serde_json::from_value(object["metadata"].clone()).unwrap();
        let spec = serde_json::from_value(object["spec"].clone()).unwrap();
        Child::of(&meta, &spec)
    }

    fn object() -> Value {
        json!({
            "metadata": {
                "name": "a", "labels": {SET_LABEL: "releases", "team": "a"}, "annotations": {"affix.dev/tags": "v1"},
                "ownerReferences": [{"apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "name": "releases", "uid": "u",
                    "controller": true}],
            },
            "spec": {"image": "r.example.com/a:v1", "artifact": {"artifactType": "application/vnd.demo"}},
        })
    }

    #[test]
    fn more_labels_and_annotations_are_no_difference_and_everything_else_is() {
        let desired = child(&object()).unwrap();
        let differs = |change: fn(&mut Value)| {
            let mut changed = object();
            change(&mut changed);
            !child(&changed).is_some_and(|child| child.matches(&desired))
        };
        assert!(!differs(|_| {}));
        assert!(!differs(|object| {
            object["metadata"]["labels"]["other"] = json!("x");
            object["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"] = json!("now");
        }));
        assert!(differs(|object| object["spec"]["suspend"] = json!(true)));
        assert!(differs(
            |object| object["metadata"]["labels"]["team"] = json!("b")
        ));
        assert!(differs(
            |object| object["metadata"]["annotations"] = json!({})
        ));
        assert!(differs(
            |object| object["metadata"]["ownerReferences"] = json!([])
        ));
        assert!(differs(|object| {
            object["metadata"]["ownerReferences"][0]["uid"] = json!("earlier");
        }));
    }

    #[test]
    fn an_object_belongs_to_the_set_that_owns_it_or_to_the_one_of_its_label() {
        let mut orphan = object();
        orphan["metadata"]["ownerReferences"] = json!([]);
        let orphan = child(&orphan).unwrap();
        assert_eq!((orphan.set(), orphan.owner()), ("releases", &Owner::None));
        let mut unlabelled = object();
        unlabelled["metadata"]["labels"] = json!({});
        let unlabelled = child(&unlabelled).unwrap();
        assert_eq!(unlabelled.set(), "releases");
        let mut stranger = object();
        stranger["metadata"]["ownerReferences"][0]["kind"] = json!("Deployment");
        assert_eq!(child(&stranger).unwrap().owner(), &Owner::Stranger);
        assert!(child(&json!({"metadata": {}, "spec": {"image": "a"}})).is_none());
    }
}
