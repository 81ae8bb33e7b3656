//! Existing signatures: verifies the listed candidates and looks for unlisted ones.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::jiff::SignedDuration;

use crate::attachment::{Attachment, Created, DesiredContent, Existing, LastApplied, Observed};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::request::build::Mode;
use crate::engine::request::signing_key::needs_renewal;
use crate::signing::Signer;
use affix_registry::oci::{Descriptor, Digest, ImageManifest, Manifest, annotation};
use affix_registry::{ErrorKind, ListingSource, Locator};

use super::candidates::exists;

/// The number of signatures of one subject that are read at once. Each takes two requests.
const WAVE: usize = 20;

/// The manifest under a digest.
enum Found {
    /// An equal signature.
    Equal(Existing, Box<Attachment>),
    /// Another manifest.
    Other,
    /// No manifest.
    Gone,
}

/// Signatures of this resource that the listing does not show.
#[derive(Default)]
pub(in crate::engine) struct Unlisted {
    /// The last applied signature, which the registry holds and does not list. A second push lists it.
    pub(in crate::engine) own: Option<Attachment>,
    /// Attachments in status that the registry does not have.
    pub(in crate::engine) absent: Vec<Digest>,
}

/// Finds the signatures among `entries` that are equal to the desired one. The last applied signature is not read again. Other candidates
/// are read in waves until one is equal; a pass that detaches reads all of them.
pub(in crate::engine) async fn verify(
    context: &Context<'_>,
    signer: Option<&dyn Signer>,
    observed: &mut Observed,
    entries: &mut Vec<Descriptor>,
    source: ListingSource,
) -> Result<Unlisted, Failure> {
    let DesiredContent::Signature { content, .. } = &observed.wanted else {
        return Ok(Unlisted::default());
    };
    let is_due = |last: &Existing| {
        signer.is_some_and(|signer| needs_renewal(signer, last.created, context.now))
    };
    let valid = last_signature(&observed.known, content).filter(|last| !is_due(last));
    let listed = valid
        .clone()
        .filter(|last| entries.iter().any(|entry| entry.digest == last.digest));
    let candidates = match (&listed, signer) {
        (Some(listed), Some(signer)) => {
            let known = context.request.previous.target(&observed.subject.digest);
            let is_known = |digest: &Digest| known.is_some_and(|known| known.shows(digest));
            concurrent_candidates(context, signer, listed, entries, is_known)
        }
        (None, Some(signer)) => candidates(signer, entries),
        (_, None) => Vec::new(),
    };
    shrink(observed, entries, &candidates);
    let mut gone = BTreeSet::new();
    let mut verified = Vec::new();
    let mut unlisted = Unlisted::default();
    match (listed, signer.and(valid.as_ref())) {
        // A fallback tag may list a manifest that is gone.
        (Some(last), _)
            if source == ListingSource::FallbackTag && !exists(context, &last.digest).await? =>
        {
            unlisted.absent.push(last.digest.clone());
            gone.insert(last.digest);
        }
        (Some(last), _) => verified.push(last),
        (None, Some(last)) if observed.known.made => {
            match read(context, signer, &observed.subject, &last.digest).await? {
                Found::Equal(_, attachment) => unlisted.own = Some(*attachment),
                Found::Gone => unlisted.absent.push(last.digest.clone()),
                Found::Other => {}
            }
        }
        (None, _) => {}
    }
    for wave in candidates.chunks(WAVE) {
        let reads = wave
            .iter()
            .map(|digest| read(context, signer, &observed.subject, digest));
        for (digest, found) in wave.iter().zip(join_all(reads).await) {
            match found? {
                Found::Equal(existing, _) => verified.push(existing),
                Found::Other => {}
                Found::Gone => {
                    gone.insert(digest.clone());
                }
            }
        }
        if !verified.is_empty() && context.request.mode != Mode::Detach {
            break;
        }
    }
    // A signature with an earlier key, or one that is due for renewal, may never have been pushed.
    if let (Some(stale), true, None) = (&observed.known.attachment, observed.known.made, &valid)
        && !entries.iter().any(|entry| entry.digest == *stale)
        && !exists(context, stale).await?
    {
        unlisted.absent.push(stale.clone());
    }
    entries.retain(|entry| !gone.contains(&entry.digest));
    if let DesiredContent::Signature {
        verified: equal, ..
    } = &mut observed.wanted
    {
        *equal = verified;
    }
    Ok(unlisted)
}

/// Drops the entries and fields that the rest of the pass does not read, since a listing is held for the whole pass.
fn shrink(observed: &Observed, entries: &mut Vec<Descriptor>, candidates: &[Digest]) {
    let is_own = |digest: &Digest| {
        observed.ours.contains(digest) || observed.known.attachment.as_ref() == Some(digest)
    };
    entries.retain(|entry| is_own(&entry.digest) || candidates.contains(&entry.digest));
    for entry in entries.iter_mut() {
        *entry = Descriptor::plain(String::new(), entry.digest.clone(), entry.size);
    }
    entries.shrink_to_fit();
}

