//! The lifecycle report of an image: the end-of-life marks of its index and of its platforms. Pure.

use super::mark::{Mark, Marks};
use affix_registry::oci::{Digest, Platform};

/// The marks of an image and its platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LifecycleReport {
    /// The digest of the index or the single manifest.
    pub(crate) digest: Digest,
    /// The marks on the index or the single manifest.
    pub(crate) marks: Marks,
    /// The platforms of an index. Empty for a single manifest.
    pub(crate) platforms: Vec<PlatformReport>,
}

/// The marks on the manifest of one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlatformReport {
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
    pub(crate) marks: Marks,
}

impl LifecycleReport {
    /// Merges two reports on the same image. The newer marks of each manifest are kept.
    pub(crate) fn merge(mut self, other: &Self) -> Self {
        self.marks = self.marks.merge(&other.marks);
        for theirs in &other.platforms {
            match self
                .platforms
                .iter_mut()
                .find(|ours| ours.digest == theirs.digest && ours.platform == theirs.platform)
            {
                Some(ours) => ours.marks = std::mem::take(&mut ours.marks).merge(&theirs.marks),
                None => self.platforms.push(theirs.clone()),
            }
        }
        self
    }

    /// Returns the report with unsigned marks, which are not enforced.
    pub(crate) fn unsigned(mut self) -> Self {
        self.marks = self.marks.unsigned();
        for platform in &mut self.platforms {
            platform.marks = std::mem::take(&mut platform.marks).unsigned();
        }
        self
    }

    /// Returns the digest of the manifest that runs on `platform`, and its effective mark. Without a platform, or for one that the image
    /// lacks, it is the index or the single manifest.
    pub(crate) fn on_platform(&self, platform: Option<&Platform>) -> (&Digest, Option<&Mark>) {
        let platform = platform.map(Platform::normalised);
        let found = self.platforms.iter().find(|candidate| {
            let candidate = candidate.platform.normalised();
            platform.as_ref().is_some_and(|platform| {
                candidate.os == platform.os && candidate.architecture == platform.architecture
            })
        });
        let (digest, marks) = found.map_or((&self.digest, &self.marks), |found| {
            (&found.digest, &found.marks)
        });
        (digest, marks.effective())
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::engine::lifecycle::Basis;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn mark(date: &str) -> Option<Mark> {
        Some(Mark {
            date: date.parse().unwrap(),
            created: None,
            basis: Basis::Enforced,
        })
    }

    /// Returns the report of an index with two platforms.
    fn report(index: Option<Mark>, amd64: Option<Mark>, arm64: Option<Mark>) -> LifecycleReport {
        let platform_report = |platform: &str, mark| PlatformReport {
            platform: platform.parse().unwrap(),
            digest: digest(platform),
            marks: Marks::from(mark),
        };
        LifecycleReport {
            digest: digest("index"),
            marks: index.into(),
            platforms: vec![
                platform_report("linux/amd64", amd64),
                platform_report("linux/arm64", arm64),
            ],
        }
    }

    #[test]
    fn two_reports_are_merged_by_the_newer_mark() {
        let created = |date: &str, created: &str| {
            Some(Mark {
                date: date.parse().unwrap(),
                created: Some(created.parse().unwrap()),
                basis: Basis::Enforced,
            })
        };
        let ours = report(created("2025-01-01", "2024-01-01T00:00:00Z"), None, None);
        let theirs = report(
            created("2030-01-01", "2025-01-01T00:00:00Z"),
            mark("2025-01-01"),
            None,
        );
        let merged = ours.merge(&theirs);
        assert_eq!(
            (merged.marks, merged.platforms),
            (theirs.marks, theirs.platforms)
        );
    }

    #[test]
    fn the_mark_of_the_platform_applies_to_a_node_and_that_of_the_index_to_an_unknown_one() {
        let scenario = report(mark("2025-03-20"), mark("2025-03-21"), None);
        let on = |platform: Option<&str>| {
            let platform = platform.map(|text| text.parse().unwrap());
            let (digest, mark) = scenario.on_platform(platform.as_ref());
            (digest.clone(), mark.map(|mark| mark.day().to_string()))
        };
        let day = |day: &str| Some(day.to_owned());
        assert_eq!(on(None), (digest("index"), day("2025-03-20")));
        assert_eq!(
            on(Some("linux/amd64")),
            (digest("linux/amd64"), day("2025-03-21"))
        );
        assert_eq!(on(Some("linux/arm64")), (digest("linux/arm64"), None));
        assert_eq!(
            on(Some("linux/s390x")),
            (digest("index"), day("2025-03-20"))
        );
    }
}
