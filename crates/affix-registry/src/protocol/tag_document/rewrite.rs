//! Updates of a document under a tag with concurrent writers.
//!
//! Registries ignore conditional requests here. If two clients read, extend and write the list at
//! the same time, one update is lost without an error. An update is therefore verified by a second
//! read. The pause before it is long enough for a client that read the old list to have written.
//! The constants were measured with 20 concurrent writers.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::entries::Entries;
use super::{TagChange, TagContent, TagDocument, TagOutcome, TagRead};
use crate::client::session::Locator;
use crate::error::RegistryError;
use crate::oci::{Digest, RawDocument, RawEntry};

/// Maximum number of PUT requests of one update.
const MAX_ATTEMPTS: u32 = 20;
/// Maximum age of a read that a write is based on.
const MAX_READ_AGE: Duration = Duration::from_millis(200);
/// Maximum number of repeated reads before a write because dependent parts were made for other content.
const MAX_PREPARED: u32 = 8;
/// Number of repeated reads after a possibly stale answer. With the pause between them they take 2
/// s.
const STALE_READS: u32 = 3;
const STALE_PAUSE: Duration = Duration::from_millis(667);
/// Number of writes after which a tag that still names the subject is not a copy of the image.
const MIRROR_ATTEMPTS: u32 = 3;

/// Returns the pause between a write and its verification. `random` is in 0..=1.
fn pause(shortest: Duration, longest: Duration, has_other_writers: bool, random: f64) -> Duration {
    let times = if has_other_writers { 2 } else { 1 };
    (shortest + longest * times).mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0))
}

/// Returns the pause after `losses` lost updates. `random` is in 0..=1.
fn after_loss(losses: u32, random: f64) -> Duration {
    Duration::from_millis(20 << losses.min(5)).mul_f64(random.clamp(0.0, 1.0))
}

/// Updates the document of `kind`, and verifies that concurrent writers did not undo the update. Writes
/// only after `first` has succeeded, which runs concurrently with the first requests. Foreign entries keep
/// their bytes and their order. Entries that a concurrent writer dropped are restored.
///
/// With `seen_before` the tag is known to exist, so a 404 is verified by repeated reads.
pub(crate) async fn rewrite_after<D: TagDocument>(
    kind: D,
    first: impl Future<Output = Result<(), RegistryError>>,
    change: &TagChange,
    seen_before: bool,
) -> Result<TagOutcome, RegistryError> {
    let session = kind.session().clone();
    let lock = session
        .inner
        .client
        .rewrite_lock(session.repository(), kind.tag());
    let mut rewrite = Rewrite {
        entries: Entries::new(&kind, change),
        kind,
        has_other_writers: false,
        attempts: 0,
    };
    let begin = async {
        let alone = lock.lock().await;
        let seen_before = seen_before || session.inner.has_seen_tag(rewrite.kind.tag());
        (alone, seen_before, rewrite.begin(seen_before).await)
    };
    // Boxed: the states are large, and the futures of all callers would contain them.
    let ((_alone, seen_before, base), first) = tokio::join!(Box::pin(begin), Box::pin(first));
    first?;
    Box::pin(rewrite.run(seen_before, base?)).await
}

struct Rewrite<D> {
    kind: D,
    entries: Entries,
    /// True after another writer was noticed.
    has_other_writers: bool,
    attempts: u32,
}

/// One read of the tag.
struct BaseRead {
    tag: Option<TagContent>,
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
    Done,
    /// The result is unknown, or the list must be rebuilt. The tag must be read again.
    Again,
}