/// Returns the candidates beside a listed signature of this resource. Another writer's equal one was made at about the same time.
fn concurrent_candidates(
    context: &Context<'_>,
    signer: &dyn Signer,
    last: &Existing,
    entries: &[Descriptor],
    is_known: impl Fn(&Digest) -> bool,
) -> Vec<Digest> {
    let window = SignedDuration::try_from(context.request.timeout).unwrap_or(SignedDuration::MAX);
    let is_near = |entry: &&Descriptor| {
        let apart = listed_created(entry)
            .zip(last.created)
            .map(|(theirs, ours)| theirs.instant().duration_since(ours.instant()).abs());
        !is_known(&entry.digest)
            && entry.digest != last.digest
            && apart.is_some_and(|apart| apart <= window)
    };
    newest_first(
        entries
            .iter()
            .filter(is_near)
            .filter(|entry| could_be(signer, entry)),
    )
}

/// Reads a manifest and, if it has the signer's shape, its layer.
async fn read(
    context: &Context<'_>,
    signer: Option<&dyn Signer>,
    subject: &Descriptor,
    digest: &Digest,
) -> Result<Found, Failure> {
    let Some(signer) = signer else {
        return Ok(Found::Other);
    };
    let session = context.session.uncounted();
    let fetched = match session.manifest(&Locator::Digest(digest.clone())).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Gone),
        Err(error) if error.kind() == ErrorKind::UnsupportedMediaType => return Ok(Found::Other),
        Err(error) => return Err(error.into()),
    };
    let Manifest::Image(manifest) = &fetched.manifest else {
        return Ok(Found::Other);
    };
    let [layer] = manifest.layers.as_slice() else {
        return Ok(Found::Other);
    };
    if !signer.shape().fits(manifest, &subject.digest)
        || layer.size > signer.shape().max_layer_bytes
    {
        return Ok(Found::Other);
    }
    let bytes = match session.blob(layer, layer.size).await {
        Ok(bytes) => bytes,
        // A signature without its envelope is incomplete.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Other),
        Err(error) => return Err(error.into()),
    };
    if !signer.is_equal(manifest, &bytes, subject, context.now) {
        return Ok(Found::Other);
    }
    let existing = Existing {
        digest: digest.clone(),
        created: created(manifest),
    };
    let attachment = Attachment {
        bytes: fetched.bytes.clone(),
        listed: listed_as(&fetched.descriptor(), manifest),
    };
    Ok(Found::Equal(existing, Box::new(attachment)))
}

/// Returns the last applied attachment if it has the same content.
fn last_signature(known: &LastApplied, content: &Digest) -> Option<Existing> {
    let digest = known
        .attachment
        .clone()
        .filter(|_| known.content.as_ref() == Some(content))?;
    Some(Existing {
        digest,
        created: known.created,
    })
}

/// Returns the candidates of a listing: entries of the signer's type, or without a type, whose annotations fit its shape.
fn candidates(signer: &dyn Signer, entries: &[Descriptor]) -> Vec<Digest> {
    newest_first(entries.iter().filter(|entry| could_be(signer, entry)))
}

/// Sorts candidates, the newest first: these are most likely made with the current key if not all can be read.
fn newest_first<'a>(candidates: impl Iterator<Item = &'a Descriptor>) -> Vec<Digest> {
    let mut ordered: Vec<_> = candidates
        .map(|entry| (Reverse(listed_created(entry)), entry.digest.clone()))
        .collect();
    ordered.sort();
    ordered.dedup();
    ordered.into_iter().map(|(_, digest)| digest).collect()
}

fn could_be(signer: &dyn Signer, entry: &Descriptor) -> bool {
    let shape = signer.shape();
    let listed = entry
        .annotations
        .iter()
        .filter(|(key, _)| *key != annotation::CREATED);
    entry.may_have_type(shape.listed_artifact_type())
        && listed
            .into_iter()
            .all(|(key, value)| shape.annotations.get(key) == Some(value))
}

fn listed_created(entry: &Descriptor) -> Option<Created> {
    entry.annotations.get(annotation::CREATED)?.parse().ok()
}

fn created(manifest: &ImageManifest) -> Option<Created> {
    manifest.annotations.get(annotation::CREATED)?.parse().ok()
}

/// Returns the descriptor of a manifest in a listing.
fn listed_as(fetched: &Descriptor, manifest: &ImageManifest) -> Descriptor {
    Descriptor {
        artifact_type: manifest.effective_artifact_type().to_owned(),
        annotations: manifest.annotations.clone(),
        ..fetched.stripped()
    }
}
