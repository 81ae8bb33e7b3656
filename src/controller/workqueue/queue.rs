//! The work queue: resources that need a reconcile now, and resources to requeue after a delay.
//!
//! Each resource is queued once, in the flow of its priority and registry. Flows take turns; a flow without a free permit does
//! not block the others. A resource is never reconciled twice at once: if it is added during its reconcile, it is queued again
//! when that ends.

use affix_registry::Priority;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use crate::controller::watch::cache::ResourceName;

/// The longest delay. `DelayQueue` panics above two years.
const MAX_DELAY: Duration = Duration::from_hours(24 * 365);

/// A part of the queue in which resources wait in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) priority: Priority,
    /// The registry's host. `None`: the concurrency limits do not apply.
    pub(crate) host: Option<Arc<str>>,
}

/// A resource taken from the queue.
#[derive(Debug)]
pub(crate) struct Taken<P> {
    pub(crate) name: Arc<ResourceName>,
    pub(crate) permit: P,
    pub(crate) queued_at: Instant,
}

/// The work queue. One task owns it.
#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    queued: HashMap<Arc<ResourceName>, Queued>,
    /// The resources of each flow. An entry is stale unless its number is that of the resource in `queued`.
    flows: HashMap<Flow, VecDeque<(u64, Arc<ResourceName>)>>,
    /// The flows that are not empty, in the order of their turns.
    turns: VecDeque<Flow>,
    /// The resources being reconciled, each with the flow in which to queue it afterwards.
    in_flight: HashMap<Arc<ResourceName>, Option<Flow>>,
    last_number: u64,
    delayed: DelayQueue<Arc<ResourceName>>,
    delay_keys: HashMap<Arc<ResourceName>, Key>,
}

#[derive(Debug)]
struct Queued {
    flow: Flow,
    number: u64,
    since: Instant,
}

impl Flow {
    /// Returns the flow of a registry.
    pub(crate) fn to_host(priority: Priority, host: &str) -> Self {
        Self {
            priority,
            host: Some(host.into()),
        }
    }

    /// Returns the flow of resources that are being deleted or cannot be parsed. A deletion acquires its permit itself, within
    /// its own time limit.
    pub(crate) const fn unlimited() -> Self {
        Self {
            priority: Priority::Interactive,
            host: None,
        }
    }

    /// Returns whether a resource in this flow stays in it when it is added to `other`.
    fn supersedes(&self, other: &Self) -> bool {
        self == other || self.priority > other.priority
    }
}

impl WorkQueue {
    /// Queues a resource. A queued one moves to the other flow, unless that has a lower priority.
    pub(crate) fn add(&mut self, name: Arc<ResourceName>, flow: Flow) {
        if let Some(next) = self.in_flight.get_mut(&name) {
            if !next.as_ref().is_some_and(|next| next.supersedes(&flow)) {
                *next = Some(flow);
            }
            return;
        }
        let queued = self.queued.get(&name);
        if queued.is_some_and(|queued| queued.flow.supersedes(&flow)) {
            return;
        }
        let since = queued.map_or_else(Instant::now, |queued| queued.since);
        self.last_number += 1;
        let number = self.last_number;
        let resources = self.flows.entry(flow.clone()).or_default();
        if resources.is_empty() {
            self.turns.push_back(flow.clone());
        }
        resources.push_back((number, Arc::clone(&name)));
        let queued = Queued {
            flow,
            number,
            since,
        };
        self.queued.insert(name, queued);
    }

    /// Takes the next resource whose flow gets a permit. It is in flight until [`finish`](Self::finish).
    pub(crate) fn take<P>(
        &mut self,
        mut acquire: impl FnMut(&Flow) -> Option<P>,
    ) -> Option<Taken<P>> {
        for _ in 0..self.turns.len() {
            let flow = self.turns.pop_front()?;
            let taken = self.take_from(&flow, &mut acquire);
            match self.flows.get(&flow) {
                Some(resources) if !resources.is_empty() => self.turns.push_back(flow),
                _ => drop(self.flows.remove(&flow)),
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    fn take_from<P>(
        &mut self,
        flow: &Flow,
        acquire: impl FnOnce(&Flow) -> Option<P>,
    ) -> Option<Taken<P>> {
        let resources = self.flows.get_mut(flow)?;
        while let Some((number, name)) = resources.front() {
            if self
                .queued
                .get(name)
                .is_some_and(|queued| queued.number == *number)
            {
                break;
            }
            resources.pop_front();
        }
        resources.front()?;
        let permit = acquire(flow)?;
        let (_, name) = resources.pop_front()?;
        let queued = self.queued.remove(&name)?;
        self.in_flight.insert(Arc::clone(&name), None);
        self.cancel_delay(&name);
        Some(Taken {
            name,
            permit,
            queued_at: queued.since,
        })
    }

    /// Ends the reconcile of a resource. If it was added meanwhile, it is queued now, otherwise after the delay, if any.
    pub(crate) fn finish(&mut self, name: &Arc<ResourceName>, requeue_after: Option<Duration>) {
        if let Some(flow) = self.in_flight.remove(name).flatten() {
            self.add(Arc::clone(name), flow);
        } else if let Some(delay) = requeue_after {
            self.cancel_delay(name);
            let key = self.delayed.insert(Arc::clone(name), delay.min(MAX_DELAY));
            self.delay_keys.insert(Arc::clone(name), key);
        }
    }

    /// Cancels the delayed requeue of a resource.
    pub(crate) fn cancel_delay(&mut self, name: &ResourceName) {
        if let Some(key) = self.delay_keys.remove(name) {
            self.delayed.try_remove(&key);
        }
    }

    /// Waits for the next resource whose delay has passed. The caller adds it.
    pub(crate) async fn next_due(&mut self) -> Arc<ResourceName> {
        let name = poll_fn(|cx| match self.delayed.poll_expired(cx) {
            Poll::Ready(Some(expired)) => Poll::Ready(expired.into_inner()),
            // An empty queue stays pending: the caller drops this future before it adds to the queue.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        })
        .await;
        self.delay_keys.remove(&name);
        name
    }

    /// Returns the number of queued resources. Delayed ones do not count.
    pub(crate) fn len(&self) -> usize {
        self.queued.len()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests;
