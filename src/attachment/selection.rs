//! Which entries of an image are targets.

use crate::api::{Missing, Reason, Scope};
use affix_registry::oci::{Digest, PlatformPattern};

use super::image::{Entry, EntryKind, Image};
use super::problem::Problem;

/// `spec.targets`, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// The index, the platforms, or both.
    pub scope: Scope,
    /// Only these platforms; `None`: every one.
    pub platforms: Option<Vec<PlatformPattern>>,
    /// Not these.
    pub exclude: Vec<PlatformPattern>,
    /// What a pattern that matches nothing means.
    pub missing: Missing,
}

/// One entry with the verdict on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// Why it is not a target; `None`: it is one.
    pub skip: Option<Reason>,
}

/// The selection leaves nothing to do, or less than was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Patterns of `platforms` that no entry matches.
    #[error(
        "targets.platforms: no entry of the image matches {}; it has {}. Change the list, or set targets.missing: Ignore",
        list(.patterns.iter().map(|pattern| format!("{:?}", pattern.as_str()))), list(.has.iter().cloned())
    )]
    NoMatchingPlatform {
        /// As written.
        patterns: Vec<PlatformPattern>,
        /// What the image has.
        has: Vec<String>,
    },
    /// A pattern of `platforms` matches nothing so far, and part of the image could not be read: it may be there.
    #[error(
        "targets.platforms: {} may be in the nested index {index}, which could not be read: {problem}",
        list(.patterns.iter().map(|pattern| format!("{:?}", pattern.as_str())))
    )]
    Unread {
        /// As written.
        patterns: Vec<PlatformPattern>,
        /// The nested index.
        index: Digest,
        /// Why it could not be read.
        problem: Problem,
    },
    /// `scope: Index` on a manifest that is no index.
    #[error(
        "targets.scope: Index selects nothing: the image is a single manifest without an index. Remove the scope, or set it to Platforms"
    )]
    NoIndex,
    /// Nothing is left to attach to.
    #[error("targets: the platforms that are asked for, less those excluded, leave nothing of the image to attach to; it has {}", list(.has.iter().cloned()))]
    NothingLeft {
        /// What the image has.
        has: Vec<String>,
    },
}

impl SelectionError {
    /// Why, in the words of the one table: what could not be read may be read later, all else is for the spec's author.
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
    const MOST: usize = 12;
    let items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(MOST);
    let mut text = items.into_iter().take(MOST).collect::<Vec<_>>().join(", ");
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
    /// Judges every entry of `image`, in its order, whatever is to be said of the whole.
    #[must_use]
    pub fn judge<'a>(&self, image: &'a Image) -> Vec<Chosen<'a>> {
        image
            .entries
            .iter()
            .map(|entry| Chosen {
                entry,
                skip: self.skip(entry),
            })
            .collect()
    }

    /// Judges every entry and the whole; the second part is what a user should know and nothing failed over.
    ///
    /// # Errors
    /// When a platform that is asked for is not there (unless `missing: Ignore`), or nothing is left.
    pub fn choose<'a>(
        &self,
        image: &'a Image,
    ) -> Result<(Vec<Chosen<'a>>, Vec<String>), SelectionError> {
        if self.scope == Scope::Index && !image.is_index {
            return Err(SelectionError::NoIndex);
        }
        let has = || {
            let mut has: Vec<String> = Vec::new();
            for platform in image
                .entries
                .iter()
                .flat_map(Entry::platforms)
                .map(ToString::to_string)
            {
                if !has.contains(&platform) {
                    has.push(platform);
                }
            }
            has
        };
        let mut notes = Vec::new();
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
                        has: has(),
                    },
                });
            }
            notes.extend(
                unmatched
                    .iter()
                    .map(|pattern| format!("no entry matches the platform {:?}", pattern.as_str())),
            );
        }
        notes.extend(
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
            return Err(SelectionError::NothingLeft { has: has() });
        }
        Ok((chosen, notes))
    }

    fn skip(&self, entry: &Entry) -> Option<Reason> {
        match &entry.kind {
            EntryKind::Attestation => Some(Reason::AttestationManifest),
            EntryKind::Unsupported => Some(Reason::UnsupportedMediaType),
            EntryKind::Index => {
                (self.scope == Scope::Platforms).then_some(Reason::IndexNotSelected)
            }
            // What it holds is unknown, so a selection of platforms cannot be called complete without it.
            EntryKind::Unreadable(_) => None,
            EntryKind::Platform(_) => {
                let asked_for = self
                    .platforms
                    .as_ref()
                    .is_none_or(|patterns| patterns.iter().any(|pattern| matches(pattern, entry)));
                let excluded = self.exclude.iter().any(|pattern| matches(pattern, entry));
                (self.scope == Scope::Index || !asked_for || excluded)
                    .then_some(Reason::PlatformNotSelected)
            }
        }
    }
}

/// Whether `entry` is a platform manifest in the pattern's set.
pub(super) fn matches(pattern: &PlatformPattern, entry: &Entry) -> bool {
    match &entry.kind {
        EntryKind::Platform(platforms) if platforms.is_empty() => pattern.matches(None),
        EntryKind::Platform(platforms) => platforms
            .iter()
            .any(|platform| pattern.matches(Some(platform))),
        _ => false,
    }
}

/// The first nested index that could not be read, and why.
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
