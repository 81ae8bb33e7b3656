//! The referrers of each target, with the manifests that the listings leave open.

use std::collections::BTreeMap;
use std::convert::identity;
use std::time::Duration;

use futures::future::join_all;

use crate::api::{SignatureFormat, SupportedMode};
use crate::attachment::{DesiredContent, Observed};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::report::remarks::ListingSize;
use affix_registry::ListingSource;
use affix_registry::oci::{Descriptor, Digest, media_type};

use super::candidates;
use super::found::Found;
use super::prefetch::{Prefetch, type_filter};
use super::signature_tag;
use super::signatures::{self, Unlisted};

/// The desired attachment of one target.
pub(in crate::engine) struct DesiredTarget {
    /// The position of its record.
    pub(in crate::engine) position: usize,
    pub(in crate::engine) format: SignatureFormat,
    pub(in crate::engine) subject: Descriptor,
    pub(in crate::engine) wanted: DesiredContent,
}

/// One selected target with its referrers, or with the layers of its signature tag.
pub(in crate::engine) struct Target {
    pub(in crate::engine) format: SignatureFormat,
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

impl Target {
    /// Returns whether the attachment is a referrer.
    pub(in crate::engine) fn is_referrer(&self) -> bool {
        self.format == SignatureFormat::Bundle
    }
}

/// Lists the referrers of every target and reads the manifests that the listings leave open. A failure belongs to its target.
pub(in crate::engine) async fn observe(
    context: &Context<'_>,
    prefetch: &Prefetch,
    wanted: Vec<DesiredTarget>,
) -> Vec<Target> {
    let previous = &context.request.previous;
    join_all(wanted.into_iter().map(|desired| async move {
        let DesiredTarget {
            position,
            format,
            subject,
            wanted,
        } = desired;
        let mut observed = Observed {
            known: previous.last_applied(&subject.digest, format),
            ours: previous.owned_in(&subject.digest, format),
            subject,
            wanted,
            listing: Ok(Vec::new()),
            fetched: BTreeMap::new(),
        };
        let list = async {
            match format {
                SignatureFormat::Bundle => list(context, prefetch, &mut observed).await,
                SignatureFormat::Tag => signature_tag::read(context, &mut observed).await,
            }
        };
        let listing = context.in_time(list).await.and_then(identity);
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
            format,
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
        bundles: listing
            .entries
            .iter()
            .filter(|entry| entry.listed_type() == Some(media_type::SIGSTORE_BUNDLE))
            .count(),
    };
    let mut entries = listing.entries;
    let unlisted = match &observed.wanted {
        DesiredContent::Signature { .. } => {
            signatures::verify(context, observed, &mut entries, listing.source).await?
        }
        DesiredContent::Content { .. } => {
            size.unread =
                candidates::read_open(context, observed, &mut entries, listing.source).await?;
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
