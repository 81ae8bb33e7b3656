//! The files of an artifact: their sources and their targets.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::{self, ArtifactFile, ConfigMapFiles};
use affix_registry::oci::{Descriptor, Digest, PlatformPattern, annotation};

use super::image::{Entry, EntryKind};
use super::selection::matches;

/// The existing ConfigMaps that a spec names. Secrets are never a source, because attachments are public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The ConfigMaps by name, with the keys of `data` and `binaryData`.
    pub config_maps: BTreeMap<String, BTreeMap<String, Bytes>>,
}

/// The targets of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileTarget {
    /// Every target.
    Every,
    /// The root index and all nested ones.
    Index,
    /// The platforms that match the pattern.
    Platform(PlatformPattern),
    /// The target with this digest.
    Digest(Digest),
}

impl FileTarget {
    /// Returns true if `entry` gets the file.
    #[must_use]
    pub fn covers(&self, entry: &Entry) -> bool {
        match self {
            Self::Every => true,
            Self::Index => matches!(entry.kind, EntryKind::Index),
            Self::Platform(pattern) => matches(pattern, entry),
            Self::Digest(digest) => entry.subject.digest == *digest,
        }
    }

    /// Returns true if an image can have a target of both. A digest overlaps only with itself, because its kind is unknown.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Every, _) | (_, Self::Every) | (Self::Index, Self::Index) => true,
            (Self::Platform(one), Self::Platform(other)) => one.overlaps(other),
            (Self::Digest(one), Self::Digest(other)) => one == other,
            _ => false,
        }
    }

    /// Parses `index`, a digest or a platform.
    ///
    /// # Errors
    /// Fails for other text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "index" {
            return Ok(Self::Index);
        }
        if has_digest_form(text) {
            return text
                .parse()
                .map(Self::Digest)
                .map_err(|error: affix_registry::oci::DigestError| error.to_string());
        }
        text.parse()
            .map(Self::Platform)
            .map_err(|error: affix_registry::oci::PlatformPatternError| error.to_string())
    }
}

/// Returns true for the form of a digest, also of an unknown algorithm. A platform with an `os.version` also has a colon.
fn has_digest_form(text: &str) -> bool {
    text.starts_with("sha256:")
        || text.starts_with("sha512:")
        || text.split_once(':').is_some_and(|(_, encoded)| {
            encoded.len() >= 32 && encoded.bytes().all(|b| b.is_ascii_hexdigit())
        })
}

impl std::fmt::Display for FileTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Every => f.write_str("every target"),
            Self::Index => f.write_str("index"),
            Self::Platform(pattern) => pattern.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A file with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The title of the layer.
    pub title: String,
    /// The media type of the layer.
    pub media_type: String,
    /// The targets.
    pub target: FileTarget,
    /// The content.
    pub bytes: Bytes,
}

impl File {
    /// Returns the file as a layer.
    #[must_use]
    pub fn layer(&self) -> Descriptor {
        Descriptor {
            annotations: BTreeMap::from([(annotation::TITLE.to_owned(), self.title.clone())]),
            ..Descriptor::of(self.media_type.clone(), &self.bytes)
        }
    }

    /// Reads a file of the spec. `at` is its path in the spec, for messages.
    ///
    /// # Errors
    /// Fails if the name or target is malformed, or if the ConfigMap or key does not exist.
    pub(super) fn resolve(
        file: &ArtifactFile,
        at: &str,
        inputs: &Inputs,
    ) -> Result<Self, FileError> {
        check_title(&file.name, at)?;
        let target = match file.target.as_deref() {
            None => FileTarget::Every,
            Some(text) => FileTarget::parse(text).map_err(|cause| FileError::Target {
                at: at.to_owned(),
                cause,
            })?,
        };
        let bytes = match (&file.value, &file.value_from) {
            (Some(value), None) => Bytes::copy_from_slice(value.as_bytes()),
            (None, Some(source)) => config_map_value(&source.config_map_key_ref, at, inputs)?,
            _ => return Err(FileError::Source { at: at.to_owned() }),
        };
        Ok(Self {
            title: file.name.clone(),
            media_type: file.media_type().to_owned(),
            target,
            bytes,
        })
    }

