//! The date of an end-of-life mark: an RFC 3339 date-time or full-date, which is written unchanged.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil};

use super::created::Created;
use super::rfc3339::{date_time, has_form, since_epoch};

/// A valid end-of-life date with its text and its instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfLifeDate {
    text: Box<str>,
    instant: SignedDuration,
}

impl EndOfLifeDate {
    /// Returns the text of the spec.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the end of life as the time since 1970-01-01T00:00:00Z. A full-date begins at 00:00 UTC.
    ///
    /// This is not a [`Timestamp`], which cannot hold 9999-12-31: many tools write that date for "never".
    #[must_use]
    pub const fn instant(&self) -> SignedDuration {
        self.instant
    }

    /// Returns the date as an RFC 3339 date-time: a full-date with its first second, any other as given.
    #[must_use]
    pub fn date_time(&self) -> String {
        let is_day = has_form(&self.text, "dddd-dd-dd");
        format!("{}{}", self.text, if is_day { "T00:00:00Z" } else { "" })
    }

    /// Returns the date at `instant`, in whole seconds.
    #[must_use]
    pub fn at(instant: Timestamp) -> Self {
        let created = Created::at(instant);
        Self {
            text: created.to_string().into(),
            instant: created.instant().as_duration(),
        }
    }
}

impl fmt::Display for EndOfLifeDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text is not a date that all readers of end-of-life marks understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a date: write an RFC 3339 date-time with its offset and without a leap second, such as 2025-03-20T01:20:30Z (T and Z in \
     upper case, as most readers need them), or a full date, such as 2025-03-20"
)]
pub struct EndOfLifeDateError(String);

impl FromStr for EndOfLifeDate {
    type Err = EndOfLifeDateError;

    fn from_str(text: &str) -> Result<Self, EndOfLifeDateError> {
        let instant = if has_form(text, "dddd-dd-dd") {
            day(text)
        } else {
            date_time(text)
        };
        let instant = instant.ok_or_else(|| EndOfLifeDateError(text.chars().take(64).collect()))?;
        Ok(Self {
            text: text.into(),
            instant,
        })
    }
}

fn day(text: &str) -> Option<SignedDuration> {
    let date: civil::Date = text.parse().ok()?;
    Some(since_epoch(date.at(0, 0, 0, 0)))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_use_are_parsed_and_written_unchanged() {
        for (text, instant) in [
            ("2024-11-12", "2024-11-12T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            (
                "2023-05-12T21:15:10.8343521Z",
                "2023-05-12T21:15:10.8343521Z",
            ),
            ("2025-03-20T01:20:30+02:00", "2025-03-19T23:20:30Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("9999-12-30", "9999-12-30T00:00:00Z"),
            ("2025-03-20T23:59:59.5-23:59", "2025-03-21T23:58:59.5Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            (
                "2025-03-20T01:20:30.1234567891234Z",
                "2025-03-20T01:20:30.123456789Z",
            ),
        ] {
            let date: EndOfLifeDate = text.parse().unwrap();
            let instant: Timestamp = instant.parse().unwrap();
            assert_eq!(
                (date.as_str(), date.instant()),
                (text, instant.as_duration()),
                "{text}"
            );
        }
    }

    #[test]
    fn the_last_days_of_the_year_9999_are_dates_and_differ() {
        let dates = [
            "9999-12-30T23:59:59Z",
            "9999-12-31",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59-23:59",
        ];
        let instants: Vec<SignedDuration> = dates
            .map(|text| text.parse::<EndOfLifeDate>().unwrap().instant())
            .to_vec();
        assert!(
            instants.is_sorted_by(|earlier, later| earlier < later),
            "{instants:?}"
        );
    }

    #[test]
    fn dates_that_readers_understand_differently_are_refused() {
        for text in [
            "",
            "2025",
            "2025-3-20",
            "2025-02-29",
            "2025-13-01",
            "2025-03-20 01:20:30Z",
            "2025-03-20T01:20:30",
            "2025-03-20T01:20Z",
            "2025-03-20t01:20:30z",
            "2025-03-20T25:00:00Z",
            "2016-12-31T23:59:60Z",
            "2025-03-20T01:20:30.123",
            "2025-03-20T01:20:30+24:00",
            "2025-03-20T01:20:30+01:60",
            "2025-03-20T01:20:30.Z",
            "2025-03-20T01:20:30[UTC]",
            "20250320",
            "2025-W12-4",
            "tomorrow",
            "+02025-03-20",
            "2025-03-20Z",
        ] {
            let error = text.parse::<EndOfLifeDate>().unwrap_err().to_string();
            assert!(
                error.contains("such as 2025-03-20T01:20:30Z"),
                "{text}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_date_or_refused(text in "[0-9T:Z.+-]{0,30}|\\PC{0,30}") {
            if let Ok(date) = text.parse::<EndOfLifeDate>() {
                assert_eq!(date.as_str(), text);
            }
        }
    }
}
