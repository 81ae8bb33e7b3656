//! The lifecycle report of an image: the end-of-life marks of its index and of its platforms. Pure.

use super::mark::Mark;
use affix_registry::oci::{Digest, Platform};

/// The marks of an image and its platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LifecycleReport {
    /// The digest of the index or the single manifest.
    pub(crate) digest: Digest,
    /// The mark on the index or the single manifest.
    pub(crate) mark: Option<Mark>,
    /// The platforms of an index. Empty for a single manifest.
    pub(crate) platforms: Vec<PlatformReport>,
}

/// The mark on the manifest of one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlatformReport {
    pub(crate) platform: Platform,
    pub(crate) digest: Digest,
    pub(crate) mark: Option<Mark>,
}

impl LifecycleReport {
    /// Merges two reports on the same image. The newer mark of each manifest is kept.
    pub(crate) fn merge(mut self, other: &Self) -> Self {
        let newest = |ours: &mut Option<Mark>, theirs: &Option<Mark>| {
            *ours = Mark::newest(ours.take().into_iter().chain(theirs.clone()));
        };
        newest(&mut self.mark, &other.mark);
        for theirs in &other.platforms {
            match self
                .platforms
                .iter_mut()
                .find(|ours| ours.digest == theirs.digest && ours.platform == theirs.platform)
            {
                Some(ours) => newest(&mut ours.mark, &theirs.mark),
                None => self.platforms.push(theirs.clone()),
            }
        }
        self
    }

    /// Returns the digest of the manifest that runs on `platform`, and its mark. Without a platform, or for one that the image
    /// lacks, it is the index or the single manifest.
    pub(crate) fn on_platform(&self, platform: Option<&Platform>) -> (&Digest, Option<&Mark>) {
        let platform = platform.map(Platform::normalised);
        let found = self.platforms.iter().find(|candidate| {
            let candidate = candidate.platform.normalised();
            platform.as_ref().is_some_and(|platform| {
                candidate.os == platform.os && candidate.architecture == platform.architecture
            })
        });
        found.map_or((&self.digest, self.mark.as_ref()), |found| {
            (&found.digest, found.mark.as_ref())
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

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn mark(date: &str) -> Option<Mark> {
        Some(Mark {
            date: date.parse().unwrap(),
            created: None,
        })
    }

    /// Returns the report of an index with two platforms.
    fn report(index: Option<Mark>, amd64: Option<Mark>, arm64: Option<Mark>) -> LifecycleReport {
        let platform_report = |platform: &str, mark| PlatformReport {
            platform: platform.parse().unwrap(),
            digest: digest(platform),
            mark,
        };
        LifecycleReport {
            digest: digest("index"),
            mark: index,
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
            (merged.mark, merged.platforms),
            (theirs.mark, theirs.platforms)
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
