//! Updates of the fallback tag (distribution-spec, "Referrers Tag Schema") with concurrent writers.
//!
//! Registries ignore conditional requests here. If two clients read, extend and write the list at
//! the same time, one update is lost without an error. An update is therefore verified by a second
//! read. The pause before it is long enough for a client that read the old list to have written.
//! The constants were measured with 20 concurrent writers.

use std::future::ready;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::client::options::{ListingSource, ReferrersMode};
use crate::client::session::{Locator, Session};
use crate::error::{Object, Operation, RegistryError};
use crate::oci::{Descriptor, Digest, RawEntry, RawIndex, Tag, media_type};
use crate::protocol::fallback_entries::{FallbackChange, FallbackEntries};
use crate::protocol::referrers::{FallbackTag, READS_TAG_AS_DIGEST, TagRead};

/// The result of an update.
#[derive(Debug, Clone)]
pub struct FallbackOutcome {
    /// True if the tag was written. False if it had the requested content.
    pub written: bool,
    /// The number of PUT requests.
    pub attempts: u32,
    /// Foreign entries that were removed because their manifests do not exist and the registry
    /// rejected the list.
    pub dropped: Vec<Digest>,
    /// The entries of the last read.
    pub entries: Vec<RawEntry>,
}

/// Maximum number of PUT requests of one update.
const MAX_ATTEMPTS: u32 = 20;
/// Maximum age of a read that a write is based on.
const MAX_READ_AGE: Duration = Duration::from_millis(200);
/// Number of repeated reads after a possibly stale answer. With the pause between them they take 2
/// s.
const STALE_READS: u32 = 3;
const STALE_PAUSE: Duration = Duration::from_millis(667);
/// Number of writes after which a tag that still names the subject is not a copy of the image.
const MIRROR_ATTEMPTS: u32 = 3;
/// Returns the pause between a write and its verification. `random` is in 0..=1.
fn pause(longest: Duration, has_other_writers: bool, random: f64) -> Duration {
    let times = if has_other_writers { 2 } else { 1 };
    (Duration::from_millis(50) + longest * times).mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0))
}

/// Returns the pause after `losses` lost updates. `random` is in 0..=1.
fn after_loss(losses: u32, random: f64) -> Duration {
    Duration::from_millis(20 << losses.min(5)).mul_f64(random.clamp(0.0, 1.0))
}

impl Session {
    /// Updates the fallback tag of `subject`, and verifies that concurrent writers did not undo the
    /// update. Foreign entries keep their bytes and their order. Entries that a concurrent writer
    /// dropped are restored.
    ///
    /// With `seen_before` the tag is known to exist, so a 404 is verified by repeated reads.
    ///
    /// # Errors
    /// `FallbackTagConflict` if the tag holds other content or the registry has the referrers API.
    /// `ImmutableTag`. [`RegistryError::Dangling`] if a manifest of `change.add` does not exist.
    /// The errors of every request.
    pub async fn rewrite_fallback(
        &self,
        subject: &Descriptor,
        change: FallbackChange,
        seen_before: bool,
    ) -> Result<FallbackOutcome, RegistryError> {
        self.rewrite_fallback_after(ready(Ok(())), subject, change, seen_before)
            .await
    }

    /// Behaves like [`rewrite_fallback`](Self::rewrite_fallback), but writes only after `first` has
    /// succeeded. The first read runs concurrently with `first`, which is normally the PUT of the
    /// manifest to list.
    ///
    /// # Errors
    /// The error of `first`, and those of [`rewrite_fallback`](Self::rewrite_fallback).
    pub async fn rewrite_fallback_after(
        &self,
        first: impl Future<Output = Result<(), RegistryError>>,
        subject: &Descriptor,
        change: FallbackChange,
        seen_before: bool,
    ) -> Result<FallbackOutcome, RegistryError> {
        let operation = self.operation("PUT", Object::FallbackTag, subject.digest.fallback_tag());
        let conflict = |what: &str| RegistryError::FallbackTagConflict {
            operation: operation.clone(),
            what: what.to_owned(),
        };
        if self.inner.mode == ReferrersMode::Auto && self.referrers_mode().is_none() {
            self.referrers(&subject.digest, None).await?; // detects the referrers API
        }
        if self.referrers_mode() == Some(ListingSource::Api) {
            return Err(conflict(
                "the registry has the referrers API, so no fallback tag is written",
            ));
        }
        let tag = subject
            .digest
            .fallback_tag()
            .parse()
            .map_err(|_| conflict("it is not a valid tag"))?;
        let lock = self
            .inner
            .client
            .rewrite_lock(self.repository(), &subject.digest);
        let mut rewrite = Rewrite::new(self, &subject.digest, operation, tag, change);
        let read = async {
            let alone = lock.lock().await;
            let seen_before = seen_before || self.inner.has_seen_tag(&subject.digest);
            (alone, seen_before, rewrite.read_base(seen_before).await)
        };
        let ((_alone, seen_before, base), first) = tokio::join!(read, first);
        first?;
        rewrite.run(seen_before, base?).await
    }
}

