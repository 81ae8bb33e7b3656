//! A mark of somebody else that claims to be made in the future: it counts for nothing until then, and then it does.

use std::fmt;

use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::Digest;

use super::time::Created;

/// What stands before the time, and after it.
const CLAIM: (&str, &str) = (" claims to be made in the future (", ")");

/// Such a mark, as status tells of it: what is told is also what a later pass knows of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FutureMark {
    /// Its time.
    pub created: Created,
    /// Its manifest.
    pub digest: Digest,
}

impl FutureMark {
    /// The earliest time that a text tells of.
    #[must_use]
    pub fn first_in(text: &str) -> Option<Timestamp> {
        let told = text
            .split(CLAIM.0)
            .skip(1)
            .filter_map(|rest| rest.split_once(CLAIM.1)?.0.parse::<Created>().ok());
        told.min().map(Created::instant)
    }
}

impl fmt::Display for FutureMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the mark {}{}{}{}; it is ignored until then",
            self.digest, CLAIM.0, self.created, CLAIM.1
        )
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
    fn what_is_told_of_several_marks_tells_when_to_look_again() {
        let mark = |created: &str| {
            FutureMark {
                created: created.parse().unwrap(),
                digest: Digest::sha256(created.as_bytes()),
            }
            .to_string()
        };
        let times = [
            "2099-01-01T00:00:00Z",
            "2026-11-23T12:00:05Z",
            "2030-01-01T00:00:00Z",
        ];
        let told = format!("r.example.com/app@sha256:1; {}", times.map(mark).join("; "));
        assert_eq!(
            FutureMark::first_in(&told),
            Some("2026-11-23T12:00:05Z".parse().unwrap()),
            "{told}"
        );
        assert_eq!(
            FutureMark::first_in("the tag v1 names another digest by now (2026-11-23T12:00:05Z)"),
            None
        );
        assert_eq!(
            FutureMark::first_in(
                " claims to be made in the future (soon); claims to be made in the future ("
            ),
            None
        );
    }
}
