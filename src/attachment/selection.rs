//! The selection of targets among the entries of an image.

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
    /// The handling of a pattern without a match.
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
    /// No known entry matches patterns of `platforms`, and a nested index could not be fetched.
    #[error(
        "targets.platforms: {} may be in the nested index {index}, which could not be read: {problem}",
        list(.patterns.iter().map(|pattern| format!("{:?}", pattern.as_str())))
    )]
    Unread {
        /// The patterns of the spec.
        patterns: Vec<PlatformPattern>,
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
    #[error("targets: the platforms that are asked for, less those excluded, leave nothing of the image to attach to; it has {}", list(.has.iter().cloned()))]
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
            Self::NoMatchingPlatform { .. } | Self::NoIndex | Self::NothingLeft { .. } => {
                Reason::NoMatchingPlatform
            }
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
        image
            .entries
            .iter()
            .map(|entry| SelectedEntry {
                entry,
                skip: self.skip(entry),
            })
            .collect()
    }

    /// Decides on every entry of `image` and checks the whole selection. The second part of the result are warnings.
    ///
    /// # Errors
    /// Fails if a selected platform is missing (unless `missing: Ignore`) or if no target is left.
    pub fn choose<'a>(
        &self,
        image: &'a Image,
    ) -> Result<(Vec<SelectedEntry<'a>>, Vec<String>), SelectionError> {
        if self.scope == Scope::Index && !image.is_index {
            return Err(SelectionError::NoIndex);
        }
        let mut warnings = Vec::new();
        let unmatched: Vec<PlatformPattern> = self
            .platforms
            .iter()
            .flatten()
            .filter(|pattern| !matches_any(pattern, image))
            .cloned()
            .collect();
        if !unmatched.is_empty() {
            if self.missing == Missing::Fail {
                return Err(match unread(image) {
                    Some((index, problem)) => SelectionError::Unread {
                        patterns: unmatched,
                        index: index.clone(),
                        problem: problem.clone(),
                    },
                    None => SelectionError::NoMatchingPlatform {
                        patterns: unmatched,
                        has: platforms_of(image),
                    },
                });
            }
            warnings.extend(
                unmatched
                    .iter()
                    .map(|pattern| format!("no entry matches the platform {:?}", pattern.as_str())),
            );
        }
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
        if chosen.iter().all(|chosen| chosen.skip.is_some()) && unmatched.is_empty() {
            return Err(SelectionError::NothingLeft {
                has: platforms_of(image),
            });
        }
        Ok((chosen, warnings))
    }

    fn skip(&self, entry: &Entry) -> Option<Reason> {
        match &entry.kind {
            EntryKind::Attestation => Some(Reason::AttestationManifest),
            EntryKind::Unsupported => Some(Reason::UnsupportedMediaType),
            EntryKind::Index => {
                (self.scope == Scope::Platforms).then_some(Reason::IndexNotSelected)
            }
            // Its entries are unknown, so the selection is incomplete without it.
            EntryKind::Unreadable(_) => None,
            EntryKind::Platform(_) => {
                let is_selected = self
                    .platforms
                    .as_ref()
                    .is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, entry)));
                let is_excluded = self.exclude.iter().any(|pattern| matches(pattern, entry));
                (self.scope == Scope::Index || !is_selected || is_excluded)
                    .then_some(Reason::PlatformNotSelected)
            }
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

/// Returns the first nested index that could not be fetched, with the error.
fn unread(image: &Image) -> Option<(&Digest, &Problem)> {
    image.entries.iter().find_map(|entry| match &entry.kind {
        EntryKind::Unreadable(problem) => Some((&entry.subject.digest, problem)),
        _ => None,
    })
}

fn matches_any(pattern: &PlatformPattern, image: &Image) -> bool {
    image.entries.iter().any(|entry| matches(pattern, entry))
}

#[cfg(test)]
mod tests;
