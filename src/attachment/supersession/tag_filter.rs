//! The tags that keep their images in use.

use affix_registry::glob;
use affix_registry::oci::Tag;

/// Tag patterns with the wildcards `*` and `?`, and with `!` in front for excluded tags. The last matching pattern decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagFilter(Vec<(bool, String)>);

impl TagFilter {
    /// Parses the patterns of a spec.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let parse = |pattern: &str| {
            pattern
                .strip_prefix('!')
                .map_or_else(|| (true, pattern.to_owned()), |not| (false, not.to_owned()))
        };
        let mut patterns: Vec<(bool, String)> = patterns.into_iter().map(parse).collect();
        // A list of exclusions alone starts from every tag.
        if patterns.iter().all(|(counts, _)| !counts) && !patterns.is_empty() {
            patterns.insert(0, (true, "*".to_owned()));
        }
        Self(patterns)
    }

    /// Returns true if no tag counts, so that the tags need not be listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if `tag` keeps its image in use. Tags that hold referrers or signatures never count.
    #[must_use]
    pub fn counts(&self, tag: &Tag) -> bool {
        !tag.is_referrers_tag()
            && self
                .0
                .iter()
                .rev()
                .find(|(_, pattern)| glob(pattern, tag.as_str()))
                .is_some_and(|(counts, _)| *counts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics fails, as it should")]
mod tests {
    use super::*;
    use affix_registry::oci::Digest;

    #[test]
    fn the_last_matching_pattern_decides_if_a_tag_counts() {
        let counts = |patterns: &[&str], tag: &str| {
            TagFilter::new(patterns.iter().copied()).counts(&tag.parse().unwrap())
        };
        assert!(counts(&["*"], "v1") && !counts(&[], "v1"));
        assert!(
            counts(&["v1.*", "!v1.9*"], "v1.2")
                && !counts(&["v1.*", "!v1.9*"], "v1.90")
                && !counts(&["v1.*"], "v2.0")
        );
        assert!(counts(&["!nightly-*"], "v1") && !counts(&["!nightly-*"], "nightly-3"));
        assert!(counts(&["v?"], "v1") && !counts(&["v?"], "v10"));
        let referrers = format!("sha256-{}", Digest::sha256(b"a").hex());
        assert!(!counts(&["*"], &referrers) && !counts(&["*"], &format!("{referrers}.sig")));
    }
}
