//! The state of sets that the process keeps between reconciles, and the children of each set. Losing it costs one more pass.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Resource as _;
use tokio::sync::Notify;

use crate::api::{CONFIRM_ANNOTATION, Reason};
use crate::attachment::sets::set_label;
use crate::controller::reconcile::object_state::Change;
use crate::controller::sets::entry::SetEntry;
use crate::controller::watch::cache::CacheEntry;
use crate::controller::watch::child::Child;
use crate::controller::watch::request::REQUESTED_AT;
use crate::controller::watch::resource_name::{Kind, ResourceName};
use crate::engine::ReachCache;
use crate::service::Epoch;

/// The time for which changes of children are collected before their set is reconciled.
const COLLECT: Duration = Duration::from_millis(500);

/// The delay of the pass after one during which a child was seen with another spec than it must have. The event may be from before the pass
/// has put the child back, or from an edit that the pass has not seen.
const RECHECK: Duration = Duration::from_secs(2);

/// The children of all sets, the state of the sets, and the sets whose children have changed.
#[derive(Debug, Default)]
pub(crate) struct SetMemory {
    children: Mutex<HashMap<ResourceName, ChildStates>>,
    states: Mutex<HashMap<ResourceName, SetState>>,
    changed: Mutex<HashSet<ResourceName>>,
    notify: Notify,
}

/// The children of a set: names, and hashes of the state that status counts.
type ChildStates = BTreeMap<Box<str>, u64>;

/// The state of one set.
#[derive(Debug, Default)]
struct SetState {
    /// The hash of the metadata whose change triggers a pass.
    trigger: Option<u64>,
    epoch: Option<Epoch>,
    /// Consecutive failures.
    failures: u32,
    /// Consecutive passes because of children that others changed or deleted.
    repairs: u32,
    /// The hash of the last logged failure, until the set is ready.
    logged_failure: Option<u64>,
    /// The children that the last pass wanted. `None`: no pass yet.
    desired: Option<Arc<HashMap<Box<str>, Child>>>,
    /// The first child that the last pass could not make or change.
    failure: Option<(Reason, String)>,
    reaches: Arc<ReachCache>,
    /// The time of the next pass that reads the registry. `None`: now.
    next_pass: Option<Instant>,
    /// A pass was requested since the last one began, which may not have seen the change.
    is_requested: bool,
    /// A child was seen with another spec than it must have, since the last pass began.
    is_edited: bool,
    /// The set itself has changed since the last pass began, so that the next one waits for no repair.
    has_changed: bool,
    /// The time before which children are not repaired again.
    next_repair: Option<Instant>,
}

/// The result of a pass.
#[derive(Debug)]
pub(crate) struct LastPass {
    /// The children that it wanted, by name.
    pub(crate) desired: Arc<HashMap<Box<str>, Child>>,
    /// The first child that could not be made or changed.
    pub(crate) failure: Option<(Reason, String)>,
}

impl SetState {
    /// Makes the next pass due now.
    fn request(&mut self) {
        self.next_pass = None;
        self.is_requested = true;
    }
}

impl SetMemory {
    fn with<T>(&self, set: &ResourceName, work: impl FnOnce(&mut SetState) -> T) -> T {
        let mut states = lock(&self.states);
        match states.get_mut(set) {
            Some(state) => work(state),
            None => work(states.entry(set.clone()).or_default()),
        }
    }

    /// Records a set from the watch.
    pub(crate) fn observe(&self, entry: &SetEntry) -> Change {
        let trigger = trigger_hash(entry);
        self.with(&entry.name(), |state| {
            match state.trigger.replace(trigger) {
                None => Change::New,
                Some(before) if before == trigger => Change::None,
                Some(_) => {
                    state.request();
                    state.has_changed = true;
                    state.next_repair = None;
                    Change::Trigger
                }
            }
        })
    }

    /// Removes the state of a deleted set.
    pub(crate) fn remove(&self, set: &ResourceName) {
        lock(&self.states).remove(set);
    }

    /// Removes the states of all sets that do not exist.
    pub(crate) fn retain(&self, exists: impl Fn(&ResourceName) -> bool) {
        lock(&self.states).retain(|set, _| exists(set));
    }

