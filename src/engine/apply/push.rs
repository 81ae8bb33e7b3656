//! Pushes attachments: blobs first, then the manifests, then the proof that the registry lists them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all, try_join_all};
use tokio::time::{Instant, sleep, timeout_at};

use crate::api::Reason;
use crate::attachment::{Attachment, Created};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::report::event::PassEvent;
use crate::signing::TagSignature;
use affix_registry::oci::{Descriptor, Digest, annotation, media_type};
use affix_registry::{ListingSource, Locator, RegistryError, Session, TagChange};

/// The delay before a listing that lags is read again. It doubles up to [`MAX_LISTING_DELAY`].
const LISTING_DELAY: Duration = Duration::from_millis(250);

const MAX_LISTING_DELAY: Duration = Duration::from_secs(5);

/// One attachment to push.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Push {
    /// The manifest that it is attached to.
    pub(in crate::engine) subject: Descriptor,
    pub(in crate::engine) created: Created,
    pub(in crate::engine) content: PushContent,
    /// True if this pass or status has seen entries in the fallback tag or the signature tag.
    pub(in crate::engine) seen_before: bool,
}

/// The content of a push.
#[derive(Debug, Clone)]
pub(in crate::engine) enum PushContent {
    /// A referrer.
    Referrer {
        /// The manifest to push.
        attachment: Attachment,
        /// Its blobs, without the empty blob.
        blobs: Vec<Bytes>,
        /// The source of the subject's listing.
        source: ListingSource,
    },
    /// A layer of the signature tag.
    Layer(TagSignature),
}

impl PushContent {
    /// Returns the digest of the manifest, or the identity of the signature.
    pub(in crate::engine) fn id(&self) -> Digest {
        match self {
            Self::Referrer { attachment, .. } => attachment.digest().clone(),
            Self::Layer(signature) => signature.layer.id(),
        }
    }

    /// Returns the creation time in the manifest.
    pub(in crate::engine) fn created(&self) -> Option<Created> {
        let Self::Referrer { attachment, .. } = self else {
            return None;
        };
        let annotations = &attachment.listed.annotations;
        annotations.get(annotation::CREATED)?.parse().ok()
    }

    fn blobs(&self) -> &[Bytes] {
        match self {
            Self::Referrer { blobs, .. } => blobs,
            Self::Layer(_) => &[],
        }
    }
}

/// The result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Pushed {
    /// The registry lists it.
    DesiredContent,
    /// The registry accepted it and does not list it yet.
    NotListedYet,
}

/// The result of an upload that runs concurrently with other work.
pub(in crate::engine) type Upload<'a> = Shared<BoxFuture<'a, Result<(), Failure>>>;

/// Pushes all attachments concurrently. A failure stops no other push. Returns the results in the order of `pushes`.
pub(in crate::engine) async fn push_all(
    context: &Context<'_>,
    pushes: &[Push],
    empty: Upload<'_>,
) -> Vec<(Result<Pushed, Failure>, Vec<PassEvent>)> {
    let (session, deadline) = (context.session, context.deadline);
    let wait_until = context.options.wait_until_listed.then_some(deadline);
    let timed_out = &context.timed_out();
    let blobs: BTreeMap<Digest, Bytes> = pushes
        .iter()
        .flat_map(|push| push.content.blobs())
        .map(|bytes| (Digest::sha256(bytes), bytes.clone()))
        .collect();
    let uploads = blobs.into_iter().map(|(digest, bytes)| {
        let upload = async move {
            let answer = timeout_at(deadline, session.put_blob(bytes)).await;
            answer
                .map_err(|_| timed_out.clone())
                .and_then(|answer| answer.map(drop).map_err(Failure::from))
        };
        (digest, upload.boxed().shared())
    });
    // Each manifest waits for its own blobs. Manifests may share blobs.
    let uploads: BTreeMap<Digest, Upload<'_>> = uploads
        .chain([(Descriptor::empty().digest, empty.boxed().shared())])
        .collect();
    let uploads = &uploads;
    join_all(pushes.iter().map(|push| async move {
        let mut events = Vec::new();
        let is_referrer = matches!(push.content, PushContent::Referrer { .. });
        let needed = push
            .content
            .blobs()
            .iter()
            .map(|bytes| Digest::sha256(bytes))
            .chain(is_referrer.then(|| Descriptor::empty().digest));
        let results = join_all(needed.filter_map(|digest| uploads.get(&digest).cloned())).await;
        if let Some(failure) = results.into_iter().find_map(Result::err) {
            return (Err(failure), events);
        }
        let answer = timeout_at(
            deadline,
            push_one(session, push, wait_until, &mut events).boxed(),
        )
        .await;
        (answer.unwrap_or_else(|_| Err(timed_out.clone())), events)
    }))
    .await
}