impl<D: TagDocument> Rewrite<D> {
    /// Does the work that may precede the write. Returns the base of the write, unless it is to be read
    /// again.
    async fn begin(&mut self, seen_before: bool) -> Result<Option<BaseRead>, RegistryError> {
        let base = match D::HAS_DEPENDENT_PARTS && !seen_before {
            true => None,
            false => Some(self.read_base(seen_before).await?),
        };
        if D::HAS_DEPENDENT_PARTS {
            let content = base.as_ref().and_then(|base| base.tag.as_ref());
            if let Some(mut merged) = self.entries.merge(&self.kind, content).await?
                && self.kind.prepare(content, &mut merged).await?
            {
                return Ok(None);
            }
        }
        Ok(base)
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
        mut first: Option<BaseRead>,
    ) -> Result<TagOutcome, RegistryError> {
        let (mut losses, mut failures, mut stale, mut prepared) = (0, 0, 0, 0);
        loop {
            let is_late = Instant::now() >= self.kind.session().deadline();
            if self.attempts >= MAX_ATTEMPTS || (is_late && losses > 0) {
                return Err(RegistryError::FallbackTagContended {
                    operation: self.kind.operation().clone(),
                    attempts: self.attempts,
                });
            }
            if is_late {
                return Err(RegistryError::Unreachable {
                    operation: self.kind.operation().clone(),
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
            let merged = self.entries.merge(&self.kind, current.as_ref()).await?;
            let before = current.as_ref().map(|tag| tag.digest.clone());
            let Some(mut merged) = merged else {
                // The content is right. After a write, a second read must confirm it.
                let entries = current.map(|tag| tag.document.entries).unwrap_or_default();
                if self.attempts == 0 {
                    return Ok(self.outcome(entries));
                }
                match self.verify(None, None, 1).await? {
                    Verification::Held(entries) => return Ok(self.outcome(entries)),
                    Verification::Lost => continue,
                }
            };
            let has_sent = self.kind.prepare(current.as_ref(), &mut merged).await?;
            // The read is too old. Results are kept, so the next round is fast.
            if has_sent && prepared < MAX_PREPARED {
                prepared += 1;
                continue;
            }
            if read_at.elapsed() > MAX_READ_AGE && stale < STALE_READS {
                stale += 1;
                continue;
            }
            let (media_type, bytes) = self.written(&merged)?;
            let written = Digest::sha256(&bytes);
            self.attempts += 1;
            let is_known = before.is_some();
            match self
                .write(&media_type, bytes, &merged, is_known, &mut failures)
                .await?
            {
                Write::Again => continue,
                Write::Done => {
                    let inner = &self.kind.session().inner;
                    inner.client.record_rewrite(sent.elapsed());
                    inner.saw_tag(self.kind.tag());
                }
            }
            match self.verify(Some(written), before, 0).await? {
                Verification::Held(entries) => return Ok(self.outcome(entries)),
                Verification::Lost => {
                    sleep(after_loss(losses, rand::random())).await;
                    losses += 1;
                    prepared = 0;
                }
            }
        }
    }

    fn outcome(self, entries: Vec<RawEntry>) -> TagOutcome {
        TagOutcome {
            written: self.attempts > 0,
            attempts: self.attempts,
            dropped: self.entries.into_dropped(),
            entries,
        }
    }

    /// Reads the tag once and records its entries.
    async fn read(&mut self) -> Result<TagRead, RegistryError> {
        let current = self.kind.read().await?;
        if current.tag.is_some() {
            self.kind.session().inner.saw_tag(self.kind.tag());
        }
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

    fn written(&self, document: &RawDocument) -> Result<(String, bytes::Bytes), RegistryError> {
        let limits = &self.kind.session().options().limits;
        let exceeded = |what: String, limit: u64| {
            Err(RegistryError::LimitExceeded {
                operation: self.kind.operation().clone(),
                what,
                limit,
            })
        };
        if document.entries.len() > limits.referrers {
            let what = format!("the subject would have too many {}", D::ENTRIES);
            return exceeded(what, limits.referrers as u64);
        }
        let (media_type, bytes) = self.kind.written(document);
        if bytes.len() as u64 > limits.manifest_bytes {
            let what = format!("the list of {} would be too large, in bytes", D::ENTRIES);
            return exceeded(what, limits.manifest_bytes);
        }
        Ok((media_type, bytes))
    }

    /// Sends one PUT without retries. A retried list could be outdated.
    async fn write(
        &mut self,
        media_type: &str,
        bytes: bytes::Bytes,
        merged: &RawDocument,
        existed: bool,
        failures: &mut u32,
    ) -> Result<Write, RegistryError> {
        let session = self.kind.session();
        let at = Locator::Tag(self.kind.tag().clone());
        match session.put(&at, media_type, bytes, true).await {
            Ok(_) => Ok(Write::Done),
            Err(RegistryError::RateLimited { .. }) => Ok(Write::Again), // the next request waits for the end of the pause
            Err(error) if error.is_transient() => {
                *failures += 1;
                let policy = &session.options().retry;
                if *failures >= policy.min_tries {
                    return Err(error);
                }
                sleep(policy.delay(*failures, rand::random())).await;
                Ok(Write::Again)
            }
            Err(RegistryError::AccessDenied(answer)) if existed && answer.status == 403 => {
                Err(RegistryError::ImmutableTag {
                    answer,
                    tag: self.kind.tag().to_string(),
                })
            }
            Err(error @ (RegistryError::Refused(_) | RegistryError::NotFound(_))) => {
                self.entries
                    .drop_dangling(&self.kind, error, merged)
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
        let inner = &self.kind.session().inner;
        let longest = inner.client.longest_rewrite();
        // The tags of one session share the first random number. Otherwise the longest of all their
        // pauses would count.
        let random = if self.attempts > 1 {
            rand::random()
        } else {
            inner.swing
        };
        let shortest = Duration::from_millis(D::PAUSE_MILLIS);
        sleep(pause(shortest, longest, self.has_other_writers, random)).await;
        loop {
            let TagRead {
                tag: current,
                names_subject,
                ..
            } = self.read().await?;
            if names_subject && self.attempts >= MIRROR_ATTEMPTS {
                return Err(self.kind.conflict());
            }
            let digest = current.as_ref().map(|tag| tag.digest.clone());
            let entries =
                |tag: Option<TagContent>| tag.map(|tag| tag.document.entries).unwrap_or_default();
            if written.is_some() && digest == written {
                return Ok(Verification::Held(entries(current)));
            }
            if written.is_some() && digest == before && stale < STALE_READS {
                stale += 1; // the content before the write: a stale answer or a lost write
                sleep(STALE_PAUSE).await;
                continue;
            }
            self.has_other_writers = true;
            if !self
                .entries
                .is_satisfied(&self.kind, current.as_ref())
                .await?
            {
                return Ok(Verification::Lost);
            }
            good += 1;
            if good >= 2 {
                return Ok(Verification::Held(entries(current)));
            }
            sleep(pause(shortest, longest, true, rand::random())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_the_longest_update_and_with_other_writers() {
        let longest = Duration::from_millis(100);
        assert_eq!(
            pause(Duration::from_millis(50), longest, false, 0.5),
            Duration::from_millis(150)
        );
        assert_eq!(
            pause(Duration::from_millis(50), longest, true, 0.5),
            Duration::from_millis(250)
        );
        assert_eq!(
            pause(Duration::from_millis(50), longest, false, 0.0),
            Duration::from_micros(112_500)
        );
        assert_eq!(
            pause(Duration::from_millis(50), longest, false, 1.0),
            Duration::from_micros(187_500)
        );
    }

    #[test]
    fn the_wait_after_a_loss_doubles_to_640_ms_at_most() {
        let ceilings: Vec<_> = (0..8)
            .map(|losses| after_loss(losses, 1.0).as_millis())
            .collect();
        assert_eq!(ceilings, [20, 40, 80, 160, 320, 640, 640, 640]);
    }
}