    /// Records a resource from the watch. If it is a child, its set is reconciled when its state has changed.
    pub(crate) fn observe_child(&self, entry: &CacheEntry, change: Change) {
        let Some((set, child)) = set_of(entry) else {
            return;
        };
        let name = entry.meta().name.as_deref().unwrap_or_default();
        let state = child_state(entry);
        let before = lock(&self.children)
            .entry(set.clone())
            .or_default()
            .insert(name.into(), state);
        let has_changed = before != Some(state);
        let is_relevant = self.with(&set, |known| {
            let Some(desired) = &known.desired else {
                // The first list is no change.
                let is_relevant = change == Change::Trigger || (has_changed && before.is_some());
                known.next_pass.take_if(|_| is_relevant);
                return is_relevant;
            };
            let desired = desired.get(name);
            let is_edited = desired.is_some_and(|desired| !child.matches(desired));
            known.next_pass.take_if(|_| is_edited);
            known.is_edited |= is_edited;
            is_edited || has_changed
        });
        if is_relevant {
            self.mark(set);
        }
    }

    /// Removes a deleted child.
    pub(crate) fn remove_child(&self, entry: &CacheEntry) {
        let Some((set, _)) = set_of(entry) else {
            return;
        };
        let name = entry.meta().name.as_deref().unwrap_or_default();
        let mut children = lock(&self.children);
        if let Some(known) = children.get_mut(&set) {
            known.remove(name);
            if known.is_empty() {
                children.remove(&set);
            }
        }
        drop(children);
        self.with(&set, |known| {
            let is_desired = |desired: &Arc<HashMap<_, _>>| desired.contains_key(name);
            if known.desired.as_ref().is_none_or(is_desired) {
                known.request();
            }
        });
        self.mark(set);
    }

    /// Removes the children that do not exist. No event reports those that were deleted while the watch was interrupted.
    pub(crate) fn retain_children(&self, exists: impl Fn(&ResourceName) -> bool) {
        let mut changed = Vec::new();
        lock(&self.children).retain(|set, children| {
            let before = children.len();
            let namespace = set.namespace().as_deref();
            children
                .retain(|name, _| exists(&ResourceName::new(Kind::Attachment, namespace, name)));
            if children.len() < before {
                changed.push(set.clone());
            }
            !children.is_empty()
        });
        for set in changed {
            self.with(&set, SetState::request);
            self.mark(set);
        }
    }

    /// Returns the names of the children of a set. Some may not exist any more, or belong to another set by now.
    pub(crate) fn children(&self, set: &ResourceName) -> Vec<ResourceName> {
        let children = lock(&self.children);
        let namespace = set.namespace().as_deref();
        // The label of children without an owner has a shortened name if the name is long.
        let label = ResourceName::new(Kind::Set, namespace, &set_label(set.name()));
        let names: BTreeSet<_> = [set, &label]
            .into_iter()
            .filter_map(|set| children.get(set))
            .flat_map(BTreeMap::keys)
            .collect();
        names
            .into_iter()
            .map(|name| ResourceName::new(Kind::Attachment, namespace, name))
            .collect()
    }

    fn mark(&self, set: ResourceName) {
        lock(&self.changed).insert(set);
        self.notify.notify_one();
    }

    /// Waits for sets whose children have changed.
    pub(crate) async fn changed(&self) -> Vec<ResourceName> {
        loop {
            self.notify.notified().await;
            tokio::time::sleep(COLLECT).await;
            let changed = std::mem::take(&mut *lock(&self.changed));
            if !changed.is_empty() {
                return changed.into_iter().collect();
            }
        }
    }

    /// Returns whether the reconcile is the first one of the set in an epoch, and records it.
    pub(crate) fn is_first_in_epoch(&self, set: &ResourceName, epoch: Epoch) -> bool {
        self.with(set, |state| state.epoch.replace(epoch) != Some(epoch))
    }

    /// Returns the time until the next pass, if one is scheduled.
    pub(crate) fn until_next_pass(&self, set: &ResourceName) -> Option<Duration> {
        let now = Instant::now();
        let next = self.with(set, |state| state.next_pass.or(state.next_repair))?;
        Some(next.saturating_duration_since(now)).filter(|delay| !delay.is_zero())
    }

