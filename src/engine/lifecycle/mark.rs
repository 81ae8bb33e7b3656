//! End-of-life marks, and the selection of the effective one.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil};

use super::LifecycleType;
use crate::attachment::{Created, EndOfLifeDate};
use affix_registry::oci::annotation;

/// A mark on one manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The end-of-life date.
    pub(crate) date: EndOfLifeDate,
    /// The creation time, if the mark has one. That of a signed statement is its last update.
    pub(crate) created: Option<Created>,
    /// The reason why the mark is enforced or not.
    pub(crate) basis: Basis,
}

/// The reason why a mark is enforced or only warns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Basis {
    /// A trusted key has signed the date, or signatures are not required.
    Enforced,
    /// The date is not signed.
    Unsigned,
    /// No trusted key has signed the date.
    OtherKey,
}

impl Basis {
    /// Returns the text after the date in a message.
    pub(crate) const fn remark(self) -> &'static str {
        match self {
            Self::Enforced => "",
            Self::Unsigned => " by an unsigned mark",
            Self::OtherKey => " by a statement of another key",
        }
    }
}

/// The effective marks of one manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The mark that is enforced.
    pub(crate) enforced: Option<Mark>,
    /// The mark that only warns, with another date than the enforced one.
    pub(crate) advisory: Option<Mark>,
}

impl Marks {
    pub(crate) fn new(enforced: Option<Mark>, advisory: Option<Mark>) -> Self {
        let is_same = |mark: &Mark| {
            let other = enforced.as_ref().map(|other| other.date.instant());
            other == Some(mark.date.instant())
        };
        Self {
            advisory: advisory.filter(|mark| !is_same(mark)),
            enforced,
        }
    }

    /// Returns the newer marks of two.
    pub(crate) fn merge(self, other: &Self) -> Self {
        let newest = |ours: Option<Mark>, theirs: &Option<Mark>| {
            Mark::newest(ours.into_iter().chain(theirs.clone()))
        };
        Self::new(
            newest(self.enforced, &other.enforced),
            newest(self.advisory, &other.advisory),
        )
    }

    /// Returns the marks as unsigned ones.
    pub(crate) fn unsigned(self) -> Self {
        let unsigned = |mark: Mark| Mark {
            basis: Basis::Unsigned,
            ..mark
        };
        Self::new(None, self.enforced.map(unsigned))
    }

    /// Returns the mark that readers show: the enforced one, or otherwise the advisory one.
    pub(crate) const fn effective(&self) -> Option<&Mark> {
        match &self.enforced {
            Some(mark) => Some(mark),
            None => self.advisory.as_ref(),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.enforced.is_none() && self.advisory.is_none()
    }
}

impl From<Option<Mark>> for Marks {
    fn from(enforced: Option<Mark>) -> Self {
        Self::new(enforced, None)
    }
}

impl Mark {
    /// Reads a mark from the annotations of a referrer. Returns `None` for an invalid mark. A mark with
    /// a creation time in the future is invalid, because it would outrank all later ones.
    pub(crate) fn read(
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
            .then_some(Self {
                date,
                created,
                basis: Basis::Enforced,
            })
    }

    /// Returns the effective mark: the newest, and among equally new ones the earliest date.
    pub(crate) fn newest(marks: impl IntoIterator<Item = Self>) -> Option<Self> {
        marks.into_iter().max_by(Self::rank)
    }

    fn rank(&self, other: &Self) -> Ordering {
        self.created
            .cmp(&other.created)
            .then_with(|| other.date.instant().cmp(&self.date.instant()))
    }

    /// Returns whether the date has passed at `instant`.
    pub(crate) fn has_ended(&self, instant: SignedDuration) -> bool {
        self.date.instant() <= instant
    }

    /// Returns the day in UTC, for messages.
    pub(crate) fn day(&self) -> Day {
        Day::of(self.date.instant())
    }
}

/// A day, displayed as `2025-03-20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day(civil::Date);

impl Day {
    /// Returns the day in UTC of an instant since the epoch.
    pub(crate) fn of(instant: SignedDuration) -> Self {
        let epoch = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
        Self(
            epoch
                .checked_add(instant)
                .map_or(civil::Date::MAX, civil::DateTime::date),
        )
    }
}

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
            basis: Basis::Enforced,
        }
    }

    #[test]
    fn the_newest_mark_wins_and_among_equals_the_earliest_date() {
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
    fn a_mark_from_the_future_or_with_an_invalid_date_is_ignored() {
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
    fn the_day_is_in_utc_up_to_the_end_of_the_year_9999() {
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
