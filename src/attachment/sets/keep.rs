//! The versions that `lifecycle.keep` keeps alive.

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;

use crate::api::Keep;
use affix_registry::oci::Tag;

/// Returns the tags that `keep` keeps alive.
///
/// On each level the newest numbers are counted, and a number that is at least as new as the last of them is alive. A number counts only if
/// it has a release, because a prerelease must not put a release out of life. Prereleases count if no version is released.
#[must_use]
pub(super) fn kept<'a>(versions: &BTreeMap<&'a Tag, Version>, keep: Keep) -> BTreeSet<&'a Tag> {
    let has_release = versions.values().any(|version| version.pre.is_empty());
    let counted: Vec<&Version> = versions
        .values()
        .filter(|version| version.pre.is_empty() || !has_release)
        .collect();
    let majors = cutoff(counted.iter().map(|version| version.major), keep.majors);
    let is_kept = |version: &Version| {
        let of_major = counted.iter().filter(|other| other.major == version.major);
        let minors = cutoff(of_major.clone().map(|other| other.minor), keep.minors);
        let of_minor = of_major.filter(|other| other.minor == version.minor);
        let patches = cutoff(of_minor.map(|other| other.patch), keep.patches);
        version.major >= majors && version.minor >= minors && version.patch >= patches
    };
    let kept = versions.iter().filter(|(_, version)| is_kept(version));
    kept.map(|(tag, _)| *tag).collect()
}

/// Returns the lowest of the newest `count` numbers.
fn cutoff(numbers: impl Iterator<Item = u64>, count: Option<i64>) -> u64 {
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()) else {
        return 0;
    };
    let numbers: BTreeSet<u64> = numbers.collect();
    let nth = numbers.into_iter().rev().nth(count.saturating_sub(1));
    nth.unwrap_or(0)
}