    /// Records that a pass begins. It sees everything that was requested before.
    pub(crate) fn begin_pass(&self, set: &ResourceName) {
        self.with(set, |state| {
            state.is_requested = false;
            state.is_edited = false;
            state.has_changed = false;
        });
    }

    /// Schedules the next pass, and returns its delay. It is due now if it was requested since the last one began, and soon if a child was
    /// edited.
    pub(crate) fn schedule(&self, set: &ResourceName, delay: Duration) -> Duration {
        self.with(set, |state| {
            let repair = state
                .next_repair
                .map(|at| at.saturating_duration_since(Instant::now()));
            let recheck = RECHECK.max(repair.unwrap_or_default());
            let delay = if state.is_edited {
                delay.min(recheck)
            } else {
                delay
            };
            let delay = Some(delay).filter(|_| !state.is_requested);
            state.next_pass = delay.map(|delay| Instant::now() + delay);
            delay.unwrap_or_default()
        })
    }

    /// Records the children that a pass wants. Changes of children are compared with them from now on. Returns whether they are those
    /// that the last pass wanted.
    pub(crate) fn set_desired(
        &self,
        set: &ResourceName,
        desired: HashMap<Box<str>, Child>,
    ) -> bool {
        self.with(set, |state| {
            let is_same = state.desired.as_deref() == Some(&desired);
            state.desired = Some(Arc::new(desired));
            is_same
        })
    }

    /// Returns the indexes that earlier passes of a set have read.
    pub(crate) fn reach_cache(&self, set: &ResourceName) -> Arc<ReachCache> {
        self.with(set, |state| Arc::clone(&state.reaches))
    }

    /// Records why a child could not be made or changed.
    pub(crate) fn record_failure(&self, set: &ResourceName, failure: Option<(Reason, String)>) {
        self.with(set, |state| state.failure = failure);
    }

    /// Returns the result of the last pass of this process.
    pub(crate) fn last_pass(&self, set: &ResourceName) -> Option<LastPass> {
        self.with(set, |state| {
            Some(LastPass {
                desired: state.desired.clone()?,
                failure: state.failure.clone(),
            })
        })
    }

    /// Records whether a pass had to repair children. The next repair waits for `delay` of the number of consecutive ones, so that
    /// a client that changes them again and again costs little.
    pub(crate) fn record_repair(
        &self,
        set: &ResourceName,
        is_repair: bool,
        delay: impl FnOnce(u32) -> Duration,
    ) {
        self.with(set, |state| {
            state.repairs = if is_repair {
                state.repairs.saturating_add(1)
            } else {
                0
            };
            let waits = is_repair && !state.has_changed;
            state.next_repair = waits.then(|| Instant::now() + delay(state.repairs));
        });
    }

    /// Counts a failure. Returns the number of consecutive ones.
    pub(crate) fn count_failure(&self, set: &ResourceName) -> u32 {
        self.with(set, |state| {
            state.failures = state.failures.saturating_add(1);
            state.failures
        })
    }

    /// Resets the count of failures.
    pub(crate) fn reset_failures(&self, set: &ResourceName) {
        self.with(set, |state| state.failures = 0);
    }

    /// Records why a set is not ready; `None` if it is. Returns whether the cause differs from the last one.
    pub(crate) fn is_new_failure(&self, set: &ResourceName, cause: Option<(Reason, &str)>) -> bool {
        let hash = cause.map(|cause| hash(&cause));
        self.with(set, |state| {
            std::mem::replace(&mut state.logged_failure, hash) != hash
        })
    }
}

/// Returns the set that a resource belongs to.
fn set_of(entry: &CacheEntry) -> Option<(ResourceName, &Child)> {
    let child = entry.child()?;
    let namespace = entry.meta().namespace.as_deref();
    Some((ResourceName::new(Kind::Set, namespace, child.set()), child))
}