struct Rewrite<'a> {
    session: &'a Session,
    subject: &'a Digest,
    operation: Operation,
    tag: Tag,
    entries: FallbackEntries<'a>,
    /// True after another writer was noticed.
    has_other_writers: bool,
    attempts: u32,
}

/// One read of the tag.
struct BaseRead {
    tag: Option<FallbackTag>,
    sent: Instant,
    done: Instant,
}

/// The result of a verification.
enum Verification {
    Held(Vec<RawEntry>),
    Lost,
}

/// The result of a PUT.
enum Write {
    ErrorAnswer,
    /// The result is unknown, or the list must be rebuilt. The tag must be read again.
    Again,
}

impl<'a> Rewrite<'a> {
    fn new(
        session: &'a Session,
        subject: &'a Digest,
        operation: Operation,
        tag: Tag,
        change: FallbackChange,
    ) -> Self {
        Self {
            session,
            subject,
            operation,
            tag,
            entries: FallbackEntries::new(session, change),
            has_other_writers: false,
            attempts: 0,
        }
    }

    /// Reads the tag as the base of a write.
    async fn read_base(&mut self, seen_before: bool) -> Result<BaseRead, RegistryError> {
        let TagRead { sent, tag, .. } = if seen_before {
            self.read_believed().await?
        } else {
            self.read().await?
        };
        Ok(BaseRead {
            tag,
            sent,
            done: Instant::now(),
        })
    }

    async fn run(
        mut self,
        seen_before: bool,
        first: BaseRead,
    ) -> Result<FallbackOutcome, RegistryError> {
        let (mut losses, mut failures, mut stale) = (0, 0, 0);
        let mut first = Some(first);
        loop {
            let is_late = Instant::now() >= self.session.deadline();
            if self.attempts >= MAX_ATTEMPTS || (is_late && losses > 0) {
                return Err(RegistryError::FallbackTagContended {
                    operation: self.operation,
                    attempts: self.attempts,
                });
            }
            if is_late {
                return Err(RegistryError::Unreachable {
                    operation: self.operation,
                    why: "the deadline passed before it was sent",
                });
            }
            let BaseRead {
                tag: current,
                sent,
                done: read_at,
            } = match first.take() {
                Some(base) => base,
                None => self.read_base(seen_before).await?,
            };
            let merged = self.entries.merge(current.as_ref()).await?;
            let before = current.as_ref().map(|tag| tag.digest.clone());
            let Some(merged) = merged else {
                // The content is right. After a write, a second read must confirm it.
                let entries = current.map(|tag| tag.index.entries).unwrap_or_default();
                if self.attempts == 0 {
                    return Ok(self.outcome(entries));
                }
                match self.verify(None, None, 1).await? {
                    Verification::Held(entries) => return Ok(self.outcome(entries)),
                    Verification::Lost => continue,
                }
            };
            if read_at.elapsed() > MAX_READ_AGE && stale < STALE_READS {
                stale += 1; // the read is too old; HEAD results are kept, so the next round is fast
                continue;
            }
            let bytes = self.bytes(&merged)?;
            let written = Digest::sha256(&bytes);
            self.attempts += 1;
            match self
                .write(bytes, &merged, before.is_some(), &mut failures)
                .await?
            {
                Write::Again => continue,
                Write::ErrorAnswer => self.session.inner.client.record_rewrite(sent.elapsed()),
            }
            self.session.inner.saw_tag(self.subject);
            match self.verify(Some(written), before, 0).await? {
                Verification::Held(entries) => return Ok(self.outcome(entries)),
                Verification::Lost => {
                    sleep(after_loss(losses, rand::random())).await;
                    losses += 1;
                }
            }
        }
    }

    fn outcome(self, entries: Vec<RawEntry>) -> FallbackOutcome {
        FallbackOutcome {
            written: self.attempts > 0,
            attempts: self.attempts,
            dropped: self.entries.into_dropped(),
            entries,
        }
    }

    /// Reads the tag once and records its entries.
    async fn read(&mut self) -> Result<TagRead, RegistryError> {
        let current = self.session.fallback_tag(self.subject).await?;
        self.entries.record(current.tag.as_ref());
        Ok(current)
    }

