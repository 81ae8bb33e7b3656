//! The fast path: a pass that only compares the digest of the image with status.

use std::sync::Arc;

use crate::attachment::Problem;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::request::build::Mode;
use crate::signing::Signer;
use affix_registry::Locator;

use super::tag_drift;

/// Returns whether the fast path can replace the whole pass, before the signing key is open.
pub(in crate::engine) fn is_possible(context: &Context<'_>) -> bool {
    let request = context.request;
    request.mode == Mode::Attach && !request.verify && request.previous.is_complete()
}

/// Returns whether status and the registry agree, so that nothing is left to do. `signer` is the result of opening the key of a resource
/// that signs.
pub(in crate::engine) async fn is_unchanged(
    context: &Context<'_>,
    signer: Option<Result<&Arc<dyn Signer>, &Problem>>,
) -> Result<bool, Failure> {
    let request = context.request;
    let signer = match signer {
        None => None,
        Some(Ok(signer)) => Some(&**signer),
        // Without the key it is unknown whether it made the signatures.
        Some(Err(_)) => return Ok(false),
    };
    if !request
        .previous
        .is_settled(&request.intent, &request.predicates, signer, context.now)
    {
        return Ok(false);
    }
    context.in_time(is_image_unchanged(context)).await?
}

/// Compares the image with status. A digest without a tag needs no request.
async fn is_image_unchanged(context: &Context<'_>) -> Result<bool, Failure> {
    let reference = &context.request.intent.reference;
    let previous = &context.request.previous;
    match (&reference.tag, &reference.digest) {
        (_, Some(digest)) if previous.image.as_ref() != Some(digest) => Ok(false),
        (Some(_), Some(_)) => Ok(tag_drift::read(context).await == previous.tag_drift),
        (Some(tag), None) => {
            let head = context.session.head(&Locator::Tag(tag.clone())).await?;
            Ok(previous.image.as_ref() == Some(&head.digest))
        }
        (None, _) => Ok(true),
    }
}
