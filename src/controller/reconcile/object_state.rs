//! The per-object state that the process keeps between reconciles, by UID. Losing it costs an extra check of the registry.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{ImageAttachment, ImageAttachmentStatus, Reason};
use crate::service::Epoch;

/// The state of one object.
#[derive(Debug, Default)]
struct ObjectState {
    /// Consecutive failures.
    failures: u32,
    is_in_flight: bool,
    /// The epoch of the last reconcile.
    epoch: Option<Epoch>,
    /// The object was deleted. Its state is removed when its reconcile ends.
    is_deleted: bool,
    /// The newest resource version from the watch, and its trigger hash.
    observed: Option<(u64, u64)>,
    /// The hash of the last logged failure, until the object is ready.
    logged_failure: Option<u64>,
    /// The time of the next check of the registry's listings.
    verify_at: Option<Instant>,
    /// The pull secrets of the service account at the last pass.
    pull_secrets: BTreeSet<String>,
    /// The last written status and its resource version, until the watch delivers it.
    written: Option<Box<(u64, ImageAttachmentStatus)>>,
}

impl ObjectState {
    /// Drops the written status once it is not needed. A reconcile in flight may have started with an older object.
    fn release(&mut self) {
        let observed = self.observed.map(|(version, _)| version);
        if !self.is_in_flight {
            self.written.take_if(|written| observed >= Some(written.0));
        }
    }
}

/// A change of an object, as the watch delivers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    New,
    /// The trigger hash has changed.
    Trigger,
    None,
}

/// The states of all objects.
#[derive(Debug, Default)]
pub(crate) struct ObjectStates(Mutex<HashMap<String, ObjectState>>);

impl ObjectStates {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, ObjectState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, uid: &str, work: impl FnOnce(&mut ObjectState) -> T) -> T {
        work(self.lock().entry(uid.to_owned()).or_default())
    }

    /// Removes the state of a deleted object.
    pub(crate) fn remove(&self, uid: &str) {
        let mut states = self.lock();
        match states.get_mut(uid) {
            Some(state) if state.is_in_flight => state.is_deleted = true,
            _ => drop(states.remove(uid)),
        }
    }

    /// Removes the states of all other objects.
    pub(crate) fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, state| {
            state.is_deleted |= !uids.contains(uid);
            !state.is_deleted || state.is_in_flight
        });
    }

    /// Records an object from the watch.
    pub(crate) fn observe(
        &self,
        uid: &str,
        resource_version: Option<&str>,
        trigger_hash: u64,
    ) -> Change {
        self.with(uid, |state| {
            let version = parse_version(resource_version).unwrap_or_default();
            let before = state.observed.replace((version, trigger_hash));
            state.release();
            match before {
                None => Change::New,
                Some((_, before)) if before == trigger_hash => Change::None,
                Some(_) => Change::Trigger,
            }
        })
    }

    /// Starts a reconcile.
    pub(crate) fn start(&self, uid: &str) {
        self.with(uid, |state| state.is_in_flight = true);
    }

    /// Ends a reconcile.
    pub(crate) fn finish(&self, uid: &str) {
        let mut states = self.lock();
        if let Some(state) = states.get_mut(uid) {
            state.is_in_flight = false;
            state.release();
            if state.is_deleted {
                states.remove(uid);
            }
        }
    }

    /// Returns the object with the newest known status. A pass with an older one would not know its own pushes.
    pub(crate) fn with_newest_status(&self, mut object: ImageAttachment) -> ImageAttachment {
        let current = parse_version(object.metadata.resource_version.as_deref());
        let states = self.lock();
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let written = states.get(uid).and_then(|state| state.written.as_deref());
        if let Some((version, status)) =
            written.filter(|(written, _)| current.is_none_or(|current| current < *written))
        {
            object.status = Some(status.clone());
            object.metadata.resource_version = Some(version.to_string());
        }
        object
    }

    /// Returns the objects with a written status that the watch may not have delivered.
    pub(crate) fn written(&self) -> HashSet<String> {
        let states = self.lock();
        let written = states.iter().filter(|(_, state)| state.written.is_some());
        written.map(|(uid, _)| uid.clone()).collect()
    }

    /// Records an object whose status was written.
    pub(crate) fn record_write(&self, object: &ImageAttachment) {
        let Some(version) = parse_version(object.metadata.resource_version.as_deref()) else {
            return;
        };
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let status = object.status.clone();
        self.with(uid, |state| {
            state.written = status.map(|status| Box::new((version, status)));
        });
    }

    /// Returns whether the reconcile is the first one of the object in an epoch, and records it.
    pub(crate) fn is_first_in_epoch(&self, uid: &str, epoch: Epoch) -> bool {
        self.with(uid, |state| state.epoch.replace(epoch) != Some(epoch))
    }

    /// Records the pull secrets of the service account.
    pub(crate) fn set_pull_secrets(&self, uid: &str, secrets: BTreeSet<String>) {
        self.with(uid, |state| state.pull_secrets = secrets);
    }

    /// Returns whether the service account had this pull secret at the last pass.
    pub(crate) fn is_pull_secret(&self, uid: &str, secret: &str) -> bool {
        self.lock()
            .get(uid)
            .is_some_and(|state| state.pull_secrets.contains(secret))
    }

    /// Counts a failure. Returns the number of consecutive ones.
    pub(crate) fn count_failure(&self, uid: &str) -> u32 {
        self.with(uid, |state| {
            state.failures = state.failures.saturating_add(1);
            state.failures
        })
    }

    /// Resets the count of failures.
    pub(crate) fn reset_failures(&self, uid: &str) {
        self.with(uid, |state| state.failures = 0);
    }

    /// Records why the object is not ready; `None` if it is ready. Returns whether the cause differs from the last one.
    pub(crate) fn is_new_failure(&self, uid: &str, cause: Option<(Reason, &str)>) -> bool {
        let hash = cause.map(|cause| {
            let mut hasher = DefaultHasher::new();
            cause.hash(&mut hasher);
            hasher.finish()
        });
        self.with(uid, |state| {
            std::mem::replace(&mut state.logged_failure, hash) != hash
        })
    }

    /// Returns whether the check of the listings is due. The first one is due after `first`, so that a restart spreads them.
    pub(crate) fn is_verification_due(&self, uid: &str, now: Instant, first: Duration) -> bool {
        self.with(uid, |state| {
            *state.verify_at.get_or_insert(now + first) <= now
        })
    }

    /// Schedules the next check of the listings.
    pub(crate) fn set_verify_at(&self, uid: &str, next: Instant) {
        self.with(uid, |state| state.verify_at = Some(next));
    }

    /// Returns the time of the next check of the listings.
    pub(crate) fn verify_at(&self, uid: &str) -> Option<Instant> {
        self.with(uid, |state| state.verify_at)
    }
}

