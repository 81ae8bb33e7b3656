//! Rules of `spec.endOfLife`, and of annotations and dates.

use serde_json::Value;

use super::pattern::{DIGEST, Pattern};
use super::{Rule, get, has};

/// The regular expression of a calendar date: months with their lengths, 29 February in leap years only.
macro_rules! day {
    () => {
        concat!(
            r"([0-9]{4}-(((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))|((0[469]|11)-(0[1-9]|[12][0-9]|30))",
            r"|(02-(0[1-9]|1[0-9]|2[0-8])))",
            r"|(([0-9]{2}(0[48]|[2468][048]|[13579][26]))|((0[048]|[2468][048]|[13579][26])00))-02-29)",
        )
    };
}

/// The regular expression of the time of an RFC 3339 date-time. Upper case only, because Go's `time.Parse`, which most readers of marks
/// use, accepts nothing else.
macro_rules! time {
    () => {
        r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
    };
}

/// A date, or a date and time.
pub(super) static DATE: Pattern = Pattern::new(concat!("^", day!(), "(", time!(), ")?$"));

/// A date and time.
static DATE_TIME: Pattern = Pattern::new(concat!("^", day!(), time!(), "$"));

/// The first and the last days of four-digit years. With an offset they are beyond some clocks.
static CALENDAR_EDGE: Pattern = Pattern::new("^(0000-01-01|9999-12-3)");

/// A glob of tags, with `!` in front to exclude them.
pub(super) static TAG_PATTERN: Pattern = Pattern::new("^!?[A-Za-z0-9_.*?-]{1,128}$");

/// A text without white space.
static ANNOTATION_KEY: Pattern = Pattern::new(r"^[^\s\v\x{85}\pZ]+$");

/// The annotation that holds the time at which an attachment was created.
const CREATED: &str = "org.opencontainers.image.created";

/// The annotation of the date where the spec names none.
const DEFAULT_ANNOTATION: &str = "vnd.microsoft.artifact.lifecycle.end-of-life.date";

pub(super) fn rules() -> Vec<Rule> {
    vec![
        Rule::new(
            &["spec.endOfLife"],
            "has(self.date) != has(self.whenSuperseded)",
            |mark| has(mark, "date") != has(mark, "whenSuperseded"),
            "set exactly one of date, whenSuperseded: a date marks the digest in image, whenSuperseded marks the image that the \
             tag leaves",
        )
        .not_in_templates(),
        Rule::new(
            &["spec.endOfLife"],
            format!(
                "!has(self.annotations) || !((has(self.annotation) ? self.annotation : '{DEFAULT_ANNOTATION}') in self.annotations)"
            ),
            |mark| {
                let key = get(mark, "annotation").map_or(Some(DEFAULT_ANNOTATION), Value::as_str);
                get(mark, "annotations")
                    .zip(key)
                    .is_none_or(|(annotations, key)| annotations.get(key).is_none())
            },
            "annotations must not hold the end-of-life annotation itself; affix writes it from date or whenSuperseded",
        )
        .at(".annotations"),
        Rule::matches(
            &["spec.endOfLife.date"],
            &DATE,
            "not a date of the calendar in RFC 3339: write a date and time such as 2025-03-20T01:20:30Z or \
             2025-03-20T01:20:30.5+01:00, with T and Z in upper case, or a date such as 2025-03-20, which begins at 00:00 UTC",
        ),
        Rule::matches(
            &[
                "spec.endOfLife.whenSuperseded.previous[]",
                "spec.targets.digests[]",
            ],
            &DIGEST,
            "not a digest: write sha256: and 64 lower-case hexadecimal digits, or sha512: and 128",
        ),
        Rule::matches(
            &["spec.endOfLife.whenSuperseded.unlessTagged[]"],
            &TAG_PATTERN,
            "not a pattern of tags: write a tag where * stands for any text and ? for one character, such as v1.*, with ! in \
             front to leave tags out",
        ),
        Rule::matches(
            &["spec.endOfLife.annotation"],
            &ANNOTATION_KEY,
            "not an annotation key: it must not hold white space; write one such as vnd.example.end-of-life.date",
        ),
        Rule::new(
            &["spec.endOfLife.annotation"],
            format!("self != '{CREATED}'"),
            |annotation| annotation != CREATED,
            "org.opencontainers.image.created is the time of the mark itself; name another annotation for the date",
        ),
        Rule::new(
            &[
                "spec.endOfLife.annotations",
                "spec.artifact.annotations",
                "spec.signature.cosign.annotations",
                "spec.endOfLife.statement.cosign.annotations",
                "spec.attestation.cosign.annotations",
            ],
            "self.all(k, size(k) > 0 && size(k) <= 256)",
            |annotations| {
                annotations.as_object().is_none_or(|annotations| {
                    annotations
                        .keys()
                        .all(|key| (1..=256).contains(&key.chars().count()))
                })
            },
            "an annotation's key must have 1 to 256 characters",
        ),
        // The time of creation decides which of two equal attachments stays.
        Rule::new(
            &["spec.endOfLife.annotations", "spec.artifact.annotations"],
            format!(
                "!('{CREATED}' in self) || ({} && !{})",
                DATE_TIME.expression_on(&format!("self['{CREATED}']")),
                CALENDAR_EDGE.expression_on(&format!("self['{CREATED}']"))
            ),
            |annotations| {
                annotations
                    .get(CREATED)
                    .and_then(Value::as_str)
                    .is_none_or(|time| DATE_TIME.is_match(time) && !CALENDAR_EDGE.is_match(time))
            },
            "the annotation org.opencontainers.image.created must be a date and time in RFC 3339, such as 2025-03-20T01:20:30Z; without it, \
             affix writes the time of the attachment",
        ),
    ]
}