    /// Returns every key of a ConfigMap as a file, sorted by name. A name with a digest makes the file for that target only.
    ///
    /// # Errors
    /// Fails if the ConfigMap does not exist or is empty, or if a key is not a file name.
    pub(super) fn from_config_map(
        from: &ConfigMapFiles,
        at: &str,
        inputs: &Inputs,
    ) -> Result<Vec<Self>, FileError> {
        let name = &from.config_map_ref.name;
        let place = || format!("{at}.configMapRef.name");
        let map = inputs
            .config_maps
            .get(name)
            .ok_or_else(|| FileError::NoConfigMap {
                at: place(),
                name: name.clone(),
            })?;
        if map.is_empty() {
            return Err(FileError::NoKeys {
                at: place(),
                name: name.clone(),
            });
        }
        let file = |(key, bytes): (&String, &Bytes)| {
            check_title(key, at)?;
            let target = named_digest(key).map_or(FileTarget::Every, FileTarget::Digest);
            Ok(Self {
                title: key.clone(),
                media_type: from.media_type().to_owned(),
                target,
                bytes: bytes.clone(),
            })
        };
        map.iter().map(file).collect()
    }
}

/// Returns the digest in a file name, in the form of cosign: `sha256-` and exactly 64 hexadecimal digits.
fn named_digest(name: &str) -> Option<Digest> {
    const PREFIX: &str = "sha256-";
    const LENGTH: usize = 64;
    name.match_indices(PREFIX).find_map(|(at, _)| {
        let rest = name.get(at + PREFIX.len()..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        (digits == LENGTH)
            .then(|| {
                format!(
                    "sha256:{}",
                    rest.get(..LENGTH).unwrap_or_default().to_ascii_lowercase()
                )
                .parse()
                .ok()
            })
            .flatten()
    })
}

fn config_map_value(
    key: &api::ConfigMapKeyRef,
    at: &str,
    inputs: &Inputs,
) -> Result<Bytes, FileError> {
    let place = format!("{at}.valueFrom.configMapKeyRef.name");
    let map = inputs
        .config_maps
        .get(&key.name)
        .ok_or_else(|| FileError::NoConfigMap {
            at: place,
            name: key.name.clone(),
        })?;
    map.get(&key.key).cloned().ok_or_else(|| FileError::NoKey {
        at: at.to_owned(),
        name: key.name.clone(),
        key: key.key.clone(),
    })
}

/// Checks that no target can get two files of one name, because a client that pulls them overwrites one of them.
///
/// # Errors
/// Fails for the first file that has the name of an earlier one and can have the same target.
pub(super) fn check_overlap(files: &[File], at: &str) -> Result<(), FileError> {
    for (nth, file) in files.iter().enumerate() {
        if files
            .iter()
            .take(nth)
            .any(|earlier| earlier.title == file.title && earlier.target.overlaps(&file.target))
        {
            return Err(FileError::Overlap {
                at: format!("{at}[{nth}]"),
                name: file.title.clone(),
                target: file.target.to_string(),
            });
        }
    }
    Ok(())
}

/// Checks that a title is a relative path without `..`, because clients that pull the artifact write a file of that name.
pub(super) fn check_title(title: &str, at: &str) -> Result<(), FileError> {
    let bad = title.is_empty()
        || title.len() > 255
        || title.split('/').any(|part| matches!(part, "" | "." | ".."))
        || title
            .chars()
            .any(|c| matches!(c, '\\' | ':') || c.is_control());
    if bad {
        Err(FileError::Title {
            at: at.to_owned(),
            title: affix_registry::oci::cut(title),
        })
    } else {
        Ok(())
    }
}

/// An error in the files of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Two files of one name can have the same target.
    #[error(
        "{at}: {name:?} would be there twice, for {target} and for targets of an earlier file of that name: rename one, or make their targets differ"
    )]
    Overlap {
        /// The path in the spec.
        at: String,
        /// The name.
        name: String,
        /// The targets.
        target: String,
    },
    /// The name is not a relative path.
    #[error(
        "{at}.name: {title:?} is not a file name: 1 to 255 bytes, a relative path without '..', '.', empty parts, '\\', ':' and control characters"
    )]
    Title {
        /// The path in the spec.
        at: String,
        /// The text of the spec.
        title: String,
    },
    /// The target is malformed.
    #[error("{at}.target: {cause}; or write index, or a digest")]
    Target {
        /// The path in the spec.
        at: String,
        /// The cause.
        cause: String,
    },
    /// The file has no content or two.
    #[error("{at}: give exactly one of value and valueFrom")]
    Source {
        /// The path in the spec.
        at: String,
    },
    /// The ConfigMap does not exist.
    #[error(
        "{at}: the ConfigMap {name:?} is not there: create it in the namespace of the resource"
    )]
    NoConfigMap {
        /// The path in the spec.
        at: String,
        /// The ConfigMap.
        name: String,
    },
    /// The ConfigMap has no keys.
    #[error("{at}: the ConfigMap {name:?} has no keys: add files to data or binaryData")]
    NoKeys {
        /// The path in the spec.
        at: String,
        /// The ConfigMap.
        name: String,
    },
    /// The key does not exist.
    #[error(
        "{at}.valueFrom.configMapKeyRef.key: the ConfigMap {name:?} has no key {key:?}: add it to data or binaryData"
    )]
    NoKey {
        /// The path in the spec.
        at: String,
        /// The ConfigMap.
        name: String,
        /// The key.
        key: String,
    },
    /// A target has no file.
    #[error(
        "spec.artifact: no file is for the target {target}: add one, for its digest where it is for no other, or leave the target out by spec.targets"
    )]
    Uncovered {
        /// The target.
        target: String,
    },
    /// A target has no predicate.
    #[error(
        "spec.attestation: no predicate is for the target {target}: add one, or leave the target out by spec.targets"
    )]
    NoPredicate {
        /// The target.
        target: String,
    },
    /// A target has two predicates.
    #[error(
        "{at}: the predicate is for {target}, and so is {other}: give each its own target, or create another ImageAttachment"
    )]
    TwoPredicates {
        /// The place of the predicate.
        at: String,
        /// The place of the other predicate.
        other: String,
        /// The target.
        target: String,
    },
    /// Two files of one target have the same name.
    #[error(
        "spec.artifact: two files named {name:?} are for the target {target}: give each its own name, or its own target, such as a digest"
    )]
    TwoOfOneName {
        /// The name.
        name: String,
        /// The target.
        target: String,
    },
}

impl FileError {
    /// Returns true if content is missing that a user can add. Otherwise the spec is wrong.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::NoConfigMap { .. }
                | Self::NoKeys { .. }
                | Self::NoKey { .. }
                | Self::Uncovered { .. }
                | Self::NoPredicate { .. }
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
    fn a_digest_in_a_name_has_exactly_sixty_four_digits() {
        let hex = "a".repeat(64);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        for name in [
            format!("sha256-{hex}"),
            format!("app-sha256-{hex}.sig"),
            format!("sha256-{}.json", hex.to_uppercase()),
        ] {
            assert_eq!(named_digest(&name), Some(digest.clone()), "{name}");
        }
        for name in [
            format!("sha256-{hex}a"),
            format!("sha256-{}", "a".repeat(63)),
            hex.clone(),
            format!("sha256:{hex}"),
            String::new(),
        ] {
            assert_eq!(named_digest(&name), None, "{name}");
        }
    }
}
