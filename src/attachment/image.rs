//! The image as the registry holds it: the root, every entry once, and what each entry is.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Reason;
use affix_registry::oci::{
    Descriptor, Digest, ImageIndex, Manifest, Platform, annotation, media_type,
};

use super::problem::Problem;

/// What an entry is, before anyone selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// The root index or a nested one.
    Index,
    /// The manifest of a platform, with the platforms that entries give it (none where it states none).
    Platform(Vec<Platform>),
    /// A build attestation, which is never a target.
    Attestation,
    /// Neither an index nor an image.
    Unsupported,
    /// A nested index that could not be read, and why.
    Unreadable(Problem),
}

/// One entry: a manifest that could be a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Media type, digest and size, as a `subject` names it.
    pub subject: Descriptor,
    /// What it is.
    pub kind: EntryKind,
}

impl Entry {
    /// The platform as text: the first that an entry gives.
    #[must_use]
    pub fn platform(&self) -> Option<String> {
        self.platforms().next().map(ToString::to_string)
    }

    /// Every platform that an entry gives to this digest.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        let platforms: &[Platform] = if let EntryKind::Platform(platforms) = &self.kind {
            platforms
        } else {
            &[]
        };
        platforms.iter()
    }
}

/// An image: the root first, then every entry in the order of the indexes, each digest once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The entries; the first is the root.
    pub entries: Vec<Entry>,
    /// Whether the root is an index.
    pub is_index: bool,
}

/// Why a manifest cannot be the image of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference leads to a referrer.
    #[error("the reference names an attachment of {0}, not an image: name the image itself")]
    Attachment(Digest),
    /// More entries than the limit.
    #[error("the image has more than {0} entries")]
    TooManyEntries(usize),
}

impl Image {
    /// Lays out what `root` holds. `nested` gives the nested indexes that were fetched (or why one could not be), by digest;
    /// `config_platform` is the platform of a single manifest, from its config.
    ///
    /// # Errors
    /// When the root is itself an attachment, or has more than `most` entries.
    pub fn lay_out(
        root: &Descriptor,
        manifest: &Manifest,
        nested: &BTreeMap<Digest, Result<ImageIndex, Problem>>,
        config_platform: Option<Platform>,
        most: usize,
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
                image.add(index, nested, most)?;
                Ok(image)
            }
        }
    }

    fn add(
        &mut self,
        index: &ImageIndex,
        nested: &BTreeMap<Digest, Result<ImageIndex, Problem>>,
        most: usize,
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
            if self.entries.len() > most {
                return Err(ImageError::TooManyEntries(most));
            }
            let mut below = None;
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
                            below = Some(index);
                            EntryKind::Index
                        }
                        Some(Err(why)) => EntryKind::Unreadable(why.clone()),
                        None => EntryKind::Unreadable(Problem::new(
                            Reason::LimitExceeded,
                            "the nested index was not read",
                        )),
                    },
                }
            };
            self.entries.push(Entry {
                subject: descriptor.stripped(),
                kind,
            });
            if let Some(index) = below {
                self.add(index, nested, most)?;
            }
        }
        Ok(())
    }

    /// The root: the index, or the single manifest.
    #[must_use]
    pub fn root(&self) -> Option<&Entry> {
        self.entries.first()
    }

    /// Everything that the image reaches.
    ///
    /// # Errors
    /// Why a nested index could not be read: what it holds is unknown. One that the registry lacks holds nothing.
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

    /// Digests of the indexes that `index` lists, so that the caller fetches them before it lays out the image.
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

/// BuildKit marks its attestations with an annotation and with the platform unknown/unknown; either is enough.
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor
        .annotations
        .contains_key(annotation::REFERENCE_TYPE)
        || descriptor
            .platform
            .as_ref()
            .is_some_and(Platform::is_unknown)
}
