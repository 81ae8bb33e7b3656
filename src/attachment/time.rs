//! The `created` time of an attachment: whole seconds, UTC, as `org.opencontainers.image.created` writes it.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::end_of_life::date_time;

/// 0000-01-01T00:00:00Z, in seconds since 1970.
const YEAR_ZERO: i64 = -62_167_219_200;

/// An instant in whole seconds, printed as `2026-11-23T17:33:35Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Created(Timestamp);

impl Created {
    /// The whole second that `instant` lies in.
    #[must_use]
    pub fn at(instant: Timestamp) -> Self {
        Self(Timestamp::from_second(instant.as_second()).unwrap_or(instant))
    }

    /// The time that a spec states: of an RFC 3339 date-time and nothing else, while what others wrote is read as well as it can be.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn stated(text: &str) -> Result<Self, CreatedError> {
        // Beyond these, in some zone, some clocks end.
        let is_extreme = ["0000-01-01", "9999-12-3"]
            .iter()
            .any(|edge| text.starts_with(edge));
        let instant = date_time(text)
            .filter(|_| !is_extreme)
            .and_then(|instant| Timestamp::from_duration(instant).ok());
        instant.map(Self::at).ok_or_else(|| CreatedError::of(text))
    }

    /// One second later; the end of time stays where it is.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(SignedDuration::from_secs(1))
                .unwrap_or(self.0),
        )
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

impl CreatedError {
    fn of(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

impl FromStr for Created {
    type Err = CreatedError;

    fn from_str(text: &str) -> Result<Self, CreatedError> {
        let lenient = |error| match text.parse::<Timestamp>() {
            // RFC 3339, and with it status, knows no years before 0000.
            Ok(instant) if instant.as_second() >= YEAR_ZERO => Ok(Self::at(instant)),
            _ => Err(error),
        };
        Self::stated(text).or_else(lenient)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spec_states_is_rfc_3339_to_the_letter() {
        for text in [
            "2026-11-23T17:33:35Z",
            "2026-11-23T18:33:35.123456789012+01:00",
        ] {
            assert!(Created::stated(text).is_ok(), "{text}");
        }
        for text in [
            "2026-11-23",
            "2026-11-23 17:33:35Z",
            "2026-11-23T17:33:35Z[UTC]",
            "2026-11-23T17:33:60Z",
            "9999-12-31T23:59:59Z",
        ] {
            let error = Created::stated(text).unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains("such as 2026-11-23T17:33:35Z"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_year_that_status_could_not_hold_is_none() {
        assert_eq!(
            "0000-01-01T00:00:00Z"
                .parse::<Created>()
                .unwrap()
                .to_string(),
            "0000-01-01T00:00:00Z"
        );
        for text in [
            "-000001-12-31T23:59:59Z",
            "-000009-01-01T00:00:00Z",
            "0000-01-01T00:00:00+01:00",
        ] {
            assert!(text.parse::<Created>().is_err(), "{text}");
        }
    }

    #[test]
    fn fractions_are_cut_and_offsets_turned_into_utc() {
        let created: Created = "2026-11-23T18:33:35.999+01:00".parse().unwrap();
        assert_eq!(created.to_string(), "2026-11-23T17:33:35Z");
        assert_eq!(created.next().to_string(), "2026-11-23T17:33:36Z");
    }
}
