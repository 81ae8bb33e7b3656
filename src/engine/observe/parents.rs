//! The tagged indexes that hold the image, for `targets.parents`.

use std::borrow::Cow;

use futures::{StreamExt as _, stream};

use crate::attachment::Image;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use affix_registry::oci::{Descriptor, Digest};

use super::tags_in_use::{CONCURRENCY, read_root, tagged_roots};

/// Returns the image with the tagged indexes that hold it, if the spec selects them.
///
/// # Errors
/// Fails if a tag or an index cannot be read, or if the repository has more tags than can be read: an incomplete set is never marked.
pub(in crate::engine) async fn with_parents<'a>(
    context: &Context<'_>,
    image: &'a Image,
) -> Result<Cow<'a, Image>, Failure> {
    let is_wanted = context.request.intent.selection.parents;
    let Some(root) = image.root().filter(|_| is_wanted) else {
        return Ok(Cow::Borrowed(image));
    };
    let own = &root.subject.digest;
    let tags = tagged_roots(context, |tag| !tag.is_referrers_tag()).await?;
    let others = tags.into_keys().filter(|digest| digest != own);
    let parents: Vec<Result<Option<Descriptor>, Failure>> = stream::iter(others)
        .map(|digest| parent(context, digest, own))
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let mut image = image.clone();
    for parent in parents {
        if let Some(parent) = parent? {
            image.add_parent(&parent);
        }
    }
    Ok(Cow::Owned(image))
}

/// Returns the descriptor of an index if it holds `own`.
async fn parent(
    context: &Context<'_>,
    digest: Digest,
    own: &Digest,
) -> Result<Option<Descriptor>, Failure> {
    let root = read_root(context.session, context.limits, digest).await?;
    Ok(root.index.filter(|_| root.reaches.contains(own)))
}