/// Parses a resource version. Resource versions are decimal and increase (KEP-5504).
fn parse_version(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use crate::api::ImageAttachmentSpec;

    fn object(version: &str, observed: i64) -> ImageAttachment {
        let mut object = ImageAttachment::new("a", ImageAttachmentSpec::new("r.example.com/a:v1"));
        object.metadata.resource_version = Some(version.to_owned());
        object.metadata.uid = Some("u".to_owned());
        object.status = Some(ImageAttachmentStatus {
            observed_generation: observed,
            ..ImageAttachmentStatus::default()
        });
        object
    }

    #[test]
    fn a_written_status_is_used_until_the_watch_delivers_it() {
        let states = ObjectStates::default();
        let seen = |version: &str, observed: i64| {
            let object = states.with_newest_status(object(version, observed));
            (
                object.status.unwrap().observed_generation,
                object.metadata.resource_version.unwrap(),
            )
        };
        states.record_write(&object("10", 2));
        assert_eq!(seen("9", 1), (2, "10".to_owned()));
        assert_eq!(seen("10", 3), (3, "10".to_owned()));
        assert_eq!(states.written(), HashSet::from(["u".to_owned()]));
        states.observe("u", Some("10"), 0);
        assert!(states.written().is_empty());
        assert_eq!(seen("9", 1), (1, "9".to_owned()));
    }

    #[test]
    fn a_reconcile_in_flight_keeps_its_status_after_the_watch_delivered_it() {
        let states = ObjectStates::default();
        states.observe("u", Some("9"), 0);
        states.start("u");
        states.record_write(&object("10", 2));
        states.observe("u", Some("10"), 0);
        assert_eq!(
            states
                .with_newest_status(object("9", 1))
                .status
                .unwrap()
                .observed_generation,
            2
        );
        states.finish("u");
        assert!(states.written().is_empty());
    }

    #[test]
    fn only_a_changed_trigger_hash_triggers_a_reconcile() {
        let states = ObjectStates::default();
        let seen = [("1", 7), ("2", 7), ("3", 8)]
            .map(|(version, hash)| states.observe("u", Some(version), hash));
        assert_eq!(seen, [Change::New, Change::None, Change::Trigger]);
    }

    #[test]
    fn a_deleted_object_is_forgotten_when_its_reconcile_ends() {
        let states = ObjectStates::default();
        states.start("u");
        states.record_write(&object("10", 2));
        states.remove("u");
        states.count_failure("u");
        assert!(states.with("u", |state| state.written.is_some()));
        states.finish("u");
        assert!(states.0.lock().unwrap().is_empty());
    }

    #[test]
    fn objects_missing_from_a_list_are_forgotten_unless_in_flight() {
        let states = ObjectStates::default();
        for uid in ["there", "gone", "in-flight"] {
            states.observe(uid, Some("1"), 0);
        }
        states.start("in-flight");
        states.retain(&HashSet::from(["there".to_owned()]));
        let known = || {
            states
                .0
                .lock()
                .unwrap()
                .keys()
                .cloned()
                .collect::<BTreeSet<String>>()
        };
        assert_eq!(
            known(),
            BTreeSet::from(["there", "in-flight"].map(str::to_owned))
        );
        states.finish("in-flight");
        assert_eq!(known(), BTreeSet::from(["there".to_owned()]));
    }

    #[test]
    fn each_epoch_has_a_first_reconcile_of_an_object() {
        let states = ObjectStates::default();
        let epochs = [(); 2].map(|()| {
            let leadership = crate::service::Leadership::standby();
            leadership.lead_until(tokio::time::Instant::now());
            leadership.epoch().unwrap()
        });
        states.start("u");
        assert_eq!(
            [epochs[0], epochs[0], epochs[1]].map(|epoch| states.is_first_in_epoch("u", epoch)),
            [true, false, true]
        );
    }

    #[test]
    fn the_first_verification_is_spread_and_the_next_is_scheduled() {
        let states = ObjectStates::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        assert!(!states.is_verification_due("u", now, Duration::from_secs(10)));
        assert!(states.is_verification_due("u", later, Duration::ZERO));
        states.set_verify_at("u", later + Duration::from_secs(1));
        assert!(!states.is_verification_due("u", later, Duration::ZERO));
        states.remove("u");
        assert_eq!(states.verify_at("u"), None);
    }
}