/// Returns a hash of the state of a child that the status of its set shows.
fn child_state(entry: &CacheEntry) -> u64 {
    let summary = entry.summary();
    let ready = summary.and_then(|summary| {
        let mut conditions = summary.conditions.iter().flatten();
        conditions.find(|(kind, ..)| *kind == crate::api::ConditionType::Ready)
    });
    let is_pending = summary.is_none_or(|summary| summary.is_pending);
    let is_deleted = entry.meta().deletion_timestamp.is_some();
    hash(&(ready, is_pending, is_deleted, entry.child()))
}

/// Returns a hash of the metadata whose change triggers a pass: generation, request, confirmation and deletion.
fn trigger_hash(entry: &SetEntry) -> u64 {
    let meta = entry.meta();
    let annotations = meta.annotations.as_ref();
    let annotation = |name| annotations.and_then(|annotations| annotations.get(name));
    hash(&(
        &meta.uid,
        meta.generation,
        annotation(REQUESTED_AT),
        annotation(CONFIRM_ANNOTATION),
        meta.deletion_timestamp.is_some(),
    ))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn set(generation: u32, confirmed: &str) -> SetEntry {
        let text = json!({
            "metadata": {
                "name": "releases", "namespace": "team", "uid": "u", "generation": generation,
                "annotations": {CONFIRM_ANNOTATION: confirmed},
            },
            "spec": {"repositories": ["r.example.com/app"], "template": {"spec": {}}},
        });
        serde_json::from_str(&text.to_string()).unwrap()
    }

    #[test]
    fn a_change_during_a_pass_makes_the_next_pass_due_at_its_end() {
        let (memory, name) = (SetMemory::default(), set(1, "").name());
        memory.observe(&set(1, ""));
        memory.begin_pass(&name);
        assert_eq!(memory.schedule(&name, HOUR), HOUR);
        assert!(memory.until_next_pass(&name).is_some());
        for change in [set(2, ""), set(2, "370")] {
            memory.observe(&change);
            assert!(memory.until_next_pass(&name).is_none());
            memory.begin_pass(&name);
            assert_eq!(memory.schedule(&name, HOUR), HOUR);
        }
        memory.begin_pass(&name);
        memory.observe(&set(2, "371"));
        memory.record_repair(&name, true, |_| HOUR);
        assert_eq!(memory.schedule(&name, HOUR), Duration::ZERO);
        assert!(memory.until_next_pass(&name).is_none());
        // The next pass has seen it.
        memory.begin_pass(&name);
        assert_eq!(memory.schedule(&name, HOUR), HOUR);
    }

    #[test]
    fn a_child_that_is_edited_during_a_pass_is_looked_at_soon_after_it() {
        let (memory, name) = (SetMemory::default(), set(1, "").name());
        memory.observe(&set(1, ""));
        let child = |note: &str| -> CacheEntry {
            let owner = json!({
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachmentSet", "name": "releases", "uid": "u", "controller": true,
            });
            let text = json!({
                "metadata": {
                    "name": "releases-1", "namespace": "team", "uid": "c", "ownerReferences": [owner], "annotations": {"note": note},
                },
                "spec": {"image": "r.example.com/app:v1"},
            });
            serde_json::from_str(&text.to_string()).unwrap()
        };
        let wanted = child("a").child().unwrap().clone();
        memory.set_desired(&name, HashMap::from([("releases-1".into(), wanted)]));
        memory.begin_pass(&name);
        memory.observe_child(&child("a"), Change::None);
        assert_eq!(memory.schedule(&name, HOUR), HOUR);
        memory.observe_child(&child("b"), Change::None);
        assert!(
            memory.until_next_pass(&name).is_none(),
            "the edit triggers a pass"
        );
        memory.begin_pass(&name);
        memory.observe_child(&child("c"), Change::None);
        assert_eq!(memory.schedule(&name, HOUR), RECHECK);
        // A client that edits it again and again waits longer each time.
        memory.begin_pass(&name);
        memory.record_repair(&name, true, |_| HOUR / 2);
        memory.observe_child(&child("d"), Change::None);
        let delay = memory.schedule(&name, HOUR);
        assert!(delay > HOUR / 3 && delay <= HOUR / 2, "{delay:?}");
    }
}
