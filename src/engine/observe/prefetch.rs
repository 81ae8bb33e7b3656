//! Listings that start before the desired content of their subjects is known. They are aborted when the pass ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::api::Scope;
use crate::attachment::{EntryKind, Image};
use crate::engine::context::Context;
use affix_registry::oci::{ArtifactType, Digest};
use affix_registry::{Listing, RegistryError};

type Started = AbortOnDropHandle<Result<Listing, RegistryError>>;

/// The listings that were started early, by subject.
#[derive(Default)]
pub(in crate::engine) struct Prefetch(Mutex<HashMap<Digest, Started>>);

impl Prefetch {
    fn listings(&self) -> MutexGuard<'_, HashMap<Digest, Started>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the listing of a subject; `None` if it was not started or was cancelled.
    pub(in crate::engine) async fn take(
        &self,
        subject: &Digest,
    ) -> Option<Result<Listing, RegistryError>> {
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

/// Returns the artifact type for the filter of a listing. There is no filter if it `would_hide` attachments of this resource, or if the
/// operator limits referrers of all types.
pub(in crate::engine) fn type_filter<'a>(
    context: &Context<'a>,
    would_hide: bool,
) -> Option<&'a ArtifactType> {
    (!would_hide && context.options.max_referrers.is_none())
        .then(|| context.request.intent.desired.artifact_type())
}
