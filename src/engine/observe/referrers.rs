//! The referrers of each target, with the manifests that the listings leave open.

use std::collections::BTreeMap;
use std::convert::identity;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::api::{SignatureFormat, SupportedMode};
use crate::attachment::{DesiredContent, Observed};
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::records::slot::Slot;
use crate::engine::report::remarks::ListingSize;
use crate::signing::Signer;
use affix_registry::oci::{Descriptor, Digest, media_type};
use affix_registry::{Listing, ListingSource};

use super::candidates;
use super::found::Found;
use super::prefetch::{Prefetch, type_filter};
use super::signature_tag;
use super::signatures::{self, Unlisted};

/// A desired attachment of one target.
pub(in crate::engine) struct DesiredTarget {
    /// The position of its record.
    pub(in crate::engine) position: usize,
    pub(in crate::engine) slot: Slot,
    pub(in crate::engine) subject: Descriptor,
    pub(in crate::engine) wanted: DesiredContent,
    /// The signer of a signature or statement. Without one, only the last applied one is looked for.
    pub(in crate::engine) signer: Option<Arc<dyn Signer>>,
}

impl DesiredTarget {
    fn is_referrer(&self) -> bool {
        self.slot.format() == SignatureFormat::Bundle
    }

    /// Returns whether one listing shows both attachments.
    fn shares_listing(&self, other: &Self) -> bool {
        self.subject.digest == other.subject.digest && self.is_referrer() && other.is_referrer()
    }
}

/// A selected target with its referrers, or with the layers of its signature tag.
pub(in crate::engine) struct Target {
    pub(in crate::engine) slot: Slot,
    /// The input of the plan.
    pub(in crate::engine) observed: Observed,
    pub(in crate::engine) signer: Option<Arc<dyn Signer>>,
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
        self.slot.format() == SignatureFormat::Bundle
    }

    /// Returns whether an equal signature is there, or whether it is unknown since the listing failed.
    pub(in crate::engine) fn is_seen(&self) -> bool {
        let is_verified = matches!(&self.observed.wanted, DesiredContent::Signature { verified, .. } if !verified.is_empty());
        is_verified || self.observed.listing.is_err() || self.unlisted.own.is_some()
    }

    /// Returns whether the attachment is a Sigstore bundle.
    pub(in crate::engine) fn is_bundle(&self) -> bool {
        let is_bundle = matches!(&self.observed.wanted, DesiredContent::Signature { artifact_type, .. }
            if artifact_type == media_type::SIGSTORE_BUNDLE);
        self.is_referrer() && is_bundle
    }
}

/// Lists the referrers of every target and reads the manifests that the listings leave open. A failure belongs to its target. The
/// attachments of one target share a listing.
pub(in crate::engine) async fn observe(
    context: &Context<'_>,
    prefetch: &Prefetch,
    wanted: Vec<DesiredTarget>,
) -> Vec<Target> {
    let mut subjects: Vec<Vec<DesiredTarget>> = Vec::new();
    for desired in wanted {
        match subjects.last_mut() {
            Some(same) if same.iter().all(|other| other.shares_listing(&desired)) => {
                same.push(desired);
            }
            _ => subjects.push(vec![desired]),
        }
    }
    let observed = subjects
        .into_iter()
        .map(|desired| observe_subject(context, prefetch, desired));
    join_all(observed).await.into_iter().flatten().collect()
}

/// Observes the attachments of one subject, by one listing.
async fn observe_subject(
    context: &Context<'_>,
    prefetch: &Prefetch,
    wanted: Vec<DesiredTarget>,
) -> Vec<Target> {
    let previous = &context.request.previous;
    let mut targets: Vec<Target> = wanted
        .into_iter()
        .map(|desired| Target {
            content: hash(&desired.wanted),
            observed: Observed {
                known: previous.last_applied(&desired.subject.digest, &desired.slot),
                ours: previous.owned_in(&desired.subject.digest, desired.slot.format()),
                subject: desired.subject,
                wanted: desired.wanted,
                listing: Ok(Vec::new()),
                fetched: BTreeMap::new(),
            },
            slot: desired.slot,
            signer: desired.signer,
            source: ListingSource::Api,
            position: desired.position,
            unlisted: Unlisted::default(),
            size: ListingSize::default(),
            retry_after: None,
        })
        .collect();
    let mut listing = match targets.first() {
        Some(first) if first.is_referrer() => {
            let listing = context
                .in_time(list(context, prefetch, first, &targets))
                .await;
            Some(listing.and_then(identity))
        }
        _ => None,
    };
    let mut readers = targets.len();
    let reads = targets.iter_mut().map(|target| {
        readers -= 1;
        // The last reader takes the listing, which may be large.
        let listing = match readers {
            0 => listing.take(),
            _ => listing.clone(),
        };
        async move {
            let observed = &mut target.observed;
            let signer = target.signer.as_deref();
            let read = async {
                match listing {
                    Some(listing) => read_listed(context, signer, observed, listing?).await,
                    None => signature_tag::read(context, signer, observed).await,
                }
            };
            match context.in_time(read).await.and_then(identity) {
                Ok(found) => {
                    target.source = found.source;
                    target.unlisted = found.unlisted;
                    target.size = found.size;
                }
                Err(failure) => {
                    observed.listing = Err(failure.problem);
                    target.retry_after = failure.retry_after;
                }
            }
        }
    });
    join_all(reads).await;
    targets
}

/// Lists the referrers of a subject.
async fn list(
    context: &Context<'_>,
    prefetch: &Prefetch,
    first: &Target,
    targets: &[Target],
) -> Result<Listing, Failure> {
    // Earlier attachments of this resource may have another type, which a filter would hide.
    let is_last = |own: &Digest| {
        let mut known = targets.iter().map(|target| &target.observed.known);
        known.any(|last| last.attachment.as_ref() == Some(own))
    };
    let ours = &first.observed.ours;
    let has_changed =
        |target: &Target| target.observed.known.content.as_ref() != Some(&target.content);
    let would_hide = ours.iter().any(|own| !is_last(own))
        || (!ours.is_empty() && targets.iter().any(has_changed));
    let subject = &first.observed.subject.digest;
    let listing = match prefetch.take(subject).await {
        Some(listing) => listing?,
        None => {
            let filter = type_filter(context, would_hide);
            context.session.referrers(subject, filter).await?
        }
    };
    let is_mark = matches!(first.observed.wanted, DesiredContent::Content { .. });
    if context.request.intent.statement && is_mark {
        prefetch.keep_bundles(subject, &listing);
    }
    Ok(listing)
}

/// Reads the manifests that a listing leaves open for one attachment.
async fn read_listed(
    context: &Context<'_>,
    signer: Option<&dyn Signer>,
    observed: &mut Observed,
    listing: Listing,
) -> Result<Found, Failure> {
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
            signatures::verify(context, signer, observed, &mut entries, listing.source).await?
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
