//! Patterns that select platforms: `os[/arch[/variant]][:os.version]`. A part may be `*`.
//!
//! A pattern selects every platform that matches, not only the first.

use std::fmt;
use std::str::FromStr;

use super::digest::cut;
use super::platform::{Platform, normalise_architecture, normalise_os};

/// A parsed pattern. An omitted part and `*` match anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformPattern {
    text: Box<str>,
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    os_version: Option<String>,
}

impl PlatformPattern {
    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if the pattern selects `platform`. Only `*` selects an entry without a
    /// platform.
    #[must_use]
    pub fn matches(&self, platform: Option<&Platform>) -> bool {
        let platform = platform.map(Platform::normalised).unwrap_or_default();
        let same = |pattern: &Option<String>, value: &str| {
            pattern.as_deref().is_none_or(|named| named == value)
        };
        same(&self.os, &platform.os)
            && same(&self.architecture, &platform.architecture)
            && same(&self.variant, &platform.variant)
            && self
                .os_version
                .as_deref()
                .is_none_or(|named| is_version_prefix(named, &platform.os_version))
    }

    /// Returns true if some platform could match both patterns.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let agree = |ours: &Option<String>, theirs: &Option<String>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        agree(&self.os, &other.os)
            && agree(&self.architecture, &other.architecture)
            && agree(&self.variant, &other.variant)
            && match (&self.os_version, &other.os_version) {
                (Some(ours), Some(theirs)) => {
                    is_version_prefix(ours, theirs) || is_version_prefix(theirs, ours)
                }
                _ => true,
            }
    }
}

/// Returns true if `named` equals `version` or its first fields: `10.0.20348` is a prefix of
/// `10.0.20348.1234`, `10.0.2034` is not.
fn is_version_prefix(named: &str, version: &str) -> bool {
    version
        .strip_prefix(named)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl fmt::Display for PlatformPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The error for text that is not a platform pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "platform {text:?} is malformed: {why}; write os[/arch[/variant]][:os.version], such as linux/arm/v7 or windows/amd64:10.0.20348"
)]
pub struct PlatformPatternError {
    text: String,
    why: &'static str,
}

impl FromStr for PlatformPattern {
    type Err = PlatformPatternError;

