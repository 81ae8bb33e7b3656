//! The referrers of each target, with the manifests that the listings leave open.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::identity;
use std::time::Duration;

use futures::future::join_all;

use crate::api::{Reason, SupportedMode};
use crate::attachment::{
    DesiredContent, MAX_CANDIDATES, Observed, condensed, is_found, proven, to_fetch,
};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::report::remarks::ListingSize;
use affix_registry::oci::{Descriptor, Digest, ImageManifest, Manifest};
use affix_registry::{ErrorKind, ListingSource};

use super::prefetch::{Prefetch, type_filter};
use super::resolve;
use super::signatures::{self, Unlisted};

/// The desired attachment of one target.
pub(in crate::engine) struct DesiredTarget {
    /// The position of its record.
    pub(in crate::engine) position: usize,
    pub(in crate::engine) subject: Descriptor,
    pub(in crate::engine) wanted: DesiredContent,
}

/// One selected target with its referrers.
pub(in crate::engine) struct Target {
    /// The input of the plan.
    pub(in crate::engine) observed: Observed,
    /// The source of the listing.
    pub(in crate::engine) source: ListingSource,
    /// The position of its record.
    pub(in crate::engine) position: usize,
    /// The hash of the desired content.
    pub(in crate::engine) content: Digest,
    /// Signatures of this resource that the listing does not show.
    pub(in crate::engine) unlisted: Unlisted,
    pub(in crate::engine) size: ListingSize,
    /// The delay that the registry asked for, if the listing failed.
    pub(in crate::engine) retry_after: Option<Duration>,
}

/// The result of a listing beside its entries.
struct Found {
    source: ListingSource,
    unlisted: Unlisted,
    size: ListingSize,
}

/// Lists the referrers of every target and reads the manifests that the listings leave open. A failure belongs to its target.
pub(in crate::engine) async fn observe(
    context: &Context<'_>,
    prefetch: &Prefetch,
    wanted: Vec<DesiredTarget>,
) -> Vec<Target> {
    let owned = &context.request.previous.owned();
    join_all(wanted.into_iter().map(|desired| async move {
        let DesiredTarget {
            position,
            subject,
            wanted,
        } = desired;
        let mut observed = Observed {
            known: context.request.previous.last_applied(&subject.digest),
            ours: owned.get(&subject.digest).cloned().unwrap_or_default(),
            subject,
            wanted,
            listing: Ok(Vec::new()),
            fetched: BTreeMap::new(),
        };
        let listing = context
            .in_time(list(context, prefetch, &mut observed))
            .await
            .and_then(identity);
        let (found, retry_after) = match listing {
            Ok(found) => (found, None),
            Err(failure) => {
                observed.listing = Err(failure.problem);
                let found = Found {
                    source: ListingSource::Api,
                    unlisted: Unlisted::default(),
                    size: ListingSize::default(),
                };
                (found, failure.retry_after)
            }
        };
        Target {
            content: hash(&observed.wanted),
            observed,
            source: found.source,
            position,
            unlisted: found.unlisted,
            size: found.size,
            retry_after,
        }
    }))
    .await
}

async fn list(
    context: &Context<'_>,
    prefetch: &Prefetch,
    observed: &mut Observed,
) -> Result<Found, Failure> {
    // Earlier attachments of this resource may have another type, which a filter would hide.
    let last = &observed.known;
    let would_hide = observed
        .ours
        .iter()
        .any(|own| last.attachment.as_ref() != Some(own))
        || (!observed.ours.is_empty() && last.content.as_ref() != Some(&hash(&observed.wanted)));
    let subject = &observed.subject.digest;
    let listing = match prefetch.take(subject).await {
        Some(listing) => listing?,
        None => {
            context
                .session
                .referrers(subject, type_filter(context, would_hide))
                .await?
        }
    };
    let mut size = ListingSize {
        referrers: listing.total,
        filtered: listing.filtered,
        unread: 0,
    };
    let mut entries = listing.entries;
    let unlisted = match &observed.wanted {
        DesiredContent::Signature { .. } => {
            signatures::verify(context, observed, &mut entries, listing.source).await?
        }
        DesiredContent::Content { .. } => {
            size.unread = read_open(context, observed, &mut entries, listing.source).await?;
            Unlisted::default()
        }
    };
    observed.listing = Ok(entries);
    Ok(Found {
        source: listing.source,
        unlisted,
        size,
    })
}

