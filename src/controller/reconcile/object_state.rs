//! What the process remembers of each object between its passes, by UID. Losing it costs a look at the registry, never more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{ImageAttachment, ImageAttachmentStatus};

use crate::controller::leader::leadership::Term;

/// What is remembered of one object.
#[derive(Debug, Default)]
struct Remembered {
    /// Failures in a row.
    failures: u32,
    /// Visits that have begun and not ended.
    visits: u32,
    /// In which term this process worked on it last.
    term: Option<Term>,
    /// It was deleted, and is forgotten with the end of its last visit.
    gone: bool,
    /// The newest resource version that the watch has brought, and a hash of what a visit depends on.
    seen: Option<(u64, u64)>,
    /// When the registry's listings are looked at next.
    verify_at: Option<Instant>,
    /// The pull secrets that the service account named at the last pass.
    pull_secrets: BTreeSet<String>,
    /// What is needed only while there is work, and is large.
    work: Option<Box<Work>>,
}

/// What is remembered of an object while it is visited, or until the watch has brought back what was written.
#[derive(Debug, Default)]
struct Work {
    /// The status that was last written, with its resource version: the watch may not have brought it back yet.
    written: Option<(u64, ImageAttachmentStatus)>,
}

impl Remembered {
    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Lets go of what nobody needs any more. A visit under way may have begun with an older object than the watch has brought since.
    fn rest(&mut self) {
        let Some(work) = &mut self.work else { return };
        let seen = self.seen.map(|(version, _)| version);
        if self.visits == 0
            && work
                .written
                .as_ref()
                .is_some_and(|(written, _)| seen >= Some(*written))
        {
            work.written = None;
        }
        if self.visits == 0 && work.written.is_none() {
            self.work = None;
        }
    }
}

/// What the watch has brought of an object, against what it had brought before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    New,
    /// It differs in what a visit depends on.
    Changed,
    Same,
}

/// The memory of all objects.
#[derive(Debug, Default)]
pub(crate) struct Objects(Mutex<HashMap<String, Remembered>>);

impl Objects {
    fn with<T>(&self, uid: &str, work: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(objects.entry(uid.to_owned()).or_default())
    }

    /// Forgets an object that was deleted.
    pub(crate) fn forget(&self, uid: &str) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match objects.get_mut(uid) {
            Some(remembered) if remembered.visits > 0 => remembered.gone = true,
            _ => drop(objects.remove(uid)),
        }
    }

    /// Forgets all but those that are `present`.
    pub(crate) fn keep(&self, present: &HashSet<String>) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|uid, remembered| {
            remembered.gone |= !present.contains(uid);
            !remembered.gone || remembered.visits > 0
        });
    }

    /// The watch has brought an object; `hash` is of what a visit of it depends on.
    pub(crate) fn saw(&self, uid: &str, resource_version: Option<&str>, hash: u64) -> Seen {
        self.with(uid, |remembered| {
            let before = remembered
                .seen
                .replace((version(resource_version).unwrap_or_default(), hash));
            remembered.rest();
            match before {
                None => Seen::New,
                Some((_, before)) if before == hash => Seen::Same,
                Some(_) => Seen::Changed,
            }
        })
    }

    /// A visit begins, with an object that is no older than what the watch has brought.
    pub(crate) fn visit_begins(&self, uid: &str) {
        self.with(uid, |remembered| remembered.visits += 1);
    }

    /// A visit has ended.
    pub(crate) fn visit_ended(&self, uid: &str) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remembered) = objects.get_mut(uid) {
            remembered.visits = remembered.visits.saturating_sub(1);
            remembered.rest();
            if remembered.gone && remembered.visits == 0 {
                objects.remove(uid);
            }
        }
    }

    /// The object with the newest status that is known: a pass that worked on an older one would forget what it pushed.
    pub(crate) fn freshest(&self, mut object: ImageAttachment) -> ImageAttachment {
        let seen = version(object.metadata.resource_version.as_deref());
        let objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let written = objects
            .get(uid)
            .and_then(|remembered| remembered.work.as_ref()?.written.as_ref());
        if let Some((version, status)) =
            written.filter(|(written, _)| seen.is_none_or(|seen| seen < *written))
        {
            object.status = Some(status.clone());
            object.metadata.resource_version = Some(version.to_string());
        }
        object
    }

    /// The objects whose status was written and has perhaps not come back yet.
    pub(crate) fn written(&self) -> HashSet<String> {
        let objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ahead = |remembered: &Remembered| {
            remembered
                .work
                .as_ref()
                .is_some_and(|work| work.written.is_some())
        };
        objects
            .iter()
            .filter(|(_, remembered)| is_ahead(remembered))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// Remembers an object whose status was written.
    pub(crate) fn wrote(&self, object: &ImageAttachment) {
        let Some(version) = version(object.metadata.resource_version.as_deref()) else {
            return;
        };
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        self.with(uid, |remembered| {
            remembered.work().written = object.status.clone().map(|status| (version, status))
        });
    }

    /// Whether the visit that has begun is the first one in a term, that is since the process started or came to lead.
    pub(crate) fn is_first_look(&self, uid: &str, term: Term) -> bool {
        self.with(uid, |remembered| {
            remembered.term.replace(term) != Some(term)
        })
    }

    /// Remembers what the service account names.
    pub(crate) fn has_pull_secrets(&self, uid: &str, secrets: BTreeSet<String>) {
        self.with(uid, |remembered| remembered.pull_secrets = secrets);
    }

    /// Whether the service account named this Secret at the last pass.
    pub(crate) fn is_pull_secret(&self, uid: &str, secret: &str) -> bool {
        let objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        objects
            .get(uid)
            .is_some_and(|remembered| remembered.pull_secrets.contains(secret))
    }

    /// One more failure; answers with how many in a row.
    pub(crate) fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |remembered| {
            remembered.failures = remembered.failures.saturating_add(1);
            remembered.failures
        })
    }

    /// A pass went well.
    pub(crate) fn succeeded(&self, uid: &str) {
        self.with(uid, |remembered| remembered.failures = 0);
    }

    /// Whether the listings are due. An object that is seen for the first time is due within `first`, so that a restart does
    /// not bring all of them at once.
    pub(crate) fn is_verification_due(&self, uid: &str, now: Instant, first: Duration) -> bool {
        self.with(uid, |remembered| {
            *remembered.verify_at.get_or_insert(now + first) <= now
        })
    }

    /// The listings were looked at; answers when the next look is due.
    pub(crate) fn verified(&self, uid: &str, next: Instant) {
        self.with(uid, |remembered| remembered.verify_at = Some(next));
    }

    /// When the listings are due.
    pub(crate) fn verify_at(&self, uid: &str) -> Option<Instant> {
        self.with(uid, |remembered| remembered.verify_at)
    }
}

