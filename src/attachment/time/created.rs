//! The `created` time of an attachment, as in the annotation `org.opencontainers.image.created`: UTC, whole seconds.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use affix_registry::oci::{Descriptor, ImageManifest, annotation};

use super::rfc3339::date_time;

/// 0000-01-01T00:00:00Z, in seconds since 1970.
const YEAR_ZERO: i64 = -62_167_219_200;

/// An instant in whole seconds. It is printed as `2026-11-23T17:33:35Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Created(Timestamp);

impl Created {
    /// Returns `instant` without its fraction of a second.
    #[must_use]
    pub fn at(instant: Timestamp) -> Self {
        Self(Timestamp::from_second(instant.as_second()).unwrap_or(instant))
    }

    /// Returns the time in the annotations of a listing entry.
    pub(in crate::attachment) fn from_entry(entry: &Descriptor) -> Option<Self> {
        entry.annotations.get(annotation::CREATED)?.parse().ok()
    }

    /// Returns the time in the annotations of a manifest.
    pub(in crate::attachment) fn from_manifest(manifest: &ImageManifest) -> Option<Self> {
        manifest.annotations.get(annotation::CREATED)?.parse().ok()
    }

    /// Parses the time of a spec, which must be an RFC 3339 date-time. Times that other tools wrote are parsed by `FromStr`,
    /// which accepts more forms.
    ///
    /// # Errors
    /// Fails if the text has another form or is at the edge of the years 0000 to 9999.
    pub(in crate::attachment) fn from_spec(text: &str) -> Result<Self, CreatedError> {
        // Another time zone can move these days out of the years that RFC 3339 has.
        let is_extreme = ["0000-01-01", "9999-12-3"]
            .iter()
            .any(|edge| text.starts_with(edge));
        let instant = date_time(text)
            .filter(|_| !is_extreme)
            .and_then(|instant| Timestamp::from_duration(instant).ok());
        instant.map(Self::at).ok_or_else(|| CreatedError::new(text))
    }

    /// Returns the next second, or the same one at the end of the range.
    #[must_use]
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(SignedDuration::from_secs(1))
                .unwrap_or(self.0),
        )
    }

    /// Returns the instant.
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

/// The text is not an RFC 3339 date-time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 date-time such as 2026-11-23T17:33:35Z")]
pub struct CreatedError(String);

impl CreatedError {
    fn new(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

impl FromStr for Created {
    type Err = CreatedError;

    fn from_str(text: &str) -> Result<Self, CreatedError> {
        let lenient = |error| match text.parse::<Timestamp>() {
            // RFC 3339 has no years before 0000, so a status cannot hold them.
            Ok(instant) if instant.as_second() >= YEAR_ZERO => Ok(Self::at(instant)),
            _ => Err(error),
        };
        Self::from_spec(text).or_else(lenient)
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
    fn a_time_of_a_spec_must_be_an_rfc_3339_date_time() {
        for text in [
            "2026-11-23T17:33:35Z",
            "2026-11-23T18:33:35.123456789012+01:00",
        ] {
            assert!(Created::from_spec(text).is_ok(), "{text}");
        }
        for text in [
            "2026-11-23",
            "2026-11-23 17:33:35Z",
            "2026-11-23T17:33:35Z[UTC]",
            "2026-11-23T17:33:60Z",
            "9999-12-31T23:59:59Z",
        ] {
            let error = Created::from_spec(text).unwrap_err().to_string();
            assert!(
                error.contains(text) && error.contains("such as 2026-11-23T17:33:35Z"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_year_that_status_cannot_hold_is_refused() {
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
    fn fractions_are_cut_and_offsets_converted_to_utc() {
        let created: Created = "2026-11-23T18:33:35.999+01:00".parse().unwrap();
        assert_eq!(created.to_string(), "2026-11-23T17:33:35Z");
        assert_eq!(created.next().to_string(), "2026-11-23T17:33:36Z");
    }
}