/// Returns whether the registry rejected a manifest for a missing blob, although it reported the blob as present before.
fn lacks_blobs(error: &RegistryError) -> bool {
    let codes = error
        .answer()
        .map(|answer| answer.codes.as_slice())
        .unwrap_or_default();
    codes
        .iter()
        .any(|code| matches!(code.as_str(), "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN"))
}

async fn push_one(
    session: &Session,
    push: &Push,
    wait_until: Option<Instant>,
    events: &mut Vec<PassEvent>,
) -> Result<Pushed, Failure> {
    let (attachment, blobs, source) = match &push.content {
        PushContent::Referrer {
            attachment,
            blobs,
            source,
        } => (attachment, blobs, source),
        PushContent::Layer(signature) => return push_layer(session, push, signature, events).await,
    };
    let digest = attachment.digest();
    let at = Locator::Digest(digest.clone());
    let put_once = || session.put_manifest(&at, media_type::OCI_MANIFEST, attachment.bytes.clone());
    let put = async {
        match put_once().await {
            Err(error) if lacks_blobs(&error) => {
                let blobs = blobs.iter().cloned().chain([Bytes::from_static(b"{}")]);
                try_join_all(blobs.map(|bytes| session.put_blob(bytes))).await?;
                put_once().await
            }
            other => other,
        }
    };
    match source {
        ListingSource::Api => {
            if put.await?.subject_acknowledged.as_ref() == Some(&push.subject.digest) {
                return Ok(Pushed::DesiredContent);
            }
            read_back(session, &push.subject.digest, digest, wait_until).await
        }
        ListingSource::FallbackTag => {
            let change = TagChange {
                add: vec![attachment.listed.clone()],
                remove: Vec::new(),
            };
            let put = async { put.await.map(drop) };
            let outcome = session
                .rewrite_fallback_after(put, &push.subject, change, push.seen_before)
                .await?;
            events.extend(outcome.dropped.iter().map(|dropped| {
                let message = format!(
                    "the fallback tag of {} listed {dropped}, which is gone from the registry; the entry was dropped",
                    push.subject.digest
                );
                PassEvent::warning(Reason::DanglingEntryDropped, message)
            }));
            Ok(Pushed::DesiredContent)
        }
    }
}

/// Adds a layer to the signature tag.
async fn push_layer(
    session: &Session,
    push: &Push,
    signature: &TagSignature,
    events: &mut Vec<PassEvent>,
) -> Result<Pushed, Failure> {
    let subject = &push.subject.digest;
    let text = Bytes::from(signature.text.clone());
    let upload = async { session.put_blob(text).await.map(drop) };
    let change = TagChange {
        add: vec![signature.layer.descriptor.clone()],
        remove: Vec::new(),
    };
    let outcome = session
        .rewrite_signatures_after(upload, subject, change, push.seen_before)
        .await?;
    events.extend(outcome.dropped.iter().map(|dropped| {
        let message = format!(
            "the signature tag of {subject} listed the signature {dropped}, whose text is gone from the registry; the entry was dropped"
        );
        PassEvent::warning(Reason::DanglingEntryDropped, message)
    }));
    Ok(Pushed::DesiredContent)
}

/// Reads the listing of a registry that did not acknowledge the subject. With `wait_until` it reads again until the attachment is listed or
/// that time is near.
async fn read_back(
    session: &Session,
    subject: &Digest,
    attachment: &Digest,
    wait_until: Option<Instant>,
) -> Result<Pushed, Failure> {
    let mut delay = LISTING_DELAY;
    loop {
        let started = Instant::now();
        let listing = session.referrers(subject, None).await?;
        if listing
            .entries
            .iter()
            .any(|entry| entry.digest == *attachment)
        {
            return Ok(Pushed::DesiredContent);
        }
        // The next listing takes about as long as the last one and must end before the deadline.
        let next = Instant::now() + delay + started.elapsed() * 2;
        if wait_until.is_none_or(|deadline| next >= deadline) {
            return Ok(Pushed::NotListedYet);
        }
        sleep(delay).await;
        delay = (delay * 2).min(MAX_LISTING_DELAY);
    }
}
