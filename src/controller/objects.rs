//! What the process remembers of each object between its passes, by UID. Losing it costs a look at the registry, never more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::{ImageAttachment, ImageAttachmentStatus, Leftover, Origin, Reason};
use crate::oci::Digest;

/// What is remembered of one object.
#[derive(Debug, Default)]
struct Remembered {
    /// Failures in a row.
    failures: u32,
    /// When the registry's listings are looked at next.
    verify_at: Option<Instant>,
    /// The status that was last written, with its resource version: the watch may not have brought it back yet.
    written: Option<(u64, ImageAttachmentStatus)>,
    /// Subject and digest of attachments that another resource has left to this one.
    inherited: Vec<(String, String)>,
    /// Held while status is written, so that no write is made of an older one than the last.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Somebody waits for the next pass.
    hurried: bool,
    /// Woken when a visit that waits for its turn should rather begin again.
    woken: Arc<Notify>,
    /// The pull secrets that the service account named at the last pass.
    pull_secrets: BTreeSet<String>,
}

/// The memory of all objects.
#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<HashMap<String, Remembered>>);

impl Objects {
    fn with<T>(&self, uid: &str, work: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(objects.entry(uid.to_owned()).or_default())
    }

    /// Forgets an object that was deleted.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// The object with the newest status that is known: a pass that worked on an older one would forget what it pushed.
    pub(super) fn freshest(&self, uid: &str, object: &ImageAttachment) -> ImageAttachment {
        let mut object = object.clone();
        let seen = version(object.metadata.resource_version.as_deref());
        self.with(uid, |remembered| match &remembered.written {
            Some((written, status)) if seen.is_none_or(|seen| seen < *written) => object.status = Some(status.clone()),
            _ => remembered.written = None,
        });
        object
    }

    /// The turn to write an object's status.
    pub(super) async fn writing(&self, uid: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = self.with(uid, |remembered| Arc::clone(&remembered.writing));
        lock.lock_owned().await
    }

    /// Remembers a status that was written.
    pub(super) fn wrote(&self, uid: &str, resource_version: Option<&str>, status: &ImageAttachmentStatus) {
        let Some(version) = version(resource_version) else { return };
        self.with(uid, |remembered| remembered.written = Some((version, status.clone())));
    }

    /// Another resource leaves an attachment to this one. A pass that is under way does not know it: so it goes into every status
    /// that is written, until a pass has begun with it.
    pub(super) fn inherit(&self, uid: &str, subject: &Digest, attachment: &Digest) {
        let inherited = (subject.to_string(), attachment.to_string());
        self.with(uid, |remembered| {
            if !remembered.inherited.contains(&inherited) {
                remembered.inherited.push(inherited);
            }
        });
    }

    /// A pass begins with `status`: what that has of the inheritance, the pass knows.
    pub(super) fn begin(&self, uid: &str, status: Option<&ImageAttachmentStatus>) {
        self.with(uid, |remembered| {
            remembered.inherited.retain(|(_, attachment)| !status.is_some_and(|status| has_made(status, attachment)));
        });
    }

    /// Whether something was inherited that `status` does not have.
    pub(super) fn has_inherited(&self, uid: &str, status: Option<&ImageAttachmentStatus>) -> bool {
        let known = |attachment: &str| status.is_some_and(|status| has_made(status, attachment));
        self.with(uid, |remembered| remembered.inherited.iter().any(|(_, attachment)| !known(attachment)))
    }

    /// `status` with what was inherited.
    pub(super) fn with_inheritance(&self, uid: &str, status: &ImageAttachmentStatus) -> ImageAttachmentStatus {
        let mut status = status.clone();
        let inherited = self.with(uid, |remembered| remembered.inherited.clone());
        for (subject, attachment) in inherited {
            if has_made(&status, &attachment) {
                continue;
            }
            match status.targets.iter_mut().find(|row| row.digest == subject && row.attachment.as_ref() == Some(&attachment)) {
                Some(row) => row.origin = Some(Origin::Made),
                None => status.leftovers.push(Leftover {
                    subject,
                    attachment,
                    reason: Some(Reason::Progressing.as_str().to_owned()),
                    message: None,
                }),
            }
        }
        status
    }

