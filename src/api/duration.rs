//! Durations as Kubernetes and Flux users write them: `10m`, `1h30m`, `1.5s`.
//!
//! The grammar is the subset of Go's that Flux admits: hours, minutes, seconds and milliseconds, without signs and spaces. A duration keeps
//! the text that it was parsed from, so that a resource does not change when it is read and written again. Go's limit of about 292 years
//! applies.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Flux's pattern for durations, which the schema contains.
pub(super) const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// The maximum length of a duration in the schema, in characters.
const DURATION_MAX_LENGTH: u32 = 32;

/// The longest duration that Go can represent, in nanoseconds. The API server refuses longer ones.
const MAX_NANOS: u128 = i64::MAX as u128;

/// A duration and the text that it was parsed from.
///
/// Two durations are equal if their lengths are equal: `60s` equals `1m`.
#[derive(Clone, Debug)]
pub struct GoDuration {
    text: Cow<'static, str>,
    value: Duration,
}

/// The reason why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text does not follow the grammar.
    #[error(
        "{0:?} is not a duration: write numbers with a unit of ms, s, m or h, as in 90s, 10m or 1h30m"
    )]
    Malformed(String),
    /// The text follows the grammar, but is longer than Go can represent.
    #[error("the duration {0:?} is too long: at most about 292 years, 2562047h")]
    TooLong(String),
}

impl GoDuration {
    /// Returns the length.
    #[must_use]
    pub const fn get(&self) -> Duration {
        self.value
    }

    /// Returns the text as the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&GoDuration> for Duration {
    fn from(duration: &GoDuration) -> Self {
        duration.value
    }
}

impl From<Duration> for GoDuration {
    /// Uses the largest whole unit: `90m` rather than `5400s`. Fractions of a millisecond are cut off.
    fn from(value: Duration) -> Self {
        let millis = value.as_millis().min(MAX_NANOS / 1_000_000);
        let text = match millis {
            0 => "0s".to_owned(),
            n if n.is_multiple_of(3_600_000) => format!("{}h", n / 3_600_000),
            n if n.is_multiple_of(60_000) => format!("{}m", n / 60_000),
            n if n.is_multiple_of(1_000) => format!("{}s", n / 1_000),
            n => format!("{n}ms"),
        };
        Self {
            text: text.into(),
            value: Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)),
        }
    }
}

impl PartialEq for GoDuration {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for GoDuration {}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanos = parse_nanos(text)?;
        let seconds = u64::try_from(nanos / 1_000_000_000)
            .map_err(|_| DurationError::TooLong(text.to_owned()))?;
        let rest = u32::try_from(nanos % 1_000_000_000)
            .map_err(|_| DurationError::TooLong(text.to_owned()))?;
        Ok(Self {
            text: Cow::Owned(text.to_owned()),
            value: Duration::new(seconds, rest),
        })
    }
}

/// Returns the sum of all parts in nanoseconds. It uses integers only, so that `0.1s` is exactly 100 ms.
fn parse_nanos(text: &str) -> Result<u128, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let too_long = || DurationError::TooLong(text.to_owned());
    if text.is_empty() {
        return Err(malformed());
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        if whole.is_empty() {
            return Err(malformed());
        }
        let (fraction, after) = match after.strip_prefix('.') {
            None => ("", after),
            Some(after) => match digits(after) {
                ("", _) => return Err(malformed()),
                found => found,
            },
        };
        let (unit, after) = unit(after).ok_or_else(malformed)?;
        let whole: u128 = whole.parse().map_err(|_| too_long())?;
        let part = whole
            .checked_mul(unit)
            .and_then(|nanos| nanos.checked_add(fraction_of(fraction, unit)));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= MAX_NANOS)
            .ok_or_else(too_long)?;
        rest = after;
    }
    Ok(total)
}

fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Splits off the unit that the text begins with, in nanoseconds. `ms` is tried before `m`.
fn unit(text: &str) -> Option<(u128, &str)> {
    const UNITS: [(&str, u128); 4] = [
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    UNITS
        .iter()
        .find_map(|(name, nanos)| text.strip_prefix(name).map(|rest| (*nanos, rest)))
}

/// Converts the digits after the point to nanoseconds. Like Go, it cuts off fractions of a nanosecond.
fn fraction_of(digits: &str, unit: u128) -> u128 {
    let mut scale = unit;
    digits.bytes().fold(0, |sum, digit| {
        let part = scale * u128::from(digit - b'0') / 10;
        scale /= 10;
        sum + part
    })
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": DURATION_PATTERN, "maxLength": DURATION_MAX_LENGTH})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Duration {
        text.parse::<GoDuration>().unwrap().get()
    }

    #[test]
    fn durations_are_the_sum_of_their_parts() {
        assert_eq!(parsed("10m"), Duration::from_secs(600));
        assert_eq!(parsed("1h30m"), Duration::from_secs(5400));
        assert_eq!(parsed("720h"), Duration::from_secs(2_592_000));
        assert_eq!(parsed("1s500ms"), Duration::from_millis(1500));
        assert_eq!(parsed("0s"), Duration::ZERO);
    }

    #[test]
    fn fractions_are_exact() {
        assert_eq!(parsed("0.1s"), Duration::from_millis(100));
        assert_eq!(parsed("1.5h"), Duration::from_secs(5400));
        assert_eq!(parsed("0.001ms"), Duration::from_micros(1));
        assert_eq!(parsed("0.00000000000000000001s"), Duration::ZERO);
    }

    #[test]
    fn a_malformed_duration_is_refused_with_an_example() {
        for text in [
            "", " ", "10", "m", "-1s", "+1s", "1 h", "1d", "1us", "1.s", ".5s", "1h ", "1H",
            "10m,", "１s",
        ] {
            let error = text.parse::<GoDuration>().unwrap_err();
            assert_eq!(error, DurationError::Malformed(text.to_owned()), "{text:?}");
            assert!(error.to_string().contains("1h30m"), "{error}");
        }
    }

    #[test]
    fn a_duration_longer_than_go_can_represent_is_refused() {
        assert_eq!(parsed("2562047h"), Duration::from_secs(2_562_047 * 3600));
        for text in ["2562048h", "99999999999999999999999999999h", "2562047h48m"] {
            assert_eq!(
                text.parse::<GoDuration>().unwrap_err(),
                DurationError::TooLong(text.to_owned())
            );
        }
    }

    #[test]
    fn a_duration_is_written_back_as_it_was_read() {
        let duration: GoDuration = serde_json::from_str(r#""90m""#).unwrap();
        assert_eq!(serde_json::to_string(&duration).unwrap(), r#""90m""#);
        assert_eq!(duration, "1h30m".parse().unwrap());
    }

    #[test]
    fn a_computed_duration_is_written_in_whole_units() {
        for (millis, text) in [
            (0, "0s"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (600_000, "10m"),
            (2_592_000_000, "720h"),
        ] {
            assert_eq!(
                GoDuration::from(Duration::from_millis(millis)).as_str(),
                text
            );
        }
    }

    proptest! {
        #[test]
        fn whole_parts_add_up(h in 0_u64..2000, m in 0_u64..600, s in 0_u64..600, ms in 0_u64..10_000) {
            let expected = Duration::from_millis(((h * 60 + m) * 60 + s) * 1000 + ms);
            prop_assert_eq!(parsed(&format!("{h}h{m}m{s}s{ms}ms")), expected);
            prop_assert_eq!(parsed(GoDuration::from(expected).as_str()), expected);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _: Result<GoDuration, _> = text.parse();
        }
    }
}