    fn from_str(text: &str) -> Result<Self, PlatformPatternError> {
        let refuse = |why| {
            Err(PlatformPatternError {
                text: cut(text),
                why,
            })
        };
        let (path, os_version) = match text.split_once(':') {
            Some((path, version)) => (path, Some(version)),
            None => (text, None),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os] => (*os, None, None),
            [os, architecture] => (*os, Some(*architecture), None),
            [os, architecture, variant] => (*os, Some(*architecture), Some(*variant)),
            _ => return refuse("it has more than three parts"),
        };
        let well_formed = |part: &str, extra: &[u8]| {
            part == "*"
                || (!part.is_empty()
                    && part.len() <= 64
                    && part.bytes().all(|b| {
                        b.is_ascii_alphanumeric() || b"_-.".contains(&b) || extra.contains(&b)
                    }))
        };
        if ![Some(os), architecture, variant]
            .into_iter()
            .flatten()
            .all(|part| well_formed(part, b""))
        {
            return refuse(
                "a part is empty or has a character other than letters, digits, '_', '-' and '.'",
            );
        }
        if os_version.is_some_and(|version| !well_formed(version, b"+~") || version.ends_with('.'))
        {
            return refuse("the os.version is empty or has an invalid character");
        }
        let named = |part: Option<&str>| part.filter(|part| *part != "*").map(str::to_owned);
        let (architecture, variant) = match named(architecture) {
            Some(architecture) => {
                let (architecture, variant) =
                    normalise_architecture(&architecture, &named(variant).unwrap_or_default());
                (
                    Some(architecture),
                    Some(variant).filter(|variant| !variant.is_empty()),
                )
            }
            None => (
                None,
                named(variant).map(|variant| variant.to_ascii_lowercase()),
            ),
        };
        Ok(Self {
            text: text.into(),
            os: named(Some(os)).map(|os| normalise_os(&os)),
            architecture,
            variant,
            os_version: named(os_version),
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

    fn platform(text: &str) -> Platform {
        let (path, os_version) = text.split_once(':').unwrap_or((text, ""));
        let mut parts = path.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Platform {
            os: next(),
            architecture: next(),
            variant: next(),
            os_version: os_version.to_owned(),
        }
    }

    fn matches(pattern: &str, entry: &str) -> bool {
        pattern
            .parse::<PlatformPattern>()
            .unwrap()
            .matches(Some(&platform(entry)))
    }

    #[test]
    fn arm64_with_and_without_its_variant_are_one() {
        for pattern in [
            "linux/arm64",
            "linux/arm64/v8",
            "linux/aarch64",
            "linux/aarch64/8",
        ] {
            assert!(
                matches(pattern, "linux/arm64") && matches(pattern, "linux/arm64/v8"),
                "{pattern}"
            );
        }
        assert!(
            !matches("linux/arm64/v8", "linux/arm64/v9")
                && matches("linux/arm64", "linux/arm64/v9")
        );
    }

    #[test]
    fn arm_without_variant_is_every_arm_and_v7_also_the_entry_that_names_none() {
        assert!(
            matches("linux/arm", "linux/arm/v6")
                && matches("linux/arm", "linux/arm/v7")
                && matches("linux/arm", "linux/arm")
        );
        assert!(
            matches("linux/arm/v7", "linux/arm/v7")
                && matches("linux/arm/v7", "linux/arm")
                && !matches("linux/arm/v7", "linux/arm/v6")
        );
        assert!(
            matches("linux/armhf", "linux/arm")
                && !matches("linux/armel", "linux/arm")
                && matches("linux/armel", "linux/arm/v6")
        );
    }

    #[test]
    fn amd64_is_v1_and_knows_its_aliases() {
        assert!(
            matches("linux/amd64/v1", "linux/amd64")
                && matches("linux/x86_64", "linux/amd64/v3")
                && !matches("linux/amd64/v1", "linux/amd64/v3")
        );
        assert!(matches("linux/i386", "linux/386") && matches("macos/arm64", "darwin/arm64"));
    }

    #[test]
    fn a_windows_version_matches_whole_or_by_whole_fields() {
        assert!(matches(
            "windows/amd64:10.0.20348",
            "windows/amd64:10.0.20348.1234"
        ));
        assert!(matches(
            "windows/amd64:10.0.20348.1234",
            "windows/amd64:10.0.20348.1234"
        ));
        assert!(matches("windows:10", "windows/amd64:10.0.20348.1234"));
        assert!(!matches(
            "windows/amd64:10.0.2034",
            "windows/amd64:10.0.20348.1234"
        ));
        assert!(!matches(
            "windows/amd64:10.0.20348.1234",
            "windows/amd64:10.0.20348"
        ));
        assert!(!matches("windows/amd64:10.0.20348", "windows/amd64"));
    }

    #[test]
    fn two_patterns_overlap_where_a_platform_could_be_in_both() {
        let overlap = |a: &str, b: &str| {
            a.parse::<PlatformPattern>()
                .unwrap()
                .overlaps(&b.parse().unwrap())
        };
        assert!(
            overlap("linux", "*/amd64")
                && overlap("linux/arm", "linux/arm/v7")
                && overlap("*", "windows")
        );
        assert!(overlap("windows/amd64:10.0.20348", "windows:10"));
        assert!(
            !overlap("linux/amd64", "linux/arm64")
                && !overlap("linux", "windows")
                && !overlap("windows:10", "windows:11")
        );
    }

    #[test]
    fn a_star_and_an_omitted_part_match_anything() {
        assert!(
            matches("linux", "linux/s390x")
                && matches("*/arm64", "windows/arm64")
                && !matches("*/arm64", "linux/amd64")
        );
        assert!(matches("linux/*/v6", "linux/arm/v6") && !matches("linux/*/v6", "linux/arm"));
        let star: PlatformPattern = "*".parse().unwrap();
        assert!(star.matches(None) && star.matches(Some(&platform("plan9/mips"))));
        assert!(!"linux".parse::<PlatformPattern>().unwrap().matches(None));
    }

    #[test]
    fn an_invalid_platform_pattern_is_refused_with_an_example() {
        for text in [
            "",
            "/",
            "linux/",
            "linux//v7",
            "a/b/c/d",
            "linux/arm 64",
            "linux/amd64:",
            "linux:1:2",
            "windows/amd64:10.",
        ] {
            let error = text.parse::<PlatformPattern>().unwrap_err().to_string();
            assert!(error.contains("such as linux/arm/v7"), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused_and_never_panics(text in "\\PC{0,40}", os in "[a-z]{0,8}", architecture in "[a-z0-9]{0,8}") {
            if let Ok(pattern) = text.parse::<PlatformPattern>() {
                let _ = pattern.matches(Some(&Platform { os, architecture, ..Platform::default() }));
                assert_eq!(pattern.as_str(), text);
            }
        }
    }
}
