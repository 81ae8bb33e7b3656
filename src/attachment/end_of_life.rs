//! The date in an end-of-life mark: an RFC 3339 date-time or full-date, written as it was given.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil};

/// A valid end-of-life date, and the instant that it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndOfLifeDate {
    text: Box<str>,
    instant: SignedDuration,
}

impl EndOfLifeDate {
    /// As given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The instant from which the image is out of life, since 1970-01-01T00:00:00Z; a bare date begins at 00:00 UTC. No
    /// [`Timestamp`], which ends a day before the year 9999 does: the date that means "never" in the field.
    #[must_use]
    pub const fn instant(&self) -> SignedDuration {
        self.instant
    }

    /// The date that is `instant`, in whole seconds.
    #[must_use]
    pub fn at(instant: Timestamp) -> Self {
        let created = super::Created::at(instant);
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

/// The text is no date that readers of end-of-life marks agree on.
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

fn since_epoch(local: civil::DateTime) -> SignedDuration {
    local.duration_since(civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0))
}

/// The instant of an RFC 3339 `date-time` (section 5.6), since 1970-01-01T00:00:00Z. Narrower than what jiff takes (it reads spaces,
/// weeks, zones in brackets): with `T` and `Z` in upper case, since Go's `time.Parse` reads no other, and without the 60th second, of
/// which libraries make different things. What is finer than a nanosecond counts for nothing.
pub(super) fn date_time(text: &str) -> Option<SignedDuration> {
    const NANOSECONDS: usize = 9;
    let (seconds, rest) = text.split_at_checked(19)?;
    if !has_form(seconds, "dddd-dd-ddTdd:dd:dd") || seconds.ends_with(":60") {
        return None;
    }
    let digits = rest.strip_prefix('.').map_or(0, |fraction| {
        fraction.bytes().take_while(u8::is_ascii_digit).count()
    });
    let (fraction, offset) = if digits == 0 {
        ("", rest)
    } else {
        rest.split_at_checked(digits + 1)?
    };
    let fraction = fraction.get(..=NANOSECONDS).unwrap_or(fraction);
    let local: civil::DateTime = format!("{seconds}{fraction}").parse().ok()?;
    Some(since_epoch(local) - offset_of(offset)?)
}

fn offset_of(text: &str) -> Option<SignedDuration> {
    if text == "Z" {
        return Some(SignedDuration::ZERO);
    }
    if !has_form(text, "+dd:dd") && !has_form(text, "-dd:dd") {
        return None;
    }
    let (hours, minutes): (i64, i64) =
        (text.get(1..3)?.parse().ok()?, text.get(4..6)?.parse().ok()?);
    let seconds = hours * 3600 + minutes * 60;
    (hours < 24 && minutes < 60).then(|| {
        SignedDuration::from_secs(if text.starts_with('-') {
            -seconds
        } else {
            seconds
        })
    })
}

fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(b, form)| {
            if form == b'd' {
                b.is_ascii_digit()
            } else {
                b == form
            }
        })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_field_are_read_and_written_as_given() {
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
    fn what_readers_would_not_agree_on_is_refused() {
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