    /// Reads a tag that existed before. A 404 is verified by repeated reads.
    async fn read_believed(&mut self) -> Result<TagRead, RegistryError> {
        for _ in 0..STALE_READS {
            let read = self.read().await?;
            if read.tag.is_some() {
                return Ok(read);
            }
            sleep(STALE_PAUSE).await;
        }
        self.read().await
    }

    fn bytes(&self, index: &RawIndex) -> Result<Bytes, RegistryError> {
        let limits = &self.session.options().limits;
        let exceeded = |what: &str, limit: u64| {
            Err(RegistryError::LimitExceeded {
                operation: self.operation.clone(),
                what: what.to_owned(),
                limit,
            })
        };
        if index.entries.len() > limits.referrers {
            return exceeded(
                "the subject would have too many referrers",
                limits.referrers as u64,
            );
        }
        let bytes = index.to_bytes();
        if bytes.len() as u64 > limits.manifest_bytes {
            return exceeded(
                "the list of referrers would be too large, in bytes",
                limits.manifest_bytes,
            );
        }
        Ok(bytes.into())
    }

    /// Sends one PUT without retries. A retried list could be outdated.
    async fn write(
        &mut self,
        bytes: Bytes,
        merged: &RawIndex,
        existed: bool,
        failures: &mut u32,
    ) -> Result<Write, RegistryError> {
        let at = Locator::Tag(self.tag.clone());
        match self
            .session
            .put(&at, media_type::OCI_INDEX, bytes, true)
            .await
        {
            Ok(_) => Ok(Write::ErrorAnswer),
            Err(RegistryError::RateLimited { .. }) => Ok(Write::Again), // the next request waits for the end of the pause
            Err(error) if error.is_transient() => {
                *failures += 1;
                let policy = &self.session.options().retry;
                if *failures >= policy.min_tries {
                    return Err(error);
                }
                sleep(policy.delay(*failures, rand::random())).await;
                Ok(Write::Again)
            }
            Err(RegistryError::AccessDenied(answer)) if existed && answer.status == 403 => {
                Err(RegistryError::ImmutableTag {
                    answer,
                    tag: self.tag.to_string(),
                })
            }
            Err(error @ (RegistryError::Refused(_) | RegistryError::NotFound(_))) => {
                self.entries
                    .drop_dangling(&self.operation, error, merged)
                    .await?;
                Ok(Write::Again)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the tag until the change is confirmed or lost. `good` is the number of confirming
    /// reads so far.
    async fn verify(
        &mut self,
        written: Option<Digest>,
        before: Option<Digest>,
        mut good: u32,
    ) -> Result<Verification, RegistryError> {
        let mut stale = 0;
        let longest = self.session.inner.client.longest_rewrite();
        // The tags of one session share the first random number. Otherwise the longest of all their
        // pauses would count.
        let random = if self.attempts > 1 {
            rand::random()
        } else {
            self.session.inner.swing
        };
        sleep(pause(longest, self.has_other_writers, random)).await;
        loop {
            let TagRead {
                tag: current,
                names_subject,
                ..
            } = self.read().await?;
            if names_subject && self.attempts >= MIRROR_ATTEMPTS {
                return Err(RegistryError::FallbackTagConflict {
                    operation: self.operation.clone(),
                    what: READS_TAG_AS_DIGEST.to_owned(),
                });
            }
            let digest = current.as_ref().map(|tag| tag.digest.clone());
            if written.is_some() && digest == written {
                return Ok(Verification::Held(
                    current.map(|tag| tag.index.entries).unwrap_or_default(),
                ));
            }
            if written.is_some() && digest == before && stale < STALE_READS {
                stale += 1; // the content before the write: a stale answer or a lost write
                sleep(STALE_PAUSE).await;
                continue;
            }
            self.has_other_writers = true;
            if !self.entries.is_satisfied(current.as_ref()).await? {
                return Ok(Verification::Lost);
            }
            good += 1;
            if good >= 2 {
                return Ok(Verification::Held(
                    current.map(|tag| tag.index.entries).unwrap_or_default(),
                ));
            }
            sleep(pause(longest, true, rand::random())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_longest_update_and_with_other_writers() {
        let longest = Duration::from_millis(100);
        assert_eq!(pause(longest, false, 0.5), Duration::from_millis(150));
        assert_eq!(pause(longest, true, 0.5), Duration::from_millis(250));
        assert_eq!(pause(longest, false, 0.0), Duration::from_micros(112_500));
        assert_eq!(pause(longest, false, 1.0), Duration::from_micros(187_500));
    }

    #[test]
    fn the_wait_after_a_loss_doubles_to_640_ms_at_most() {
        let ceilings: Vec<_> = (0..8)
            .map(|losses| after_loss(losses, 1.0).as_millis())
            .collect();
        assert_eq!(ceilings, [20, 40, 80, 160, 320, 640, 640, 640]);
    }
}
