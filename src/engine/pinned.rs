//! The tag beside a digest. The digest decides, so the tag is only told of: no pass waits for it, or fails with it.

use std::future::Future;
use std::pin::pin;

use futures::FutureExt as _;

use crate::api::Reason;
use affix_registry::oci::{Digest, Tag};
use affix_registry::{ErrorKind, Locator};

use super::outcome::{Note, Outcome, Severity};
use super::pass::{Pass, Request};

impl Pass<'_> {
    /// What is to be said of the tag of a `tag@digest`.
    pub(super) async fn ask_of_tag(&self) -> Option<String> {
        let (tag, digest) = pinned(self.request)?;
        match self
            .in_time(self.session.head(&Locator::Tag(tag.clone())))
            .await
        {
            Ok(Ok(head)) => note(tag, digest, &head.digest),
            // That the tag is gone is no move.
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => None,
            Ok(Err(_)) | Err(_) => said_before(self.request),
        }
    }

    /// Does `work` and asks for the tag beside it; what the registry has not told of the tag by the end of the work is as before.
    pub(super) async fn telling_of_tag<E>(
        &self,
        work: impl Future<Output = Result<Outcome, E>>,
    ) -> Result<Outcome, E> {
        let (done, said) = beside(work, self.ask_of_tag()).await;
        let mut outcome = done?;
        if let (Ok(words), Some(said)) = (
            &mut outcome.resolved,
            said.unwrap_or_else(|| said_before(self.request)),
        ) {
            outcome.notes.extend(news(self.request, &said));
            words.insert(0, said);
        }
        Ok(outcome)
    }
}

/// An event, where Resolved did not say so before.
pub(super) fn news(request: &Request, said: &str) -> Option<Note> {
    let note = || Note {
        severity: Severity::Normal,
        reason: Reason::TagMoved,
        message: said.to_owned(),
    };
    (!request.memory.resolved.contains(said)).then(note)
}

fn pinned(request: &Request) -> Option<(&Tag, &Digest)> {
    let reference = &request.intent.reference;
    reference.tag.as_ref().zip(reference.digest.as_ref())
}

fn note(tag: &Tag, digest: &Digest, names: &Digest) -> Option<String> {
    (names != digest)
        .then(|| format!("the tag {tag} names {names} by now; the digest in image decides"))
}

fn said_before(request: &Request) -> Option<String> {
    let (tag, digest) = pinned(request)?;
    let (_, after) = request
        .memory
        .resolved
        .split_once(&format!("the tag {tag} names "))?;
    note(tag, digest, &after.split_whitespace().next()?.parse().ok()?)
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
