//! The tag beside a digest. The digest decides, so the tag is only told of: no pass waits for it, or fails with it.

use std::future::Future;
use std::pin::pin;

use futures::FutureExt as _;

use crate::api::{Reason, TagDrift};
use affix_registry::{ErrorKind, Locator};

use super::outcome::{Note, Outcome, Severity};
use super::pass::{Pass, Request};

impl Pass<'_> {
    /// The other digest that the tag of a `tag@digest` names, where it names one.
    pub(super) async fn ask_of_tag(&self) -> Option<TagDrift> {
        let reference = &self.request.intent.reference;
        let (tag, digest) = reference.tag.as_ref().zip(reference.digest.as_ref())?;
        match self
            .in_time(self.session.head(&Locator::Tag(tag.clone())))
            .await
        {
            Ok(Ok(head)) => (head.digest != *digest).then(|| TagDrift {
                tag: tag.to_string(),
                digest: head.digest.to_string(),
            }),
            // That the tag is gone is no move.
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => None,
            Ok(Err(_)) | Err(_) => known_drift(self.request),
        }
    }

    /// Does `work` and asks for the tag beside it; what the registry has not told of the tag by the end of the work is as before.
    pub(super) async fn telling_of_tag<E>(
        &self,
        work: impl Future<Output = Result<Outcome, E>>,
    ) -> Result<Outcome, E> {
        let (done, seen) = beside(work, self.ask_of_tag()).await;
        let mut outcome = done?;
        let drift = seen.unwrap_or_else(|| known_drift(self.request));
        if let (Ok(words), Some(drift)) = (&mut outcome.resolved, &drift) {
            let message = message(drift);
            if known_drift(self.request).as_ref() != Some(drift) {
                outcome.notes.push(Note {
                    severity: Severity::Normal,
                    reason: Reason::TagMoved,
                    message: message.clone(),
                });
            }
            words.insert(0, message);
        }
        if let Some(image) = &mut outcome.image {
            image.tag_drift = drift;
        }
        Ok(outcome)
    }
}

fn message(drift: &TagDrift) -> String {
    format!(
        "the tag {} names {} by now; the digest in image decides",
        drift.tag, drift.digest
    )
}

/// What status says of the tag of the spec.
pub(super) fn known_drift(request: &Request) -> Option<TagDrift> {
    let reference = &request.intent.reference;
    let (tag, digest) = reference.tag.as_ref().zip(reference.digest.as_ref())?;
    let (known, names) = request.memory.tag_drift.as_ref()?;
    (known == tag && names != digest).then(|| TagDrift {
        tag: tag.to_string(),
        digest: names.to_string(),
    })
}

/// What `work` comes to, and what `aside` has come to by then.
async fn beside<T, U>(
    work: impl Future<Output = T>,
    aside: impl Future<Output = U>,
) -> (T, Option<U>) {
    let (mut work, mut aside) = (pin!(work), pin!(aside.fuse()));
    let mut seen = None;
    loop {
        tokio::select! {
            biased;
            told = &mut aside, if seen.is_none() => seen = Some(told),
            done = &mut work => return (done, seen),
        }
    }
}
