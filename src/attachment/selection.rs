//! The selection of targets among the entries of an image.

use std::collections::BTreeSet;

use crate::api::{Missing, Reason, Scope};
use affix_registry::oci::{Digest, PlatformPattern};

use super::image::{Entry, EntryKind, Image};
use super::problem::Problem;

/// The parsed `spec.targets`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// The index, the platforms, or both.
    pub scope: Scope,
    /// The selected platforms, or `None` for every platform.
    pub platforms: Option<Vec<PlatformPattern>>,
    /// The excluded platforms.
    pub exclude: Vec<PlatformPattern>,
    /// The selected manifests, or `None` for every manifest.
    pub digests: Option<Vec<Digest>>,
    /// True if the tagged indexes that hold the image are targets too. The caller adds them to the image.
    pub parents: bool,
    /// The handling of a pattern or digest without a match.
    pub missing: Missing,
}

/// An entry and the decision about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedEntry<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// The reason to skip the entry, or `None` if it is a target.
    pub skip: Option<Reason>,
}

/// An error of a selection on an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No entry matches patterns of `platforms`.
    #[error(
        "targets.platforms: no entry of the image matches {}; it has {}. Change the list, or set targets.missing: Ignore",
        list(.patterns.iter().map(|pattern| format!("{:?}", pattern.as_str()))), list(.has.iter().cloned())
    )]
    NoMatchingPlatform {
        /// The patterns of the spec.
        patterns: Vec<PlatformPattern>,
        /// The platforms of the image.
        has: Vec<String>,
    },
    /// The image does not hold digests of `digests`.
    #[error(
        "targets.digests: the image does not hold {}. Change the list, or set targets.missing: Ignore",
        list(.digests.iter().map(ToString::to_string))
    )]
    NoSuchDigest {
        /// The digests of the spec.
        digests: Vec<Digest>,
    },
    /// No known entry matches items of `platforms` or `digests`, and a nested index could not be fetched.
    #[error(
        "targets.{field}: {} may be in the nested index {index}, which could not be read: {problem}",
        list(.missing.iter().cloned())
    )]
    Unread {
        /// The field of the spec.
        field: &'static str,
        /// The items of the spec, as text.
        missing: Vec<String>,
        /// The nested index.
        index: Digest,
        /// The error of its fetch.
        problem: Problem,
    },
    /// The scope is `Index` and the image has no index.
    #[error(
        "targets.scope: Index selects nothing: the image is a single manifest without an index. Remove the scope, or set it to Platforms"
    )]
    NoIndex,
    /// The selection is empty.
    #[error("targets: the selection leaves nothing of the image to attach to; it has {}. Change targets, or set targets.missing: Ignore", list(.has.iter().cloned()))]
    NothingLeft {
        /// The platforms of the image.
        has: Vec<String>,
    },
}

impl SelectionError {
    /// Returns the reason. The error of a fetch is transient, all others need a change of the spec.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Unread { problem, .. } => problem.reason,
            Self::NoMatchingPlatform { .. }
            | Self::NoSuchDigest { .. }
            | Self::NoIndex
            | Self::NothingLeft { .. } => Reason::NoMatchingPlatform,
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    const MAX_ITEMS: usize = 12;
    let items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(MAX_ITEMS);
    let mut text = items
        .into_iter()
        .take(MAX_ITEMS)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    if text.is_empty() {
        "no platform".to_owned()
    } else {
        text
    }
}

