//! OpenEoX Core documents (OASIS, eox-core-v1.0, CSD01 of 2026-07-13): the predicate of a signed statement about the end of
//! life. The document has no fields beside those of the schema, which allows no others.

use serde::Deserialize;
use serde_json::{Value, json};

use super::time::{Created, EndOfLifeDate};

/// The predicate type of a signed statement with an OpenEoX Core document.
pub const LIFECYCLE_PREDICATE: &str = "https://docs.oasis-open.org/openeox/eox-core/v1.0";
/// The only valid `$schema` of a document.
const SCHEMA: &str = "https://docs.oasis-open.org/openeox/eox-core/v1.0/schema/core.json";
/// The text in place of a date that is not known yet.
const TO_BE_ANNOUNCED: &str = "tba";

/// An OpenEoX Core document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleDocument {
    /// The end of life. `None`: it is to be announced.
    pub end_of_life: Option<EndOfLifeDate>,
    /// The time of the last change. Among several documents, the latest counts.
    pub last_updated: Created,
}

#[derive(Deserialize)]
struct Dates {
    end_of_life: String,
    last_updated: String,
}

impl LifecycleDocument {
    /// Returns the document for `date` as JSON. A full date begins at 00:00 UTC. The end of security support is the end of
    /// life, since a mark knows no other date.
    #[must_use]
    pub fn of(date: &EndOfLifeDate, last_updated: Created) -> Value {
        let date = date.date_time();
        json!({
            "$schema": SCHEMA,
            "end_of_life": date,
            "end_of_security_support": date,
            "last_updated": last_updated.to_string(),
        })
    }

    /// Parses a document, or returns `None` if its dates are malformed. Fields that do not matter here are not checked.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let dates: Dates = serde_json::from_slice(json).ok()?;
        let end_of_life = match dates.end_of_life.as_str() {
            TO_BE_ANNOUNCED => None,
            // RFC 3339 allows lower case.
            date => Some(date.to_ascii_uppercase().parse().ok()?),
        };
        Some(Self {
            end_of_life,
            last_updated: dates.last_updated.parse().ok()?,
        })
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
    fn a_document_has_exactly_the_fields_of_the_schema_and_reads_back() {
        let updated: Created = "2026-11-29T03:04:05Z".parse().unwrap();
        for (date, written) in [
            ("2025-03-20", "2025-03-20T00:00:00Z"),
            ("9999-12-31", "9999-12-31T00:00:00Z"),
            ("2025-03-20T01:20:30.5+02:00", "2025-03-20T01:20:30.5+02:00"),
        ] {
            let date: EndOfLifeDate = date.parse().unwrap();
            let document = LifecycleDocument::of(&date, updated);
            assert_eq!(
                document,
                json!({
                    "$schema": "https://docs.oasis-open.org/openeox/eox-core/v1.0/schema/core.json",
                    "end_of_life": written, "end_of_security_support": written,
                    "last_updated": "2026-11-29T03:04:05Z"
                })
            );
            let read = LifecycleDocument::parse(document.to_string().as_bytes()).unwrap();
            assert_eq!(read.end_of_life.unwrap().instant(), date.instant());
            assert_eq!(read.last_updated, updated);
        }
    }

    #[test]
    fn a_date_to_be_announced_is_none_and_a_malformed_document_is_refused() {
        let document = |end: Value, updated: Value| {
            let document = json!({"end_of_life": end, "last_updated": updated}).to_string();
            LifecycleDocument::parse(document.as_bytes())
        };
        let updated = json!("2026-11-29T03:04:05Z");
        let announced = document(json!("tba"), updated.clone()).unwrap();
        assert_eq!(announced.end_of_life, None);
        for (end, updated) in [
            (json!("soon"), updated.clone()),
            (json!(null), updated.clone()),
            (json!(["2025-03-20"]), updated),
            (json!("2025-03-20"), json!("tba")),
            (json!("2025-03-20"), json!(0)),
        ] {
            assert_eq!(
                document(end.clone(), updated.clone()),
                None,
                "{end} {updated}"
            );
        }
        assert_eq!(LifecycleDocument::parse(b"[]"), None);
    }
}
