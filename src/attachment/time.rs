//! The `created` time of an attachment: whole seconds, UTC, as `org.opencontainers.image.created` writes it.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// An instant in whole seconds, printed as `2026-11-23T17:33:35Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Created(Timestamp);

impl Created {
    /// The whole second that `instant` lies in.
    #[must_use]
    pub fn at(instant: Timestamp) -> Self {
        Self(Timestamp::from_second(instant.as_second()).unwrap_or(instant))
    }

    /// One second later; the end of time stays where it is.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(SignedDuration::from_secs(1)).unwrap_or(self.0))
    }

    /// The instant.
    #[must_use]
    pub const fn instant(self) -> Timestamp {
        self.0
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// The text is no RFC 3339 date-time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 date-time such as 2026-11-23T17:33:35Z")]
pub struct CreatedError(String);

impl FromStr for Created {
    type Err = CreatedError;

    fn from_str(text: &str) -> Result<Self, CreatedError> {
        text.parse::<Timestamp>().map(Self::at).map_err(|_| CreatedError(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_cut_and_offsets_turned_into_utc() {
        let created: Created = "2026-11-23T18:33:35.999+01:00".parse().unwrap();
        assert_eq!(created.to_string(), "2026-11-23T17:33:35Z");
        assert_eq!(created.next().to_string(), "2026-11-23T17:33:36Z");
    }
}
