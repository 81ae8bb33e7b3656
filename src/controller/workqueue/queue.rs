//! The work queue: resources that need a reconcile now, and resources to requeue after a delay.
//!
//! Each resource is queued once, in the flow of its priority, namespace and registry. Namespaces take turns, and so do the
//! registries of a namespace; a flow without a free permit does not block the others. A resource is never reconciled twice at
//! once: if it is added during its reconcile, it is queued again when that ends.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use crate::controller::watch::resource_name::ResourceName;
use crate::controller::workqueue::flow::{Denied, Flow, Lane};

/// The longest delay. `DelayQueue` panics above two years.
const MAX_DELAY: Duration = Duration::from_hours(24 * 365);

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
    /// The groups with a flow, in the order of their turns.
    turns: VecDeque<Group>,
    /// The flows of each group that are not empty, in the order of their turns.
    groups: HashMap<Group, VecDeque<Flow>>,
    /// The resources being reconciled, each with the flow in which to queue it afterwards.
    in_flight: HashMap<Arc<ResourceName>, Option<Flow>>,
    last_number: u64,
    delayed: DelayQueue<Arc<ResourceName>>,
    delay_keys: HashMap<Arc<ResourceName>, Key>,
}

/// The flows of a namespace that share permits. `lane` is `None` for those without limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Group {
    lane: Option<Lane>,
    namespace: Arc<str>,
}

/// The result of an attempt to take a resource of a group.
enum Attempt<P> {
    Taken(Taken<P>),
    Denied(Option<Denied>),
}

#[derive(Debug)]
struct Queued {
    flow: Flow,
    number: u64,
    since: Instant,
}

impl Group {
    fn of(flow: &Flow) -> Self {
        Self {
            lane: flow.host.is_some().then_some(flow.lane),
            namespace: Arc::clone(&flow.namespace),
        }
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
        self.insert(name, flow, since);
    }

    /// Queues a resource that becomes due if it still waits in the queue after `longest_wait`.
    pub(crate) fn add_until(
        &mut self,
        name: &Arc<ResourceName>,
        flow: Flow,
        longest_wait: Option<Duration>,
    ) {
        self.add(Arc::clone(name), flow);
        if let Some(longest_wait) = longest_wait.filter(|_| self.is_queued(name)) {
            self.delay(name, longest_wait);
        }
    }

    /// Returns whether a resource waits in the queue.
    pub(crate) fn is_queued(&self, name: &Arc<ResourceName>) -> bool {
        self.queued.contains_key(name)
    }

    fn insert(&mut self, name: Arc<ResourceName>, flow: Flow, since: Instant) {
        self.last_number += 1;
        let number = self.last_number;
        let resources = self.flows.entry(flow.clone()).or_insert_with(|| {
            let group = Group::of(&flow);
            let flows = self.groups.entry(group.clone()).or_insert_with(|| {
                self.turns.push_back(group);
                VecDeque::new()
            });
            flows.push_back(flow.clone());
            VecDeque::new()
        });
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
        mut acquire: impl FnMut(&Flow) -> Result<P, Denied>,
    ) -> Option<Taken<P>> {
        let mut full = Vec::new();
        let mut position = 0;
        while let Some(group) = self.turns.get(position).cloned() {
            if group.lane.is_some_and(|lane| full.contains(&lane)) {
                position += 1;
                continue;
            }
            let attempt = self.take_from_group(&group, &mut acquire);
            let is_empty = self.groups.get(&group).is_none_or(VecDeque::is_empty);
            if is_empty {
                self.groups.remove(&group);
                self.turns.remove(position);
            }
            match attempt {
                Attempt::Taken(taken) => {
                    if !is_empty && let Some(group) = self.turns.remove(position) {
                        self.turns.push_back(group);
                    }
                    return Some(taken);
                }
                Attempt::Denied(denied) => {
                    if denied == Some(Denied::Lane) {
                        full.extend(group.lane);
                    }
                    position += usize::from(!is_empty);
                }
            }
        }
        None
    }

    /// Takes a resource of the group's next flow that gets a permit.
    fn take_from_group<P>(
        &mut self,
        group: &Group,
        acquire: &mut impl FnMut(&Flow) -> Result<P, Denied>,
    ) -> Attempt<P> {
        let mut position = 0;
        loop {
            let Some(flow) = self
                .groups
                .get(group)
                .and_then(|flows| flows.get(position).cloned())
            else {
                return Attempt::Denied(None);
            };
            let attempt = self.take_from(&flow, &mut *acquire);
            let is_empty = self.flows.get(&flow).is_none_or(VecDeque::is_empty);
            if is_empty {
                self.flows.remove(&flow);
            }
            let is_taken = matches!(attempt, Some(Ok(_)));
            if let Some(flows) = self.groups.get_mut(group)
                && (is_empty || is_taken)
            {
                let flow = flows.remove(position);
                flows.extend(flow.filter(|_| !is_empty));
            }
            match attempt {
                Some(Ok(taken)) => return Attempt::Taken(taken),
                Some(Err(denied @ (Denied::Lane | Denied::Namespace))) => {
                    return Attempt::Denied(Some(denied));
                }
                Some(Err(Denied::OtherLane)) => self.move_to_other_lane(group, position),
                Some(Err(Denied::Registry)) => position += 1,
                None => {}
            }
        }
    }

    /// Moves all resources of a flow to the other lane, in their order.
    fn move_to_other_lane(&mut self, group: &Group, position: usize) {
        let flows = self.groups.get_mut(group);
        let Some(flow) = flows.and_then(|flows| flows.remove(position)) else {
            return;
        };
        let other = flow.in_other_lane();
        for (number, name) in self.flows.remove(&flow).into_iter().flatten() {
            if let Some(queued) = self
                .queued
                .get(&name)
                .filter(|queued| queued.number == number)
            {
                let since = queued.since;
                self.insert(name, other.clone(), since);
            }
        }
    }

    /// Takes the next resource of a flow. `None`: it has none.
    fn take_from<P>(
        &mut self,
        flow: &Flow,
        acquire: impl FnOnce(&Flow) -> Result<P, Denied>,
    ) -> Option<Result<Taken<P>, Denied>> {
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
        let permit = match acquire(flow) {
            Ok(permit) => permit,
            Err(denied) => return Some(Err(denied)),
        };
        let (_, name) = resources.pop_front()?;
        let queued = self.queued.remove(&name)?;
        self.in_flight.insert(Arc::clone(&name), None);
        self.cancel_delay(&name);
        Some(Ok(Taken {
            name,
            permit,
            queued_at: queued.since,
        }))
    }

    /// Ends the reconcile of a resource. If it was added meanwhile, it is queued now, otherwise after the delay, if any.
    pub(crate) fn finish(&mut self, name: &Arc<ResourceName>, requeue_after: Option<Duration>) {
        if let Some(flow) = self.in_flight.remove(name).flatten() {
            self.add(Arc::clone(name), flow);
        } else if let Some(delay) = requeue_after {
            self.delay(name, delay);
        }
    }

    fn delay(&mut self, name: &Arc<ResourceName>, delay: Duration) {
        self.cancel_delay(name);
        let key = self.delayed.insert(Arc::clone(name), delay.min(MAX_DELAY));
        self.delay_keys.insert(Arc::clone(name), key);
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
