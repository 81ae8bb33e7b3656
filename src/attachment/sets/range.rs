//! Semantic versions of tags, and ranges of versions with the meaning that `Masterminds/semver` gives them, as in Flux and Helm.
//!
//! The crate `semver` orders versions in the same way. Its ranges differ: there, a blank does not separate comparisons, `||` and ranges with
//! a hyphen are unknown, and a prerelease matches by other rules. `tests/vectors/semver` has the answers of the Go library.

use std::str::FromStr;

use semver::{BuildMetadata, Prerelease, Version};

use affix_registry::oci::Tag;

/// Returns the version of a tag: three numbers, with or without a leading `v`.
#[must_use]
pub fn version_of(tag: &Tag) -> Option<Version> {
    let text = tag.as_str();
    text.strip_prefix('v').unwrap_or(text).parse().ok()
}

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRange(Vec<Vec<Comparison>>);

/// The text is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a range of semantic versions: write comparisons such as >=1.0.0, ~1.8.0, ^2.1.0 or 1.8.x, with a blank or a comma between \
     those that must all hold and || between alternatives"
)]
pub struct VersionRangeError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    operator: Operator,
    version: Version,
    wildcard: Wildcard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `=`, or no operator. With a wildcard it is a tilde.
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// The first part of a version that is absent or a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wildcard {
    None,
    Major,
    Minor,
    Patch,
}

impl VersionRange {
    /// Returns whether the range holds a version. A prerelease is in a range only if one of the comparisons has a prerelease too.
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        self.0.iter().any(|all| {
            let includes_prereleases = all
                .iter()
                .any(|comparison| !comparison.version.pre.is_empty());
            (version.pre.is_empty() || includes_prereleases)
                && all.iter().all(|comparison| comparison.holds(version))
        })
    }
}

impl FromStr for VersionRange {
    type Err = VersionRangeError;

    fn from_str(text: &str) -> Result<Self, VersionRangeError> {
        let alternatives: Option<Vec<_>> = text.split("||").map(all_of).collect();
        alternatives
            .map(Self)
            .ok_or_else(|| VersionRangeError(text.chars().take(128).collect()))
    }
}

/// Parses comparisons that must all hold.
fn all_of(text: &str) -> Option<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    let mut rest = text.trim_matches(' ');
    loop {
        let start = rest.trim_start_matches(['=', '!', '<', '>', '~', '^']);
        let operator = Operator::parse(rest.get(..rest.len() - start.len())?)?;
        let (version, wildcard, after) = version_at(start.trim_start_matches(' '))?;
        let hyphen = after.trim_start_matches(' ').strip_prefix("- ");
        match hyphen.filter(|_| after.starts_with(' ') && start.len() == rest.len()) {
            Some(end) => {
                let (last, last_wildcard, after) = version_at(end.trim_start_matches(' '))?;
                comparisons.push(Comparison::new(Operator::GreaterOrEqual, version, wildcard));
                comparisons.push(Comparison::new(Operator::LessOrEqual, last, last_wildcard));
                rest = after;
            }
            None => {
                comparisons.push(Comparison::new(operator, version, wildcard));
                rest = after;
            }
        }
        if rest.is_empty() {
            return Some(comparisons);
        }
        let next = rest.trim_start_matches(' ');
        let next = next.strip_prefix(',').unwrap_or(next);
        let next = next.trim_start_matches(' ');
        if next.len() == rest.len() || next.is_empty() {
            return None;
        }
        rest = next;
    }
}