    /// An object, or what it uses, has changed: its next pass is one that somebody waits for, and a visit that waits behind
    /// interval checks begins again. One that was never visited has nothing to hurry.
    pub(super) fn hurry(&self, uid: &str) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remembered) = objects.get_mut(uid) {
            remembered.hurried = true;
            remembered.woken.notify_waiters();
        }
    }

    /// Whether somebody waits for the pass that begins now.
    pub(super) fn take_hurry(&self, uid: &str) -> bool {
        self.with(uid, |remembered| std::mem::take(&mut remembered.hurried))
    }

    /// What a visit that waits for its turn listens to, from the moment of this call.
    pub(super) fn woken(&self, uid: &str) -> Arc<Notify> {
        self.with(uid, |remembered| Arc::clone(&remembered.woken))
    }

    /// Remembers what the service account names.
    pub(super) fn has_pull_secrets(&self, uid: &str, secrets: BTreeSet<String>) {
        self.with(uid, |remembered| remembered.pull_secrets = secrets);
    }

    /// Whether the service account named this Secret at the last pass.
    pub(super) fn is_pull_secret(&self, uid: &str, secret: &str) -> bool {
        let objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        objects.get(uid).is_some_and(|remembered| remembered.pull_secrets.contains(secret))
    }

    /// One more failure; answers with how many in a row.
    pub(super) fn failed(&self, uid: &str) -> u32 {
        self.with(uid, |remembered| {
            remembered.failures = remembered.failures.saturating_add(1);
            remembered.failures
        })
    }

    /// A pass went well.
    pub(super) fn succeeded(&self, uid: &str) {
        self.with(uid, |remembered| remembered.failures = 0);
    }

    /// Whether the listings are due. An object that is seen for the first time is due within `first`, so that a restart does
    /// not bring all of them at once.
    pub(super) fn is_verification_due(&self, uid: &str, now: Instant, first: Duration) -> bool {
        self.with(uid, |remembered| *remembered.verify_at.get_or_insert(now + first) <= now)
    }

    /// The listings were looked at; answers when the next look is due.
    pub(super) fn verified(&self, uid: &str, next: Instant) {
        self.with(uid, |remembered| remembered.verify_at = Some(next));
    }

    /// When the listings are due.
    pub(super) fn verify_at(&self, uid: &str) -> Option<Instant> {
        self.with(uid, |remembered| remembered.verify_at)
    }
}

/// Whether status says that the resource made an attachment.
fn has_made(status: &ImageAttachmentStatus, attachment: &str) -> bool {
    status.targets.iter().any(|row| row.origin == Some(Origin::Made) && row.attachment.as_deref() == Some(attachment))
        || status.leftovers.iter().any(|leftover| leftover.attachment == attachment)
}

/// Resource versions are decimal and grow (KEP-5504).
fn version(text: Option<&str>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics fails, as it should")]
mod tests {
    use super::*;
    use crate::api::ImageAttachmentSpec;

    fn object(version: &str, observed: i64) -> ImageAttachment {
        let mut object = ImageAttachment::new("a", ImageAttachmentSpec::new("r.example.com/a:v1"));
        object.metadata.resource_version = Some(version.to_owned());
        object.status = Some(ImageAttachmentStatus { observed_generation: observed, ..ImageAttachmentStatus::default() });
        object
    }

    #[test]
    fn a_status_that_was_written_counts_until_the_watch_has_brought_it_back() {
        let objects = Objects::default();
        let written = ImageAttachmentStatus { observed_generation: 2, ..ImageAttachmentStatus::default() };
        objects.wrote("u", Some("10"), &written);
        assert_eq!(objects.freshest("u", &object("9", 1)).status.unwrap().observed_generation, 2);
        assert_eq!(objects.freshest("u", &object("10", 3)).status.unwrap().observed_generation, 3);
        assert_eq!(objects.freshest("u", &object("9", 1)).status.unwrap().observed_generation, 1);
    }

    #[tokio::test]
    async fn a_change_wakes_the_visit_that_waits_and_counts_for_the_next_one() {
        let objects = Objects::default();
        objects.hurry("never-visited");
        assert!(!objects.take_hurry("never-visited"));
        let woken = objects.woken("u");
        let waiting = woken.notified();
        objects.hurry("u");
        waiting.await;
        assert!(objects.take_hurry("u"));
        assert!(!objects.take_hurry("u"));
    }

    #[test]
    fn what_is_inherited_survives_a_pass_that_began_before_and_is_forgotten_by_the_next() {
        let (subject, attachment) = (Digest::sha256(b"subject"), Digest::sha256(b"attachment"));
        let objects = Objects::default();
        let before = ImageAttachmentStatus::default();
        objects.begin("u", Some(&before));
        objects.inherit("u", &subject, &attachment);
        objects.inherit("u", &subject, &attachment);
        assert!(objects.has_inherited("u", Some(&before)));
        let written = objects.with_inheritance("u", &before);
        assert_eq!((written.leftovers.len(), written.leftovers[0].attachment.clone()), (1, attachment.to_string()));
        assert_eq!(objects.with_inheritance("u", &written), written);
        objects.begin("u", Some(&written));
        assert!(!objects.has_inherited("u", Some(&before)));
        assert_eq!(objects.with_inheritance("u", &before), before);
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
