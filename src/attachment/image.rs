//! The observed image: the root and every entry, each digest once.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Reason;
use affix_registry::oci::{
    Descriptor, Digest, ImageIndex, Manifest, Platform, annotation, media_type,
};

use super::problem::Problem;

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// The root index or a nested one.
    Index,
    /// A platform manifest, with the platforms that index entries state for it. The list can be empty.
    Platform(Vec<Platform>),
    /// A build attestation, which is never a target.
    Attestation,
    /// A manifest that is neither an index nor an image.
    Unsupported,
    /// A nested index that could not be fetched, with the cause.
    Unreadable(Problem),
}

/// A manifest that can be a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The media type, digest and size, as in a `subject`.
    pub subject: Descriptor,
    /// The kind.
    pub kind: EntryKind,
}

impl Entry {
    /// Returns the first stated platform as text.
    #[must_use]
    pub fn platform(&self) -> Option<String> {
        self.platforms().next().map(ToString::to_string)
    }

    /// Returns every platform that index entries state for the digest.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        let platforms: &[Platform] = if let EntryKind::Platform(platforms) = &self.kind {
            platforms
        } else {
            &[]
        };
        platforms.iter()
    }
}

/// An image: the root, then every entry in the order of the indexes, each digest once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The entries; the first is the root.
    pub entries: Vec<Entry>,
    /// True if the root is an index.
    pub is_index: bool,
}

/// An error of a manifest as the image of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference names a referrer.
    #[error("the reference names an attachment of {0}, not an image: name the image itself")]
    Attachment(Digest),
    /// The image has more entries than the limit.
    #[error("the image has more than {0} entries")]
    TooManyEntries(usize),
}

impl Image {
    /// Lists the entries of `root`. `nested` are the fetched nested indexes or their errors, by digest. `config_platform` is the
    /// platform in the config of a single manifest.
    ///
    /// # Errors
    /// Fails if the root is itself an attachment or has more than `max_entries` entries.
    pub fn from_manifest(
        root: &Descriptor,
        manifest: &Manifest,
        nested: &BTreeMap<Digest, Result<ImageIndex, Problem>>,
        config_platform: Option<Platform>,
        max_entries: usize,
    ) -> Result<Self, ImageError> {
        if let Some(subject) = manifest.subject() {
            return Err(ImageError::Attachment(subject.digest.clone()));
        }
        match manifest {
            Manifest::Image(_) => {
                let kind = if config_platform.as_ref().is_some_and(Platform::is_unknown) {
                    EntryKind::Attestation
                } else {
                    EntryKind::Platform(
                        config_platform
                            .into_iter()
                            .filter(|platform| !platform.is_empty())
                            .collect(),
                    )
                };
                let entry = Entry {
                    subject: root.stripped(),
                    kind,
                };
                Ok(Self {
                    entries: vec![entry],
                    is_index: false,
                })
            }
            Manifest::Index(index) => {
                let mut image = Self {
                    entries: vec![Entry {
                        subject: root.stripped(),
                        kind: EntryKind::Index,
                    }],
                    is_index: true,
                };
                image.add(index, nested, max_entries)?;
                Ok(image)
            }
        }
    }

    fn add(
        &mut self,
        index: &ImageIndex,
        nested: &BTreeMap<Digest, Result<ImageIndex, Problem>>,
        max_entries: usize,
    ) -> Result<(), ImageError> {
        for descriptor in &index.manifests {
            if let Some(seen) = self
                .entries
                .iter_mut()
                .find(|entry| entry.subject.digest == descriptor.digest)
            {
                if let (EntryKind::Platform(known), Some(platform)) =
                    (&mut seen.kind, stated_platform(descriptor))
                    && !known.contains(platform)
                {
                    known.push(platform.clone());
                }
                continue;
            }
            if self.entries.len() > max_entries {
                return Err(ImageError::TooManyEntries(max_entries));
            }
            let mut children = None;
            let kind = if is_attestation(descriptor) {
                EntryKind::Attestation
            } else {
                match media_type::kind(&descriptor.media_type) {
                    media_type::Kind::Image => EntryKind::Platform(
                        stated_platform(descriptor).into_iter().cloned().collect(),
                    ),
                    media_type::Kind::Other => EntryKind::Unsupported,
                    media_type::Kind::Index => match nested.get(&descriptor.digest) {
                        Some(Ok(index)) => {
                            children = Some(index);
                            EntryKind::Index
                        }
                        Some(Err(problem)) => EntryKind::Unreadable(problem.clone()),
                        None => EntryKind::Unreadable(Problem::new(
                            Reason::LimitExceeded,
                            "the nested index was not fetched",
                        )),
                    },
                }
            };
            self.entries.push(Entry {
                subject: descriptor.stripped(),
                kind,
            });
            if let Some(index) = children {
                self.add(index, nested, max_entries)?;
            }
        }
        self.add_skipped(index, max_entries)
    }

    /// Adds the unreadable entries that have a digest, because the image reaches them.
    fn add_skipped(&mut self, index: &ImageIndex, max_entries: usize) -> Result<(), ImageError> {
        for digest in index
            .skipped
            .iter()
            .filter_map(|entry| entry.digest.clone())
        {
            if self.entries.len() > max_entries {
                return Err(ImageError::TooManyEntries(max_entries));
            }
            let is_known = |entry: &Entry| entry.subject.digest == digest;
            if !self.entries.iter().any(is_known) {
                self.entries.push(Entry {
                    subject: Descriptor::plain("", digest, 0),
                    kind: EntryKind::Unsupported,
                });
            }
        }
        Ok(())
    }

    /// Returns the root: the index, or the single manifest.
    #[must_use]
    pub fn root(&self) -> Option<&Entry> {
        self.entries.first()
    }

    /// Returns the digests of all manifests of the image.
    ///
    /// # Errors
    /// Fails if a nested index could not be fetched, because its entries are unknown. An index that the registry lacks counts as
    /// empty.
    pub fn reaches(&self) -> Result<BTreeSet<Digest>, Problem> {
        let unread = self.entries.iter().find_map(|entry| match &entry.kind {
            EntryKind::Unreadable(problem) if problem.reason != Reason::NotFound => {
                Some((&entry.subject.digest, problem))
            }
            _ => None,
        });
        match unread {
            Some((digest, problem)) => Err(Problem::new(
                problem.reason,
                format_args!(
                    "the nested index {digest} cannot be read: {}",
                    problem.message
                ),
            )),
            None => Ok(self
                .entries
                .iter()
                .map(|entry| entry.subject.digest.clone())
                .collect()),
        }
    }

    /// Returns the nested indexes in `index`. The caller fetches them before it calls [`Self::from_manifest`].
    pub fn nested_in(index: &ImageIndex) -> impl Iterator<Item = &Descriptor> {
        index.manifests.iter().filter(|entry| {
            media_type::kind(&entry.media_type) == media_type::Kind::Index && !is_attestation(entry)
        })
    }
}

fn stated_platform(descriptor: &Descriptor) -> Option<&Platform> {
    descriptor
        .platform
        .as_ref()
        .filter(|platform| !platform.is_empty())
}

/// Returns true for an attestation of BuildKit, which has an annotation and the platform unknown/unknown. Either is enough.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor
        .annotations
        .contains_key(annotation::REFERENCE_TYPE)
        || descriptor
            .platform
            .as_ref()
            .is_some_and(Platform::is_unknown)
}
