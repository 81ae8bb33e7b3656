//! Rules of durations.

use std::time::Duration;

use serde_json::Value;

use super::Rule;
use super::pattern::Pattern;
use crate::api::duration::{DURATION_PATTERN, GoDuration};

/// The pattern of the schema, repeated as a rule for the sake of its message.
pub(super) static DURATION: Pattern = Pattern::new(DURATION_PATTERN);

/// The longest duration. A date that is computed from it stays within the years of RFC 3339.
const CENTURY: Duration = Duration::from_hours(876_000);

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::matches(
            &[
                "spec.interval",
                "spec.timeout",
                "spec.endOfLife.whenSuperseded.gracePeriod",
                "spec.endOfLife.whenSuperseded.settle",
                "spec.signature.overlap",
                "spec.signature.notation.expiry",
            ],
            &DURATION,
            "not a duration: write numbers with a unit of ms, s, m or h, for example 90s, 10m or 1h30m",
        ),
        Rule::new(
            &[
                "spec.endOfLife.whenSuperseded.gracePeriod",
                "spec.endOfLife.whenSuperseded.settle",
                "spec.signature.overlap",
            ],
            on_durations("duration(self) <= duration('876000h')"),
            |value| is_between(value, Duration::ZERO),
            "must be at most 876000h (100 years); for example 720h",
        ),
        // A shorter interval would be a busy loop.
        Rule::new(
            &[
                "spec.interval",
                "spec.timeout",
                "spec.signature.notation.expiry",
            ],
            on_durations(
                "(duration(self) >= duration('1s') && duration(self) <= duration('876000h'))",
            ),
            |value| is_between(value, Duration::from_secs(1)),
            "must be at least 1s and at most 876000h (100 years); for example 10m",
        ),
    ]
}

/// Returns an expression that holds for texts that are not durations, which the pattern reports.
pub(super) fn on_durations(condition: &str) -> String {
    format!("!({}) || {condition}", DURATION.expression())
}

pub(super) fn is_between(value: &Value, least: Duration) -> bool {
    let Some(text) = value.as_str().filter(|text| DURATION.is_match(text)) else {
        return true;
    };
    text.parse::<GoDuration>()
        .is_ok_and(|duration| (least..=CENTURY).contains(&duration.get()))
}
