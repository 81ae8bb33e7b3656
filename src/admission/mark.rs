//! End-of-life marks as readers see them: which types count, and which of several is the one that counts.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil};

use crate::attachment::{Created, EndOfLifeDate};
use affix_registry::oci::{ArtifactType, annotation};

/// A type of marks, and the annotation that holds their date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleType {
    /// The artifact type.
    pub artifact_type: ArtifactType,
    /// The key of the annotation.
    pub annotation: Box<str>,
}

impl FromStr for LifecycleType {
    type Err = String;

    /// Reads `TYPE=ANNOTATION`, or `application/NAME` for the annotation `NAME.end-of-life.date`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, annotation) = text
            .split_once('=')
            .map_or((text, None), |(kind, annotation)| (kind, Some(annotation)));
        let artifact_type: ArtifactType = kind
            .parse()
            .map_err(|error: affix_registry::oci::ArtifactTypeError| error.to_string())?;
        let (_, name) = kind.split_once('/').unwrap_or(("", kind));
        let annotation = match annotation {
            Some("") => {
                return Err(format!(
                    "{text:?} names no annotation after the '=': write TYPE=ANNOTATION"
                ));
            }
            Some(annotation) => annotation.into(),
            None => format!("{name}.end-of-life.date").into(),
        };
        Ok(Self {
            artifact_type,
            annotation,
        })
    }
}

/// A mark on one manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// From when on the image is out of life.
    pub(super) date: EndOfLifeDate,
    /// When the mark was made, where it says so.
    pub(super) created: Option<Created>,
}

impl Mark {
    /// The mark in the annotations of a referrer; `None` where there is none that can be read. One that claims to be made in the
    /// future is none: it would outrank all that follow.
    pub(super) fn read(
        annotations: &BTreeMap<String, String>,
        kind: &LifecycleType,
        now: Timestamp,
    ) -> Option<Self> {
        let date = annotations.get(&*kind.annotation)?.parse().ok()?;
        let created: Option<Created> = annotations
            .get(annotation::CREATED)
            .and_then(|text| text.parse().ok());
        created
            .is_none_or(|created| created.instant() <= now)
            .then_some(Self { date, created })
    }

    /// The one that readers take: the newest; of equally new ones the strictest.
    pub(super) fn newest(marks: impl IntoIterator<Item = Self>) -> Option<Self> {
        marks.into_iter().max_by(Self::rank)
    }

    fn rank(&self, other: &Self) -> Ordering {
        self.created
            .cmp(&other.created)
            .then_with(|| other.date.instant().cmp(&self.date.instant()))
    }

    /// Whether the image is out of life at `instant`.
    pub(super) fn has_ended(&self, instant: SignedDuration) -> bool {
        self.date.instant() <= instant
    }

    /// The day, in UTC, as messages show it.
    pub(super) fn day(&self) -> Day {
        let epoch = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
        Day(epoch
            .checked_add(self.date.instant())
            .map_or(civil::Date::MAX, civil::DateTime::date))
    }
}

/// A day, printed as `2025-03-20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day(civil::Date);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn mark(date: &str, created: Option<&str>) -> Mark {
        Mark {
            date: date.parse().unwrap(),
            created: created.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn a_type_without_annotation_has_the_one_of_its_name() {
        let microsoft: LifecycleType = "application/vnd.microsoft.artifact.lifecycle"
            .parse()
            .unwrap();
        assert_eq!(
            &*microsoft.annotation,
            crate::api::EndOfLife::DEFAULT_ANNOTATION
        );
        let own: LifecycleType = "application/vnd.demo.eol=eol".parse().unwrap();
        assert_eq!(
            (own.artifact_type.as_str(), &*own.annotation),
            ("application/vnd.demo.eol", "eol")
        );
        assert!(
            "lifecycle"
                .parse::<LifecycleType>()
                .unwrap_err()
                .contains("type/subtype")
        );
        assert!(
            "a/b="
                .parse::<LifecycleType>()
                .unwrap_err()
                .contains("names no annotation")
        );
    }

    #[test]
    fn the_newest_mark_counts_and_of_equally_new_ones_the_strictest() {
        let (old, new) = (
            mark("2020-01-01", Some("2024-01-01T00:00:00Z")),
            mark("2030-01-01", Some("2025-01-01T00:00:00Z")),
        );
        assert_eq!(
            Mark::newest([old.clone(), new.clone(), mark("2019-01-01", None)]).unwrap(),
            new
        );
        let twin = mark("2029-01-01", Some("2025-01-01T00:00:00Z"));
        assert_eq!(Mark::newest([new, twin.clone(), old]).unwrap(), twin);
        assert_eq!(Mark::newest([]), None);
    }

    #[test]
    fn a_mark_from_the_future_or_with_a_date_that_is_none_is_no_mark() {
        let kind: LifecycleType = "a/b=eol".parse().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |date: &str, created: &str| {
            let annotations = BTreeMap::from([
                ("eol".to_owned(), date.to_owned()),
                (annotation::CREATED.to_owned(), created.to_owned()),
            ]);
            Mark::read(&annotations, &kind, now)
        };
        assert!(read("2025-03-20", "2026-01-01T00:00:00Z").is_some());
        assert!(read("2025-03-20", "2026-01-01T00:00:01Z").is_none());
        assert!(read("soon", "2025-01-01T00:00:00Z").is_none());
        assert!(Mark::read(&BTreeMap::new(), &kind, now).is_none());
    }

    #[test]
    fn the_day_is_that_of_utc_up_to_the_end_of_the_year_9999() {
        assert_eq!(
            mark("2025-03-20T01:20:30+02:00", None).day().to_string(),
            "2025-03-19"
        );
        assert_eq!(mark("9999-12-31", None).day().to_string(), "9999-12-31");
        assert_eq!(
            mark("9999-12-31T23:59:59-12:00", None).day().to_string(),
            "9999-12-31"
        );
    }
}
