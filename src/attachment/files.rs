//! The files of an artifact: where their bytes come from, and which targets each one is for.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::{self, ArtifactFile};
use crate::oci::{Descriptor, Digest, PlatformPattern, annotation};

use super::image::{Entry, EntryKind};
use super::selection::matches;

/// The ConfigMaps that a spec names, by name, each with its keys; absent ones are absent. Secrets are never a source: what
/// is attached is public.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// ConfigMaps by name: `data` and `binaryData` together.
    pub config_maps: BTreeMap<String, BTreeMap<String, Bytes>>,
}

/// Which targets a file is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileTarget {
    /// All of them.
    Every,
    /// The index that the image names.
    Index,
    /// The platforms that the pattern matches.
    Platform(PlatformPattern),
    /// The target of this digest.
    Digest(Digest),
}

impl FileTarget {
    /// Whether the file goes to `entry`.
    #[must_use]
    pub fn covers(&self, entry: &Entry, is_root: bool) -> bool {
        match self {
            Self::Every => true,
            Self::Index => is_root && matches!(entry.kind, EntryKind::Index),
            Self::Platform(pattern) => matches(pattern, entry),
            Self::Digest(digest) => entry.subject.digest == *digest,
        }
    }

    /// Reads `index`, a digest or a platform.
    ///
    /// # Errors
    /// When the text is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "index" {
            return Ok(Self::Index);
        }
        if is_like_a_digest(text) {
            return text.parse().map(Self::Digest).map_err(|error: crate::oci::DigestError| error.to_string());
        }
        text.parse().map(Self::Platform).map_err(|error: crate::oci::PlatformPatternError| error.to_string())
    }
}

/// A digest, also one of an algorithm that affix does not know: such a text is no platform with an os.version.
fn is_like_a_digest(text: &str) -> bool {
    text.starts_with("sha256:")
        || text.starts_with("sha512:")
        || text.split_once(':').is_some_and(|(_, encoded)| encoded.len() >= 32 && encoded.bytes().all(|b| b.is_ascii_hexdigit()))
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

/// A file, with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The layer's title.
    pub title: String,
    /// The layer's media type.
    pub media_type: String,
    /// Which targets it is for.
    pub target: FileTarget,
    /// The content.
    pub bytes: Bytes,
}

impl File {
    /// The file as a layer.
    #[must_use]
    pub fn layer(&self) -> Descriptor {
        Descriptor {
            annotations: BTreeMap::from([(annotation::TITLE.to_owned(), self.title.clone())]),
            ..Descriptor::of(self.media_type.clone(), &self.bytes)
        }
    }

    /// Reads one file of the spec; `at` is its place there, for messages.
    ///
    /// # Errors
    /// When a name or target is malformed, or the ConfigMap or key is absent.
    pub(super) fn resolve(file: &ArtifactFile, at: &str, inputs: &Inputs) -> Result<Self, FileError> {
        check_title(&file.name, at)?;
        let target = match file.target.as_deref() {
            None => FileTarget::Every,
            Some(text) => FileTarget::parse(text).map_err(|why| FileError::Target { at: at.to_owned(), why })?,
        };
        let bytes = match (&file.value, &file.value_from) {
            (Some(value), None) => Bytes::copy_from_slice(value.as_bytes()),
            (None, Some(source)) => look_up(&source.config_map_key_ref, at, inputs)?,
            _ => return Err(FileError::Source { at: at.to_owned() }),
        };
        Ok(Self { title: file.name.clone(), media_type: file.media_type().to_owned(), target, bytes })
    }
}

fn look_up(key: &api::ConfigMapKeyRef, at: &str, inputs: &Inputs) -> Result<Bytes, FileError> {
    let map = inputs.config_maps.get(&key.name).ok_or_else(|| FileError::NoConfigMap { at: at.to_owned(), name: key.name.clone() })?;
    map.get(&key.key).cloned().ok_or_else(|| FileError::NoKey { at: at.to_owned(), name: key.name.clone(), key: key.key.clone() })
}

/// A title is a bare file name: whoever pulls the artifact writes a file of that name.
pub(super) fn check_title(title: &str, at: &str) -> Result<(), FileError> {
    let bad = title.is_empty()
        || title.len() > 255
        || matches!(title, "." | "..")
        || title.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
    if bad { Err(FileError::Title { at: at.to_owned(), title: crate::oci::cut(title) }) } else { Ok(()) }
}

/// What is wrong with the files of a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The name is no bare file name.
    #[error("{at}.name: {title:?} is not a file name: 1 to 255 bytes without '/', '\\', ':' and control characters, and neither . nor ..")]
    Title {
        /// Place in the spec.
        at: String,
        /// As given.
        title: String,
    },
    /// The target is malformed.
    #[error("{at}.target: {why}; or write index, or a digest")]
    Target {
        /// Place in the spec.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// No content, or two.
    #[error("{at}: give exactly one of value and valueFrom")]
    Source {
        /// Place in the spec.
        at: String,
    },
    /// The ConfigMap is absent.
    #[error("{at}.valueFrom.configMapKeyRef.name: the ConfigMap {name:?} is not there: create it in the namespace of the resource")]
    NoConfigMap {
        /// Place in the spec.
        at: String,
        /// The ConfigMap.
        name: String,
    },
    /// The key is absent.
    #[error("{at}.valueFrom.configMapKeyRef.key: the ConfigMap {name:?} has no key {key:?}: add it to data or binaryData")]
    NoKey {
        /// Place in the spec.
        at: String,
        /// The ConfigMap.
        name: String,
        /// The key.
        key: String,
    },
    /// A target has no file.
    #[error("spec.artifact.files: no file is for the target {target}: add one, or leave the target out by spec.targets")]
    Uncovered {
        /// The target.
        target: String,
    },
    /// Two files of one target have the same name.
    #[error("spec.artifact.files: two files named {name:?} are for the target {target}: give each its own name or target")]
    TwoOfOneName {
        /// The name.
        name: String,
        /// The target.
        target: String,
    },
}

impl FileError {
    /// Whether content is missing that somebody can still add; otherwise the spec itself is wrong.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::NoConfigMap { .. } | Self::NoKey { .. } | Self::Uncovered { .. })
    }
}
