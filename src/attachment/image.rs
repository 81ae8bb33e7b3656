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
    /// A platform manifest, with the platforms that index entries state for it or for an index around it. The list can be empty.
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
    /// The build attestations of the image, in the order of the indexes, each once.
    pub attestations: Vec<BuildAttestation>,
    /// The entries directly below each index.
    pub(super) children: BTreeMap<Digest, BTreeSet<Digest>>,
}

/// A manifest of unsigned statements that the build put beside a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildAttestation {
    /// The manifest.
    pub manifest: Descriptor,
    /// The platform manifest that the index states for it. If there is none, the subject of the manifest counts.
    pub platform: Option<Digest>,
}

/// The state of the walk through the indexes of an image.
struct Walk<'a> {
    nested: &'a BTreeMap<Digest, Result<ImageIndex, Problem>>,
    max_entries: usize,
    /// The number of visited descriptors. An index can be visited once for each platform around it.
    visited: usize,
    /// The indexes that were walked, each with the platform around it.
    walked: BTreeSet<(Digest, String)>,
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
                    attestations: Vec::new(),
                    children: BTreeMap::new(),
                })
            }
            Manifest::Index(index) => {
                let mut image = Self {
                    entries: vec![Entry {
                        subject: root.stripped(),
                        kind: EntryKind::Index,
                    }],
                    is_index: true,
                    attestations: Vec::new(),
                    children: BTreeMap::new(),
                };
                let mut walk = Walk {
                    nested,
                    max_entries,
                    visited: 0,
                    walked: BTreeSet::new(),
                };
                image.add(&root.digest, index, None, &mut walk)?;
                Ok(image)
            }
        }
    }

    /// Adds the entries of `index`. `around` is the platform of the index entry that names it, which an entry without a platform inherits.
    fn add(
        &mut self,
        parent: &Digest,
        index: &ImageIndex,
        around: Option<&Platform>,
        walk: &mut Walk<'_>,
    ) -> Result<(), ImageError> {
        /// The visits for each allowed entry. Only a crafted image names one index under many platforms.
        const MAX_VISITS: usize = 16;
        for descriptor in &index.manifests {
            walk.visited += 1;
            if walk.visited > walk.max_entries.saturating_mul(MAX_VISITS) {
                return Err(ImageError::TooManyEntries(walk.max_entries));
            }
            let below = self.children.entry(parent.clone()).or_default();
            below.insert(descriptor.digest.clone());
            let platform = stated_platform(descriptor).or(around);
            let seen = self
                .entries
                .iter_mut()
                .find(|entry| entry.subject.digest == descriptor.digest);
            let children = match seen {
                Some(seen) => match (&mut seen.kind, platform) {
                    (EntryKind::Platform(known), Some(platform)) => {
                        if !known.contains(platform) {
                            known.push(platform.clone());
                        }
                        None
                    }
                    // Its entries inherit one more platform.
                    (EntryKind::Index, Some(_)) => {
                        let index = walk.nested.get(&descriptor.digest);
                        index.and_then(|index| index.as_ref().ok())
                    }
                    _ => None,
                },
                None => {
                    if self.entries.len() > walk.max_entries {
                        return Err(ImageError::TooManyEntries(walk.max_entries));
                    }
                    let (kind, children) = kind_of(descriptor, platform, walk.nested);
                    if kind == EntryKind::Attestation {
                        let stated = descriptor.annotations.get(annotation::REFERENCE_DIGEST);
                        self.attestations.push(BuildAttestation {
                            manifest: descriptor.stripped(),
                            platform: stated.and_then(|text| text.parse().ok()),
                        });
                    }
                    self.entries.push(Entry {
                        subject: descriptor.stripped(),
                        kind,
                    });
                    children
                }
            };
            if let Some(index) = children {
                let key = platform.map(ToString::to_string).unwrap_or_default();
                if walk.walked.insert((descriptor.digest.clone(), key)) {
                    self.add(&descriptor.digest, index, platform, walk)?;
                }
            }
        }
        self.add_skipped(index, walk.max_entries)
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

    /// Returns the indexes that hold one of `digests`, at any depth.
    #[must_use]
    pub fn indexes_above<'a>(&'a self, digests: &BTreeSet<&'a Digest>) -> BTreeSet<&'a Digest> {
        let mut parents: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
        for (parent, children) in &self.children {
            for child in children {
                parents.entry(child).or_default().push(parent);
            }
        }
        let mut above = BTreeSet::new();
        let mut open: Vec<&Digest> = digests.iter().copied().collect();
        while let Some(digest) = open.pop() {
            for parent in parents.get(digest).into_iter().flatten() {
                if above.insert(*parent) {
                    open.push(parent);
                }
            }
        }
        above
    }

    /// Adds an index of the repository that holds the image.
    pub fn add_parent(&mut self, parent: &Descriptor) {
        let Some(root) = self.root().map(|root| root.subject.digest.clone()) else {
            return;
        };
        let below = self.children.entry(parent.digest.clone()).or_default();
        below.insert(root);
        self.is_index = true;
        let mut entries = self.entries.iter();
        if !entries.any(|entry| entry.subject.digest == parent.digest) {
            self.entries.push(Entry {
                subject: parent.stripped(),
                kind: EntryKind::Index,
            });
        }
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

/// Returns the kind of an entry, and the index that it names.
fn kind_of<'a>(
    descriptor: &Descriptor,
    platform: Option<&Platform>,
    nested: &'a BTreeMap<Digest, Result<ImageIndex, Problem>>,
) -> (EntryKind, Option<&'a ImageIndex>) {
    if is_attestation(descriptor) {
        return (EntryKind::Attestation, None);
    }
    match media_type::kind(&descriptor.media_type) {
        media_type::Kind::Image => {
            let platforms = platform.into_iter().cloned().collect();
            (EntryKind::Platform(platforms), None)
        }
        media_type::Kind::Other => (EntryKind::Unsupported, None),
        media_type::Kind::Index => match nested.get(&descriptor.digest) {
            Some(Ok(index)) => (EntryKind::Index, Some(index)),
            Some(Err(problem)) => (EntryKind::Unreadable(problem.clone()), None),
            None => {
                let problem =
                    Problem::new(Reason::LimitExceeded, "the nested index was not fetched");
                (EntryKind::Unreadable(problem), None)
            }
        },
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
