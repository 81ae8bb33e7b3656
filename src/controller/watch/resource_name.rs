//! The kind, namespace and name of a resource, as the work queue and the caches use them.

use std::fmt;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;

/// A kind of resource that the controller reconciles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Attachment,
    Set,
}

/// The kind, namespace and name of a resource, smaller than kube's `ObjectRef`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ResourceName {
    kind: Kind,
    namespace: Option<Box<str>>,
    name: Box<str>,
}

impl ResourceName {
    pub(crate) fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) const fn namespace(&self) -> &Option<Box<str>> {
        &self.namespace
    }

    pub(crate) const fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key of the resource in a store of its kind.
    pub(crate) fn object_ref<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
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