impl Selection {
    /// Decides on every entry of `image` in order, without checks of the whole selection.
    #[must_use]
    pub fn judge<'a>(&self, image: &'a Image) -> Vec<SelectedEntry<'a>> {
        let selected: BTreeSet<&Digest> = image
            .entries
            .iter()
            .filter(|entry| match &entry.kind {
                EntryKind::Platform(_) => self.unselected(entry).is_none(),
                EntryKind::Index => self.names(&entry.subject.digest),
                _ => false,
            })
            .map(|entry| &entry.subject.digest)
            .collect();
        let above = image.indexes_above(&selected);
        image
            .entries
            .iter()
            .map(|entry| SelectedEntry {
                entry,
                skip: self.skip(entry, above.contains(&entry.subject.digest)),
            })
            .collect()
    }

    /// Decides on every entry of `image` and checks the whole selection. The second part of the result are warnings.
    ///
    /// # Errors
    /// Fails if a selected platform or digest is missing or if no target is left, unless `missing: Ignore`.
    pub fn choose<'a>(
        &self,
        image: &'a Image,
    ) -> Result<(Vec<SelectedEntry<'a>>, Vec<String>), SelectionError> {
        let is_strict = self.missing == Missing::Fail;
        if is_strict && self.scope == Scope::Index && !image.is_index {
            return Err(SelectionError::NoIndex);
        }
        let mut warnings = self.missing_platforms(image)?;
        warnings.extend(self.missing_digests(image)?);
        warnings.extend(
            self.exclude
                .iter()
                .filter(|pattern| !matches_any(pattern, image))
                .map(|pattern| {
                    format!(
                        "the excluded platform {:?} matches no entry",
                        pattern.as_str()
                    )
                }),
        );
        let chosen = self.judge(image);
        if chosen.iter().all(|chosen| chosen.skip.is_some()) {
            let has = platforms_of(image);
            if is_strict {
                return Err(SelectionError::NothingLeft { has });
            }
            warnings.push(format!(
                "targets selects nothing of the image, so nothing is attached; it has {}",
                list(has.into_iter())
            ));
        }
        Ok((chosen, warnings))
    }

    /// Returns a warning for each pattern of `platforms` without a match.
    fn missing_platforms(&self, image: &Image) -> Result<Vec<String>, SelectionError> {
        let unmatched: Vec<PlatformPattern> = self
            .platforms
            .iter()
            .flatten()
            .filter(|pattern| !matches_any(pattern, image))
            .cloned()
            .collect();
        if self.missing == Missing::Fail && !unmatched.is_empty() {
            let texts: Vec<String> = unmatched
                .iter()
                .map(|pattern| format!("{:?}", pattern.as_str()))
                .collect();
            return Err(unread(image, "platforms", &texts).unwrap_or_else(|| {
                SelectionError::NoMatchingPlatform {
                    patterns: unmatched,
                    has: platforms_of(image),
                }
            }));
        }
        let warning = |pattern: &PlatformPattern| {
            format!("no entry matches the platform {:?}", pattern.as_str())
        };
        Ok(unmatched.iter().map(warning).collect())
    }

    /// Returns a warning for each of `digests` that the image does not hold.
    fn missing_digests(&self, image: &Image) -> Result<Vec<String>, SelectionError> {
        let is_held = |digest: &Digest| {
            let mut entries = image.entries.iter();
            entries.any(|entry| entry.subject.digest == *digest)
        };
        let missing: Vec<Digest> = self
            .digests
            .iter()
            .flatten()
            .filter(|digest| !is_held(digest))
            .cloned()
            .collect();
        if self.missing == Missing::Fail && !missing.is_empty() {
            let texts: Vec<String> = missing.iter().map(ToString::to_string).collect();
            return Err(unread(image, "digests", &texts)
                .unwrap_or(SelectionError::NoSuchDigest { digests: missing }));
        }
        let warning = |digest: &Digest| format!("the image does not hold {digest}");
        Ok(missing.iter().map(warning).collect())
    }

    /// Returns true if `digests` lists the manifest itself.
    fn names(&self, digest: &Digest) -> bool {
        self.digests
            .as_ref()
            .is_some_and(|digests| digests.contains(digest))
    }

    /// Returns true if the spec selects some manifests only, apart from the scope.
    const fn is_restricted(&self) -> bool {
        self.platforms.is_some() || self.digests.is_some() || !self.exclude.is_empty()
    }

    /// Returns the reason for which `platforms`, `excludePlatforms` or `digests` leave out a platform manifest.
    fn unselected(&self, entry: &Entry) -> Option<Reason> {
        if self.digests.is_some() && !self.names(&entry.subject.digest) {
            return Some(Reason::DigestNotSelected);
        }
        let is_selected = self
            .platforms
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, entry)));
        let is_excluded = self.exclude.iter().any(|pattern| matches(pattern, entry));
        (!is_selected || is_excluded).then_some(Reason::PlatformNotSelected)
    }

    /// Decides on an entry. `holds_selected` is true for an index with a selected manifest below it.
    fn skip(&self, entry: &Entry, holds_selected: bool) -> Option<Reason> {
        match &entry.kind {
            EntryKind::Attestation => Some(Reason::AttestationManifest),
            EntryKind::Unsupported => Some(Reason::UnsupportedMediaType),
            EntryKind::Index if self.scope == Scope::Platforms => Some(Reason::IndexNotSelected),
            EntryKind::Index => {
                let is_selected =
                    !self.is_restricted() || holds_selected || self.names(&entry.subject.digest);
                let reason = match self.digests {
                    Some(_) => Reason::DigestNotSelected,
                    None => Reason::IndexNotSelected,
                };
                (!is_selected).then_some(reason)
            }
            // Its entries are unknown, so the selection is incomplete without it.
            EntryKind::Unreadable(_) => None,
            EntryKind::Platform(_) if self.scope == Scope::Index => {
                Some(Reason::PlatformNotSelected)
            }
            EntryKind::Platform(_) => self.unselected(entry),
        }
    }
}

/// Returns true if `entry` is a platform manifest that matches the pattern.
pub(super) fn matches(pattern: &PlatformPattern, entry: &Entry) -> bool {
    match &entry.kind {
        EntryKind::Platform(platforms) if platforms.is_empty() => pattern.matches(None),
        EntryKind::Platform(platforms) => platforms
            .iter()
            .any(|platform| pattern.matches(Some(platform))),
        _ => false,
    }
}

/// Returns the platforms of an image, each once.
fn platforms_of(image: &Image) -> Vec<String> {
    let mut platforms: Vec<String> = Vec::new();
    for platform in image.entries.iter().flat_map(Entry::platforms) {
        let platform = platform.to_string();
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    platforms
}

/// Returns the error of `missing` items of a field if they may be in a nested index that could not be fetched.
fn unread(image: &Image, field: &'static str, missing: &[String]) -> Option<SelectionError> {
    image.entries.iter().find_map(|entry| match &entry.kind {
        EntryKind::Unreadable(problem) => Some(SelectionError::Unread {
            field,
            missing: missing.to_vec(),
            index: entry.subject.digest.clone(),
            problem: problem.clone(),
        }),
        _ => None,
    })
}

fn matches_any(pattern: &PlatformPattern, image: &Image) -> bool {
    image.entries.iter().any(|entry| matches(pattern, entry))
}

#[cfg(test)]
mod tests;
