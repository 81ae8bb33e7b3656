//! A flow: the resources of one priority, namespace and registry, which wait in order and share permits.

use std::cmp::Ordering;
use std::sync::Arc;

use affix_registry::Priority;

/// The size in bytes above which a resource counts as large.
const LARGE: usize = 64 << 10;

/// A part of the queue in which resources wait in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) lane: Lane,
    pub(crate) namespace: Arc<str>,
    /// The registry's host. `None`: the concurrency limits do not apply.
    pub(crate) host: Option<Arc<str>>,
}

/// A part of the concurrency with a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub(crate) priority: Priority,
    pub(crate) is_slow: bool,
    /// The resources are large, and a reconcile has several copies in memory (threat T36).
    pub(crate) is_large: bool,
}

/// The cause for which a flow gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The lane is full.
    Lane,
    /// The namespace has its share of the lane.
    Namespace,
    /// The registry has its share of the lane.
    Registry,
    /// The flow belongs to the other lane of its priority.
    OtherLane,
}

impl Flow {
    /// Returns the flow of a registry for the resources of a namespace.
    pub(crate) fn to_host(priority: Priority, namespace: &str, host: &str) -> Self {
        Self {
            lane: Lane {
                priority,
                is_slow: false,
                is_large: false,
            },
            namespace: namespace.into(),
            host: Some(host.into()),
        }
    }

    /// Returns the same flow for resources with so many bytes of spec and status.
    pub(crate) fn for_size(mut self, size: usize) -> Self {
        self.lane.is_large = size > LARGE;
        self
    }

    /// Returns the flow of resources that need no registry.
    pub(crate) fn unlimited(namespace: &str) -> Self {
        Self {
            host: None,
            ..Self::to_host(Priority::Interactive, namespace, "")
        }
    }

    /// Returns the same flow in the other lane of its priority.
    pub(crate) fn in_other_lane(&self) -> Self {
        let mut other = self.clone();
        other.lane.is_slow = !self.lane.is_slow;
        other
    }

    /// Returns whether a resource in this flow stays in it when it is added to `other`.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        let is_same = self.host == other.host
            && self.namespace == other.namespace
            && self.lane.is_large == other.lane.is_large;
        match self.lane.priority.cmp(&other.lane.priority) {
            Ordering::Greater => true,
            Ordering::Equal => is_same,
            Ordering::Less => false,
        }
    }
}