/// Resource versions are decimal and grow (KEP-5504).
fn version(text: Option<&str>) -> Option<u64> {
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
    fn a_status_that_was_written_counts_until_the_watch_has_brought_it_back() {
        let objects = Objects::default();
        let seen = |version: &str, observed: i64| {
            let object = objects.freshest(object(version, observed));
            (
                object.status.unwrap().observed_generation,
                object.metadata.resource_version.unwrap(),
            )
        };
        objects.wrote(&object("10", 2));
        assert_eq!(seen("9", 1), (2, "10".to_owned()));
        assert_eq!(seen("10", 3), (3, "10".to_owned()));
        assert_eq!(objects.written(), HashSet::from(["u".to_owned()]));
        objects.saw("u", Some("10"), 0);
        assert!(objects.written().is_empty());
        assert_eq!(seen("9", 1), (1, "9".to_owned()));
    }

    #[test]
    fn a_visit_that_began_with_an_older_object_keeps_what_it_wrote_when_the_watch_has_brought_it() {
        let objects = Objects::default();
        objects.saw("u", Some("9"), 0);
        objects.visit_begins("u");
        objects.wrote(&object("10", 2));
        objects.saw("u", Some("10"), 0);
        assert_eq!(
            objects
                .freshest(object("9", 1))
                .status
                .unwrap()
                .observed_generation,
            2
        );
        objects.visit_ended("u");
        assert!(objects.written().is_empty());
    }

    #[test]
    fn only_a_change_in_what_a_visit_depends_on_is_one() {
        let objects = Objects::default();
        let seen = [("1", 7), ("2", 7), ("3", 8)]
            .map(|(version, hash)| objects.saw("u", Some(version), hash));
        assert_eq!(seen, [Seen::New, Seen::Same, Seen::Changed]);
    }

    #[test]
    fn an_object_at_rest_keeps_nothing_of_its_work_and_one_that_was_deleted_nothing_at_all() {
        let objects = Objects::default();
        objects.visit_begins("u");
        objects.wrote(&object("10", 2));
        objects.forget("u");
        objects.failed("u");
        assert!(objects.with("u", |remembered| remembered.work.is_some()));
        objects.visit_ended("u");
        assert!(objects.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_went_while_nobody_told_of_it_is_forgotten_and_what_is_being_visited_once_that_has_ended()
     {
        let objects = Objects::default();
        for uid in ["there", "gone", "visited"] {
            objects.saw(uid, Some("1"), 0);
        }
        objects.visit_begins("visited");
        objects.keep(&HashSet::from(["there".to_owned()]));
        let known = || {
            objects
                .0
                .lock()
                .unwrap()
                .keys()
                .cloned()
                .collect::<BTreeSet<String>>()
        };
        assert_eq!(
            known(),
            BTreeSet::from(["there", "visited"].map(str::to_owned))
        );
        objects.visit_ended("visited");
        assert_eq!(known(), BTreeSet::from(["there".to_owned()]));
    }

    #[test]
    fn each_term_has_a_first_look_at_an_object() {
        let objects = Objects::default();
        let terms = [(); 2].map(|()| {
            let leadership = crate::controller::leader::leadership::Leadership::standby();
            leadership.lead_until(tokio::time::Instant::now());
            leadership.term().unwrap()
        });
        objects.visit_begins("u");
        assert_eq!(
            [terms[0], terms[0], terms[1]].map(|term| objects.is_first_look("u", term)),
            [true, false, true]
        );
    }

    #[test]
    fn the_first_verification_is_spread_and_the_next_ones_follow() {
        let objects = Objects::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        assert!(!objects.is_verification_due("u", now, Duration::from_secs(10)));
        assert!(objects.is_verification_due("u", later, Duration::ZERO));
        objects.verified("u", later + Duration::from_secs(1));
        assert!(!objects.is_verification_due("u", later, Duration::ZERO));
        objects.forget("u");
        assert_eq!(objects.verify_at("u"), None);
    }
}
