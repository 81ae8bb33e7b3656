//! Signatures that are there already: which of them count, and which need not be read again. Reads only.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::Reason;
use crate::attachment::{Attachment, Created, Existing, Known, Listed, MOST_SIGNATURES, Observed};
use crate::signing::{self, Signer};
use affix_registry::oci::{Descriptor, Digest, ImageManifest, Manifest, annotation};
use affix_registry::{ErrorKind, ListingSource, Locator};

use super::failure::Failure;
use super::pass::Pass;

/// What the registry holds under a digest, as far as signing goes.
enum Found {
    /// One that counts.
    Equal(Existing, Box<Attachment>),
    /// Something else.
    Other,
    /// Nothing.
    Gone,
}

/// What was found beside the signatures that are listed.
#[derive(Default)]
pub(super) struct Unlisted {
    /// The signature that status knows, which the registry holds and does not list: pushed again, it is listed.
    pub(super) own: Option<Attachment>,
    /// What status says that this resource made, and the registry does not have.
    pub(super) absent: Vec<Digest>,
}

impl Pass<'_> {
    /// Finds the signatures among `entries` that count for the target. One that status knows is taken for what it was; the others
    /// cost two requests each.
    pub(super) async fn verify_signatures(
        &self,
        observed: &mut Observed,
        entries: &mut Vec<Descriptor>,
        source: ListingSource,
    ) -> Result<Unlisted, Failure> {
        let (Some(signer), Listed::Signature { content, .. }) = (self.signer(), &observed.wanted)
        else {
            return Ok(Unlisted::default());
        };
        let wanted = content.clone();
        let known = own_signature(&observed.known, &wanted)
            .filter(|known| !is_due(signer, known.created, self.now));
        let listed = known
            .clone()
            .filter(|known| entries.iter().any(|entry| entry.digest == known.digest));
        let mut gone = BTreeSet::new();
        let mut verified = Vec::new();
        let mut unlisted = Unlisted::default();
        let mut candidates = match &listed {
            Some(listed) => self.racing(signer, listed, entries),
            None => candidates(signer, entries),
        };
        let nominated = candidates.len();
        candidates.truncate(MOST_SIGNATURES);
        // Of the rest nobody reads a thing, and a listing is kept for the whole pass.
        let ours = |digest: &Digest| {
            observed.ours.contains(digest) || observed.known.attachment.as_ref() == Some(digest)
        };
        entries.retain(|entry| ours(&entry.digest) || candidates.contains(&entry.digest));
        for entry in entries.iter_mut() {
            *entry = Descriptor::plain(String::new(), entry.digest.clone(), entry.size);
        }
        entries.shrink_to_fit();
        let too_many = || {
            Err(Failure::new(
                Reason::LimitExceeded,
                format_args!(
                    "{} has {nominated} referrers of the type {} that might be equal, more than {MOST_SIGNATURES} to read, and none of \
                     those read is: remove some",
                    observed.subject.digest,
                    signer.shape().listed_artifact_type()
                ),
            ))
        };
        match listed {
            // A tag may list what is gone.
            Some(known)
                if source == ListingSource::FallbackTag
                    && !self.is_there(&known.digest).await? =>
            {
                unlisted.absent.push(known.digest.clone());
                gone.insert(known.digest);
            }
            Some(known) => verified.push(known),
            None => {
                if let Some(known) = known.filter(|_| observed.known.made) {
                    match self.find(signer, &observed.subject, &known.digest).await? {
                        Found::Equal(_, attachment) => unlisted.own = Some(*attachment),
                        Found::Gone => unlisted.absent.push(known.digest),
                        Found::Other => {}
                    }
                }
            }
        }
        let reads = candidates
            .iter()
            .map(|digest| self.find(signer, &observed.subject, digest));
        for (digest, found) in candidates.iter().zip(join_all(reads).await) {
            match found? {
                Found::Equal(existing, _) => verified.push(existing),
                Found::Other => {}
                Found::Gone => {
                    gone.insert(digest.clone());
                }
            }
        }
        // What was to be pushed with another key, or before it was due, and never came to be there.
        if let (Some(stale), true) = (observed.known.attachment.as_ref(), observed.known.made) {
            let is_listed = || entries.iter().any(|entry| entry.digest == *stale);
            if own_signature(&observed.known, &wanted)
                .is_none_or(|known| is_due(signer, known.created, self.now))
                && !is_listed()
                && !self.is_there(stale).await?
            {
                unlisted.absent.push(stale.clone());
            }
        }
        entries.retain(|entry| !gone.contains(&entry.digest));
        if nominated > candidates.len() && verified.is_empty() && unlisted.own.is_none() {
            return too_many();
        }
        if let Listed::Signature {
            verified: there, ..
        } = &mut observed.wanted
        {
            *there = verified;
        }
        Ok(unlisted)
    }

    /// Beside one that is known to be there, only what was made at about the same time can be another writer's equal one.
    fn racing(&self, signer: &dyn Signer, known: &Existing, entries: &[Descriptor]) -> Vec<Digest> {
        let window = SignedDuration::try_from(self.request.timeout).unwrap_or(SignedDuration::MAX);
        let near = |entry: &&Descriptor| {
            let created = entry
                .annotations
                .get(annotation::CREATED)
                .and_then(|text| text.parse::<Created>().ok());
            let apart = created
                .zip(known.created)
                .map(|(theirs, ours)| theirs.instant().duration_since(ours.instant()).abs());
            entry.digest != known.digest && apart.is_some_and(|apart| apart <= window)
        };
        in_order(
            entries
                .iter()
                .filter(near)
                .filter(|entry| could_be(signer, entry)),
        )
    }

    /// Whether the registry holds a manifest.
    pub(super) async fn is_there(&self, digest: &Digest) -> Result<bool, Failure> {
        match self.session.head(&Locator::Digest(digest.clone())).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a manifest and, where it is of the signer's shape, its layer.
    async fn find(
        &self,
        signer: &dyn Signer,
        subject: &Descriptor,
        digest: &Digest,
    ) -> Result<Found, Failure> {
        let fetched = match self
            .session
            .manifest(&Locator::Digest(digest.clone()))
            .await
        {
            Ok(fetched) => fetched,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Gone),
            Err(error) if error.kind() == ErrorKind::UnsupportedMediaType => {
                return Ok(Found::Other);
            }
            Err(error) => return Err(error.into()),
        };
        let Manifest::Image(manifest) = &fetched.manifest else {
            return Ok(Found::Other);
        };
        let [layer] = manifest.layers.as_slice() else {
            return Ok(Found::Other);
        };
        if !signer.shape().fits(manifest, &subject.digest) || layer.size > signing::LARGEST as u64 {
            return Ok(Found::Other);
        }
        let bytes = match self.session.blob(layer, layer.size).await {
            Ok(bytes) => bytes,
            // A signature without its envelope is none, and whoever made it did not finish.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Other),
            Err(error) => return Err(error.into()),
        };
        if !signer.is_equal(manifest, &bytes, subject, self.now) {
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
}

/// The attachment that status knows, where it was made for the same content.
fn own_signature(known: &Known, content: &Digest) -> Option<Existing> {
    let digest = known
        .attachment
        .clone()
        .filter(|_| known.content.as_ref() == Some(content))?;
    Some(Existing {
        digest,
        created: known.created,
    })
}

/// Whether a signature made at `created` is in the last third of its life at `now`.
pub(super) fn is_due(signer: &dyn Signer, created: Option<Created>, now: Timestamp) -> bool {
    let Some(renewal) = signer
        .renewal()
        .and_then(|renewal| SignedDuration::try_from(renewal).ok())
    else {
        return false;
    };
    created.is_none_or(|created| {
        created
            .instant()
            .checked_add(renewal)
            .is_ok_and(|due| due <= now)
    })
}

/// What a listing nominates: entries of the signer's type, or of none, whose annotations do not contradict its shape.
fn candidates(signer: &dyn Signer, entries: &[Descriptor]) -> Vec<Digest> {
    in_order(entries.iter().filter(|entry| could_be(signer, entry)))
}

/// The newest first: where not all can be read, those are most likely to be made with the present key.
fn in_order<'a>(candidates: impl Iterator<Item = &'a Descriptor>) -> Vec<Digest> {
    let created = |entry: &Descriptor| {
        entry
            .annotations
            .get(annotation::CREATED)
            .and_then(|text| text.parse::<Created>().ok())
    };
    let mut ordered: Vec<_> = candidates
        .map(|entry| (Reverse(created(entry)), entry.digest.clone()))
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
    entry.could_be_of(shape.listed_artifact_type())
        && listed
            .into_iter()
            .all(|(key, value)| shape.annotations.get(key) == Some(value))
}

fn created(manifest: &ImageManifest) -> Option<Created> {
    manifest.annotations.get(annotation::CREATED)?.parse().ok()
}

/// How a listing shows a manifest that was read.
fn listed_as(fetched: &Descriptor, manifest: &ImageManifest) -> Descriptor {
    Descriptor {
        artifact_type: manifest.effective_artifact_type().to_owned(),
        annotations: manifest.annotations.clone(),
        ..fetched.stripped()
    }
}