/// Reads the manifests that the listing leaves open, up to the limit, and drops entries whose manifest is gone. Returns the number of
/// manifests that were not read.
async fn read_open(
    context: &Context<'_>,
    observed: &mut Observed,
    entries: &mut Vec<Descriptor>,
    source: ListingSource,
) -> Result<usize, Failure> {
    let DesiredContent::Content { content, mark } = &observed.wanted else {
        return Ok(0);
    };
    let mut open = to_fetch(content, mark.as_ref(), &observed.subject, entries);
    let candidates = open.len();
    open.truncate(MAX_CANDIDATES);
    let kept: BTreeSet<Digest> = observed
        .ours
        .iter()
        .chain(&observed.known.attachment)
        .cloned()
        .collect();
    *entries = condensed(
        content,
        mark.as_ref(),
        &observed.subject,
        &open,
        &kept,
        context.now,
        std::mem::take(entries),
    );
    let mut gone = Vec::new();
    for (descriptor, manifest) in read_candidates(context, &open).await? {
        match manifest {
            Some(manifest) => {
                observed.fetched.insert(descriptor.digest, manifest);
            }
            None => gone.push(descriptor.digest),
        }
    }
    if source == ListingSource::FallbackTag {
        // A fallback tag may list manifests that are gone.
        let listed = proven(content, &observed.subject, entries);
        let checks = listed
            .iter()
            .map(|digest| signatures::exists(context, digest));
        for (digest, exists) in listed.iter().zip(join_all(checks).await) {
            if !exists? {
                gone.push(digest.clone());
            }
        }
    }
    entries.retain(|entry| !gone.contains(&entry.digest));
    let unread = candidates - open.len();
    if unread > 0 && !is_found(content, &observed.subject, entries, &observed.fetched) {
        return Err(Failure::new(
            Reason::LimitExceeded,
            format_args!(
                "{} has {candidates} referrers of the type {} that might be equal, more than {MAX_CANDIDATES} to read, and none of \
                 those read is: remove some",
                observed.subject.digest, content.artifact_type
            ),
        ));
    }
    Ok(unread)
}

/// Reads candidates. The manifest is `None` if it is listed and gone. Candidates that are not image manifests are left out.
pub(in crate::engine) async fn read_candidates(
    context: &Context<'_>,
    candidates: &[Descriptor],
) -> Result<Vec<(Descriptor, Option<ImageManifest>)>, Failure> {
    let digests = candidates.iter().map(|descriptor| &descriptor.digest);
    let answers = resolve::manifests(context.session, digests).await;
    let mut read = Vec::new();
    for (descriptor, answer) in candidates.iter().zip(answers) {
        match answer {
            Ok(fetched) => match fetched.manifest {
                Manifest::Image(manifest) => read.push((descriptor.clone(), Some(manifest))),
                Manifest::Index(_) => {}
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                read.push((descriptor.clone(), None));
            }
            Err(error) if error.kind() == ErrorKind::UnsupportedMediaType => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}

/// Returns the hash of the desired content.
fn hash(wanted: &DesiredContent) -> Digest {
    match wanted {
        DesiredContent::Content { content, .. } => content.hash(),
        DesiredContent::Signature { content, .. } => content.clone(),
    }
}

/// Returns the mode for `status.referrersMode`.
pub(in crate::engine) const fn mode(source: ListingSource) -> SupportedMode {
    match source {
        ListingSource::Api => SupportedMode::Api,
        ListingSource::FallbackTag => SupportedMode::TagSchema,
    }
}
