//! The manifests that other tags of the repository use.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};

use crate::api::Reason;
use crate::attachment::supersession::Supersession;
use crate::attachment::{Image, ImageError};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use affix_registry::oci::{Descriptor, Digest, Manifest, Tag};
use affix_registry::{ErrorKind, Limits, Locator, Session};

use super::resolve;

/// Maximum number of tags to read. With more tags, no image is marked.
const MAX_TAGS: usize = 500;
/// Number of images of other tags that are read concurrently.
pub(in crate::engine) const CONCURRENCY: usize = 16;

/// Returns every manifest that a tag of `unlessTagged` reaches, each with one such tag, without the followed tag. Each image is read once.
pub(in crate::engine) async fn reached_by_tags(
    context: &Context<'_>,
    wanted: &Supersession,
) -> Result<BTreeMap<Digest, Tag>, Failure> {
    let mut reached = BTreeMap::new();
    if wanted.unless_tagged.is_empty() {
        return Ok(reached);
    }
    let own = context.request.intent.reference.tag.as_ref();
    let roots = tagged_roots(context, |tag| {
        Some(tag) != own && wanted.unless_tagged.counts(tag)
    })
    .await?;
    let images: Vec<(Tag, Result<ReachedRoot, Failure>)> =
        stream::iter(roots)
            .map(|(root, tag)| async move {
                (tag, read_root(context.session, context.limits, root).await)
            })
            .buffered(CONCURRENCY)
            .collect()
            .await;
    for (tag, image) in images {
        for digest in image?.reaches {
            reached.entry(digest).or_insert_with(|| tag.clone());
        }
    }
    Ok(reached)
}

/// Returns the manifests that tags name, each with its first tag, of those tags that `counts` holds for.
pub(super) async fn tagged_roots(
    context: &Context<'_>,
    counts: impl Fn(&Tag) -> bool,
) -> Result<BTreeMap<Digest, Tag>, Failure> {
    let tags = context.session.list_tags(MAX_TAGS, counts).await?;
    let heads: Vec<_> = stream::iter(tags)
        .map(|tag| async move {
            let head = context.session.head(&Locator::Tag(tag.clone())).await;
            (tag, head)
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let mut roots = BTreeMap::new();
    for (tag, head) in heads {
        match head {
            Ok(head) => {
                roots.entry(head.digest).or_insert(tag);
            }
            // The tag was deleted in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(roots)
}

/// The manifests below a tagged manifest.
pub(in crate::engine) struct ReachedRoot {
    /// The manifest itself and every manifest below it.
    pub(in crate::engine) reaches: BTreeSet<Digest>,
    /// The descriptor of an index that is an image.
    pub(super) index: Option<Descriptor>,
    /// True if the registry lacks the manifest.
    pub(in crate::engine) is_gone: bool,
}

impl ReachedRoot {
    fn of(reaches: BTreeSet<Digest>) -> Self {
        Self {
            reaches,
            index: None,
            is_gone: false,
        }
    }
}

/// Reads the manifests of an image. A manifest that is not an image reaches only itself. An unreadable manifest is an error.
pub(in crate::engine) async fn read_root(
    session: &Session,
    limits: &Limits,
    root: Digest,
) -> Result<ReachedRoot, Failure> {
    // Of each of up to 500 images only the digests are kept.
    let session = &session.uncounted();
    let fetched = match session.manifest(&Locator::Digest(root.clone())).await {
        Ok(fetched) => fetched,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::UnsupportedMediaType
            ) =>
        {
            return Ok(ReachedRoot {
                is_gone: error.kind() == ErrorKind::NotFound,
                ..ReachedRoot::of(BTreeSet::from([root]))
            });
        }
        Err(error) => return Err(error.into()),
    };
    let nested = match &fetched.manifest {
        Manifest::Index(index) => resolve::walk(session, index, limits).await?,
        Manifest::Image(_) => BTreeMap::new(),
    };
    let descriptor = fetched.descriptor();
    match Image::from_manifest(
        &descriptor,
        &fetched.manifest,
        &nested,
        None,
        limits.index_entries,
    ) {
        Ok(image) => Ok(ReachedRoot {
            reaches: image.reaches()?,
            index: image.is_index.then_some(descriptor),
            is_gone: false,
        }),
        // A referrer with a tag of its own.
        Err(ImageError::Attachment(_)) => Ok(ReachedRoot::of(match &fetched.manifest {
            Manifest::Index(index) => {
                let entries = index.manifests.iter().map(|entry| entry.digest.clone());
                entries.chain([root]).collect()
            }
            Manifest::Image(_) => BTreeSet::from([root]),
        })),
        Err(error) => Err(Failure::new(
            Reason::LimitExceeded,
            format_args!("{root}, which another tag names: {error}"),
        )),
    }
}
