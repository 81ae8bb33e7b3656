//! The answers of registries about running images, each of which is kept for hours.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::inventory::{Answer, ImageKey, RunningImages};

/// The divisor of the lifetime for failures: with the default of 6 h, a failed look-up is repeated after an hour.
const FAILURE_DIVISOR: u32 = 6;

/// Answers by image.
pub(super) struct AnswerCache {
    lifetime: Duration,
    entries: HashMap<ImageKey, (Answer, Instant)>,
}

impl AnswerCache {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            entries: HashMap::new(),
        }
    }

    /// Removes the answers for images that no longer run.
    pub(super) fn retain(&mut self, running: &RunningImages) {
        self.entries.retain(|key, _| running.contains(key));
    }

    /// Returns whether an image has no answer, or one whose lifetime has ended.
    pub(super) fn is_due(&self, key: &ImageKey, now: Instant) -> bool {
        self.entries.get(key).is_none_or(|(_, end)| *end <= now)
    }

    /// Keeps an answer. The lifetimes differ by image, so that the images of a cluster are not looked up at the same time. An answer
    /// that was found is kept in spite of a later failure until a look-up succeeds.
    pub(super) fn insert(&mut self, key: ImageKey, answer: Answer, now: Instant) {
        let lifetime = match &answer {
            Ok(_) => self.lifetime.mul_f64(spread(&key)),
            Err(_) => self.lifetime / FAILURE_DIVISOR,
        };
        let end = now + lifetime;
        match self.entries.get_mut(&key) {
            Some((Ok(_), known_end)) if answer.is_err() => *known_end = end,
            _ => {
                self.entries.insert(key, (answer, end));
            }
        }
    }

    pub(super) fn get(&self, key: &ImageKey) -> Option<&Answer> {
        self.entries.get(key).map(|(answer, _)| answer)
    }
}

/// Returns a factor from 0.75 to 1.25 that follows from the digest.
fn spread(key: &ImageKey) -> f64 {
    let hex = key.digest.as_ref().map_or("00", |digest| digest.hex());
    let byte = hex
        .get(..2)
        .and_then(|hex| u8::from_str_radix(hex, 16).ok());
    0.75 + f64::from(byte.unwrap_or_default()) / 510.0
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::{LifecycleReport, Marks};
    use affix_registry::oci::Digest;

    const HOUR: Duration = Duration::from_hours(1);

    fn key(first: &str) -> ImageKey {
        let digest: Digest = format!("sha256:{first}{}", "0".repeat(62)).parse().unwrap();
        ImageKey {
            name: "r.example.com/app".into(),
            digest: Some(digest),
        }
    }

    fn found(key: &ImageKey) -> Answer {
        Ok(Arc::new(LifecycleReport {
            digest: key.digest.clone().unwrap(),
            marks: Marks::default(),
            platforms: Vec::new(),
        }))
    }

    #[tokio::test]
    async fn an_image_is_due_again_after_hours_and_not_all_at_once() {
        let (mut answers, now) = (AnswerCache::new(6 * HOUR), Instant::now());
        for first in ["00", "ff"] {
            assert!(answers.is_due(&key(first), now));
            answers.insert(key(first), found(&key(first)), now);
        }
        let due = |hours: f64| {
            ["00", "ff"].map(|first| answers.is_due(&key(first), now + HOUR.mul_f64(hours)))
        };
        assert_eq!(due(4.4), [false, false]);
        assert_eq!(due(5.0), [true, false]);
        assert_eq!(due(7.6), [true, true]);
    }

    #[tokio::test]
    async fn a_failure_is_retried_earlier_and_does_not_replace_an_answer() {
        let (mut answers, now) = (AnswerCache::new(6 * HOUR), Instant::now());
        let failure = || Err("HTTP 503".into());
        answers.insert(key("00"), failure(), now);
        assert!(
            !answers.is_due(&key("00"), now + HOUR / 2) && answers.is_due(&key("00"), now + HOUR)
        );
        assert!(answers.get(&key("00")).unwrap().is_err());
        answers.insert(key("00"), found(&key("00")), now);
        answers.insert(key("00"), failure(), now);
        assert!(answers.get(&key("00")).unwrap().is_ok());
        assert!(answers.is_due(&key("00"), now + HOUR));
    }
}
