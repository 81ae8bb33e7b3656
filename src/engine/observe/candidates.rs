//! Reads candidates: the manifests of referrers that a listing leaves open.
//!
//! Candidates are read in waves, so that memory and concurrency stay bounded while any number of them is read
//! (docs/decisions/0089). Their bytes do not count toward `--max-pass-bytes`.

use std::collections::BTreeSet;

use futures::future::join_all;

use crate::attachment::{
    Candidate, DesiredContent, FetchedReferrer, Observed, condensed, proven, to_fetch,
};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::request::build::Mode;
use affix_registry::oci::{Descriptor, Digest, ImageManifest, Manifest};
use affix_registry::{ErrorKind, ListingSource, Locator, Session};

use super::resolve;

/// The number of manifests of one subject that are read at once.
pub(in crate::engine) const WAVE: usize = 8;

/// Reads the manifests that the listing leaves open and drops entries whose manifest is gone. After the first wave it stops once an equal
/// attachment is found and no other candidate can outrank it. A pass that detaches reads all of them. Returns the number of manifests that were not read.
pub(in crate::engine) async fn read_open(
    context: &Context<'_>,
    observed: &mut Observed,
    entries: &mut Vec<Descriptor>,
    source: ListingSource,
) -> Result<usize, Failure> {
    let DesiredContent::Content { content, mark } = &observed.wanted else {
        return Ok(0);
    };
    let (mark, subject) = (mark.as_ref(), &observed.subject);
    let kept: BTreeSet<Digest> = observed
        .ours
        .iter()
        .chain(&observed.known.attachment)
        .cloned()
        .collect();
    let mut open = to_fetch(content, mark, subject, &kept, entries);
    let candidates = open.len();
    *entries = condensed(
        content,
        mark,
        subject,
        &open,
        &kept,
        context.now,
        std::mem::take(entries),
    );
    let mut listed = proven(content, subject, entries);
    let mut gone = match source {
        // A fallback tag may list manifests that are gone.
        ListingSource::FallbackTag => absent(context, &listed).await?,
        ListingSource::Api => BTreeSet::new(),
    };
    listed.retain(|digest| !gone.contains(digest));
    let mut is_found = !listed.is_empty();
    let mut read = 0;
    loop {
        // The first wave is always read: two writers that both made an equal attachment converge on the earliest.
        if is_found && read > 0 && context.request.mode != Mode::Detach {
            open.retain(|candidate| candidate.may_outrank);
        }
        let wave: Vec<Digest> = open
            .drain(..WAVE.min(open.len()))
            .map(|Candidate { digest, .. }| digest)
            .collect();
        if wave.is_empty() {
            break;
        }
        read += wave.len();
        for (digest, manifest) in read_wave(context.session, &wave).await? {
            let Some(manifest) = manifest else {
                gone.insert(digest);
                continue;
            };
            let referrer = FetchedReferrer::new(content, mark, &subject.digest, &manifest);
            is_found |= referrer.is_equal;
            observed.fetched.insert(digest, referrer);
        }
    }
    entries.retain(|entry| !gone.contains(&entry.digest));
    Ok(candidates - read)
}

/// Returns the manifests that the registry does not have.
async fn absent(context: &Context<'_>, digests: &[Digest]) -> Result<BTreeSet<Digest>, Failure> {
    let mut absent = BTreeSet::new();
    for wave in digests.chunks(WAVE) {
        let checks = wave.iter().map(|digest| exists(context, digest));
        for (digest, exists) in wave.iter().zip(join_all(checks).await) {
            if !exists? {
                absent.insert(digest.clone());
            }
        }
    }
    Ok(absent)
}

/// Returns whether the registry holds a manifest.
pub(in crate::engine) async fn exists(
    context: &Context<'_>,
    digest: &Digest,
) -> Result<bool, Failure> {
    match context.session.head(&Locator::Digest(digest.clone())).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Reads all candidates concurrently. The manifest is `None` if it is listed and gone. Candidates that are not image manifests are left
/// out.
pub(in crate::engine) async fn read_wave(
    session: &Session,
    candidates: &[Digest],
) -> Result<Vec<(Digest, Option<ImageManifest>)>, Failure> {
    let answers = resolve::manifests(&session.uncounted(), candidates.iter()).await;
    let mut read = Vec::new();
    for (digest, answer) in candidates.iter().zip(answers) {
        match answer {
            Ok(fetched) => match fetched.manifest {
                Manifest::Image(manifest) => read.push((digest.clone(), Some(manifest))),
                Manifest::Index(_) => {}
            },
            Err(error) if error.kind() == ErrorKind::NotFound => read.push((digest.clone(), None)),
            Err(error) if error.kind() == ErrorKind::UnsupportedMediaType => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}
