//! Tag drift: the tag beside a digest in `spec.image` names another digest. The digest decides, so no pass waits for the tag or fails
//! because of it.

use std::future::Future;
use std::pin::pin;

use futures::FutureExt as _;

use crate::api::{Reason, TagDrift};
use crate::engine::context::Context;
use crate::engine::report::event::PassEvent;
use crate::engine::report::outcome::Report;
use affix_registry::{ErrorKind, Locator};

/// Reads the drift of the tag, unless the request leaves that to a set. On a transient failure it returns the previous drift.
pub(in crate::engine) async fn read(context: &Context<'_>) -> Option<TagDrift> {
    if !context.request.reads_tag_drift {
        return None;
    }
    let reference = &context.request.intent.reference;
    let (tag, digest) = reference.tag.as_ref().zip(reference.digest.as_ref())?;
    match context
        .in_time(context.session.head(&Locator::Tag(tag.clone())))
        .await
    {
        Ok(Ok(head)) => (head.digest != *digest).then(|| TagDrift {
            tag: tag.to_string(),
            digest: head.digest.to_string(),
        }),
        // A deleted tag is not a move.
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => None,
        Ok(Err(_)) | Err(_) => context.request.previous.tag_drift.clone(),
    }
}

/// Runs `work` and reads the drift of the tag concurrently. If the work ends first, the previous drift stays.
pub(in crate::engine) async fn join<E>(
    context: &Context<'_>,
    work: impl Future<Output = Result<Report, E>>,
) -> Result<Report, E> {
    let previous = &context.request.previous.tag_drift;
    let (done, read) = join_until_first(work, read(context)).await;
    let mut report = done?;
    let drift = read.unwrap_or_else(|| previous.clone());
    if let Some(drift) = &drift {
        let message = format!(
            "the tag {} names {} by now; the digest in image decides",
            drift.tag, drift.digest
        );
        if previous.as_ref() != Some(drift) {
            report
                .events
                .push(PassEvent::normal(Reason::TagMoved, message.clone()));
        }
        report.remarks.insert(0, message);
    }
    report.image.tag_drift = drift;
    Ok(report)
}

/// Returns the result of `work`, and that of `aside` if it is complete by then.
async fn join_until_first<T, U>(
    work: impl Future<Output = T>,
    aside: impl Future<Output = U>,
) -> (T, Option<U>) {
    let (mut work, mut aside) = (pin!(work), pin!(aside.fuse()));
    let mut result = None;
    loop {
        tokio::select! {
            biased;
            value = &mut aside, if result.is_none() => result = Some(value),
            done = &mut work => return (done, result),
        }
    }
}
