//! Listings that start before the desired content of their subjects is known. They are aborted when the pass ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::api::Scope;
use crate::attachment::{EntryKind, Image};
use crate::engine::context::Context;
use affix_registry::oci::{ArtifactType, Descriptor, Digest, media_type};
use affix_registry::{Listing, RegistryError};

type Started = AbortOnDropHandle<Result<Listing, RegistryError>>;

/// The listings of a pass that wait for their use, by subject.
#[derive(Default)]
pub(in crate::engine) struct Prefetch {
    /// Listings that were started early.
    started: Mutex<HashMap<Digest, Started>>,
    /// The bundles of listings that were read for marks, for their statements.
    bundles: Mutex<HashMap<Digest, Listing>>,
}

impl Prefetch {
    fn listings(&self) -> MutexGuard<'_, HashMap<Digest, Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundles(&self) -> MutexGuard<'_, HashMap<Digest, Listing>> {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a statement on `subject` needs of the listing that was read for its mark.
    pub(in crate::engine) fn keep_bundles(&self, subject: &Digest, listing: &Listing) {
        let is_bundle = |entry: &&Descriptor| entry.may_have_type(media_type::SIGSTORE_BUNDLE);
        let bundles = Listing {
            entries: listing.entries.iter().filter(is_bundle).cloned().collect(),
            tag: listing.tag.clone(),
            ..*listing
        };
        self.bundles().insert(subject.clone(), bundles);
    }

    /// Returns the listing of a subject; `None` if it was not started or was cancelled.
    pub(in crate::engine) async fn take(
        &self,
        subject: &Digest,
    ) -> Option<Result<Listing, RegistryError>> {
        if let Some(bundles) = self.bundles().remove(subject) {
            return Some(Ok(bundles));
        }
        let started = self.listings().remove(subject)?;
        started.await.ok()
    }

    /// Starts the listing of the root concurrently with its fetch if the spec gives its digest. The listing also shows whether the
    /// registry has the referrers API.
    pub(in crate::engine) fn start_root(&self, context: &Context<'_>) {
        let intent = &context.request.intent;
        if let (Some(root), None) = (&intent.reference.digest, context.session.referrers_mode())
            && intent.selection.scope != Scope::Platforms
        {
            self.start(context, std::iter::once(root), true);
        }
    }

    /// Starts the listings of the targets of an image while the signing key is being opened.
    pub(in crate::engine) fn start_targets(&self, context: &Context<'_>, image: &Image) {
        let Ok((chosen, _)) = context.request.intent.selection.choose(image) else {
            return;
        };
        let targets = chosen.iter().filter(|chosen| {
            chosen.skip.is_none() && !matches!(chosen.entry.kind, EntryKind::Unreadable(_))
        });
        let subjects = targets.map(|chosen| &chosen.entry.subject.digest);
        self.start(context, subjects.take(context.options.max_targets), false);
    }

    /// Starts the listings of subjects without attachments of this resource. The filter of other listings depends on the desired content.
    fn start<'b>(
        &self,
        context: &Context<'_>,
        subjects: impl Iterator<Item = &'b Digest>,
        first: bool,
    ) {
        let owned = context.request.previous.owned();
        let mut listings = self.listings();
        for subject in subjects.filter(|subject| !owned.contains_key(subject)) {
            let session = context.session.clone();
            let (digest, filter) = (subject.clone(), type_filter(context, false).cloned());
            listings.entry(subject.clone()).or_insert_with(|| {
                let listing = async move {
                    match first {
                        true => session.first_referrers(&digest, filter.as_ref()).await,
                        false => session.referrers(&digest, filter.as_ref()).await,
                    }
                };
                AbortOnDropHandle::new(tokio::spawn(listing.in_current_span()))
            });
        }
    }
}

/// Returns the artifact type for the filter of a listing. There is no filter if it `would_hide` attachments of this resource, if the
/// operator limits referrers of all types, or if marks and statements share the listing.
pub(in crate::engine) fn type_filter<'a>(
    context: &Context<'a>,
    would_hide: bool,
) -> Option<&'a ArtifactType> {
    let has_statement = context.request.intent.statement;
    (!would_hide && !has_statement && context.options.max_referrers.is_none())
        .then(|| context.request.intent.desired.artifact_type())
}