/// Parses the version at the start of a text. Returns it, its wildcard and the text after it.
fn version_at(text: &str) -> Option<(Version, Wildcard, &str)> {
    let end = text.find([' ', ',']).unwrap_or(text.len());
    let (token, after) = text.split_at(end);
    let token = token.strip_prefix('v').unwrap_or(token);
    let (token, build) = token.split_once('+').unwrap_or((token, ""));
    let (core, pre) = token.split_once('-').unwrap_or((token, ""));
    if (token.len() > core.len() && pre.is_empty())
        || !build
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    {
        return None;
    }
    let mut numbers = [0; 3];
    let mut wildcards = [Wildcard::Major, Wildcard::Minor, Wildcard::Patch].into_iter();
    let mut wildcard = Wildcard::None;
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() > numbers.len() {
        return None;
    }
    for (nth, number) in numbers.iter_mut().enumerate() {
        let level = wildcards.next()?;
        match parts.get(nth) {
            Some(part) if !matches!(*part, "x" | "X" | "*") => {
                let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                let parsed = part.parse().ok().filter(|_| is_number)?;
                if wildcard == Wildcard::None {
                    *number = parsed;
                }
            }
            Some(_) | None if wildcard == Wildcard::None => wildcard = level,
            Some(_) | None => {}
        }
    }
    let [major, minor, patch] = numbers;
    let version = Version {
        major,
        minor,
        patch,
        pre: Prerelease::new(pre).ok()?,
        build: BuildMetadata::EMPTY,
    };
    Some((version, wildcard, after))
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "=" => Self::Equal,
            "!=" => Self::NotEqual,
            ">" => Self::Greater,
            "<" => Self::Less,
            ">=" | "=>" => Self::GreaterOrEqual,
            "<=" | "=<" => Self::LessOrEqual,
            "~" | "~>" => Self::Tilde,
            "^" => Self::Caret,
            _ => return None,
        })
    }
}

impl Comparison {
    const fn new(operator: Operator, version: Version, wildcard: Wildcard) -> Self {
        Self {
            operator,
            version,
            wildcard,
        }
    }

    fn holds(&self, version: &Version) -> bool {
        let own = &self.version;
        let order = version.cmp_precedence(own);
        match self.operator {
            Operator::Equal if self.wildcard == Wildcard::None => order.is_eq(),
            Operator::Equal | Operator::Tilde => self.tilde_holds(version),
            Operator::NotEqual => self.differs(version),
            Operator::Greater => match self.wildcard {
                Wildcard::None | Wildcard::Major => order.is_gt(),
                Wildcard::Minor => version.major > own.major,
                Wildcard::Patch => (version.major, version.minor) > (own.major, own.minor),
            },
            Operator::Less => order.is_lt(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::LessOrEqual => match self.wildcard {
                Wildcard::None => order.is_le(),
                Wildcard::Minor => version.major <= own.major,
                Wildcard::Major | Wildcard::Patch => {
                    (version.major, version.minor) <= (own.major, own.minor)
                }
            },
            Operator::Caret => order.is_ge() && self.caret_holds(version),
        }
    }

    fn tilde_holds(&self, version: &Version) -> bool {
        let own = &self.version;
        if version.cmp_precedence(own).is_lt() {
            return false;
        }
        let any_number = matches!(self.wildcard, Wildcard::None | Wildcard::Major);
        if any_number && (own.major, own.minor, own.patch) == (0, 0, 0) {
            return true;
        }
        version.major == own.major
            && (version.minor == own.minor || self.wildcard == Wildcard::Minor)
    }

    fn differs(&self, version: &Version) -> bool {
        let own = &self.version;
        match self.wildcard {
            Wildcard::None | Wildcard::Major => version.cmp_precedence(own).is_ne(),
            Wildcard::Minor => version.major != own.major,
            Wildcard::Patch => {
                (version.major, version.minor) != (own.major, own.minor) || version.pre != own.pre
            }
        }
    }

    fn caret_holds(&self, version: &Version) -> bool {
        let own = &self.version;
        if own.major > 0 || self.wildcard == Wildcard::Minor {
            return version.major == own.major;
        }
        if version.major > 0 {
            return false;
        }
        if own.minor > 0 || self.wildcard == Wildcard::Patch {
            return version.minor == own.minor;
        }
        version.minor == 0 && version.patch == own.patch
    }
}
