//! Apply: blobs first, then the manifests, then the proof that the registry lists them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, timeout_at};

use crate::api::Reason;
use crate::attachment::Attachment;
use crate::oci::{Descriptor, Digest, media_type};
use crate::registry::{FallbackChange, ListingSource, Locator, Session};

use super::failure::Failure;
use super::outcome::{Note, Severity};

/// One attachment to push.
#[derive(Debug, Clone)]
pub(super) struct Push {
    /// What it is attached to.
    pub subject: Descriptor,
    /// The manifest.
    pub attachment: Attachment,
    /// Its blobs beside the empty one.
    pub blobs: Vec<Bytes>,
    /// How this subject's referrers are listed.
    pub source: ListingSource,
    /// Whether an earlier read in this pass, or status, saw entries in the fallback tag.
    pub seen_before: bool,
}

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The registry lists it.
    Listed,
    /// The registry took it and does not list it yet.
    NotListedYet,
}

/// Pushes everything; one failure stops nothing else. Answers in the order of `pushes`.
pub(super) async fn push_all(
    session: &Session,
    pushes: &[Push],
    empty_is_there: bool,
    deadline: Instant,
    timed_out: &Failure,
) -> Vec<(Result<Pushed, Failure>, Vec<Note>)> {
    let mut wanted: BTreeMap<Digest, Bytes> =
        pushes.iter().flat_map(|push| &push.blobs).map(|bytes| (Digest::sha256(bytes), bytes.clone())).collect();
    if !empty_is_there {
        wanted.insert(Descriptor::empty().digest, Bytes::from_static(b"{}"));
    }
    let uploads = join_all(wanted.into_iter().map(|(digest, bytes)| async move {
        let answer = timeout_at(deadline, session.put_blob(bytes)).await;
        (digest, answer.map_err(|_| timed_out.clone()).and_then(|answer| answer.map_err(Failure::from)))
    }));
    let failed: BTreeMap<Digest, Failure> =
        uploads.await.into_iter().filter_map(|(digest, answer)| Some((digest, answer.err()?))).collect();
    let failed = &failed;
    join_all(pushes.iter().map(|push| async move {
        let mut notes = Vec::new();
        let needed = push.blobs.iter().map(|bytes| Digest::sha256(bytes)).chain([Descriptor::empty().digest]);
        if let Some(failure) = needed.into_iter().find_map(|digest| failed.get(&digest)) {
            return (Err(failure.clone()), notes);
        }
        let answer = timeout_at(deadline, push_one(session, push, &mut notes)).await;
        (answer.unwrap_or_else(|_| Err(timed_out.clone())), notes)
    }))
    .await
}

async fn push_one(session: &Session, push: &Push, notes: &mut Vec<Note>) -> Result<Pushed, Failure> {
    let digest = push.attachment.digest();
    let put = session.put_manifest(&Locator::Digest(digest.clone()), media_type::OCI_MANIFEST, push.attachment.bytes.clone()).await?;
    match push.source {
        ListingSource::Api if put.subject_acknowledged.as_ref() == Some(&push.subject.digest) => Ok(Pushed::Listed),
        ListingSource::Api => {
            let listing = session.referrers(&push.subject.digest, None).await?;
            let listed = listing.entries.iter().any(|entry| entry.digest() == Some(digest));
            Ok(if listed { Pushed::Listed } else { Pushed::NotListedYet })
        }
        ListingSource::FallbackTag => {
            let change = FallbackChange { add: vec![push.attachment.listed.clone()], remove: Vec::new() };
            let outcome = session.rewrite_fallback(&push.subject, change, push.seen_before).await?;
            notes.extend(outcome.dropped.iter().map(|dropped| Note {
                severity: Severity::Warning,
                reason: Reason::DanglingEntryDropped,
                message: format!(
                    "the fallback tag of {} listed {dropped}, which is gone from the registry; the entry was dropped",
                    push.subject.digest
                ),
            }));
            Ok(Pushed::Listed)
        }
    }
}
