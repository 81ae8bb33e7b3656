//! What is attached already: the referrers of each target, and the manifests that a listing leaves open. Reads only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::api::{Reason, Scope, SupportedMode};
use crate::attachment::{
    EntryKind, Image, Listed, MOST_CANDIDATES, Observed, condensed, is_found, proven, to_fetch,
};
use affix_registry::oci::{ArtifactType, Descriptor, Digest, ImageManifest, Manifest};
use affix_registry::{ErrorKind, Listing, ListingSource, Locator, RegistryError};

use super::failure::Failure;
use super::observe;
use super::pass::Pass;
use super::signatures::Unlisted;

/// One selected target on its way through a pass.
pub(super) struct Target {
    /// What is there and what is wanted.
    pub(super) observed: Observed,
    /// How its referrers are listed.
    pub(super) source: ListingSource,
    /// Where its row stands.
    pub(super) row: usize,
    /// Hash of what is wanted.
    pub(super) content: Digest,
    /// Of signatures: what the listing does not show.
    pub(super) unlisted: Unlisted,
    /// What was listed.
    pub(super) extent: Extent,
    /// How long the registry asked to wait, where it did not list.
    pub(super) retry_after: Option<Duration>,
}

/// How much of a subject's referrers a pass has seen.
#[derive(Default)]
pub(super) struct Extent {
    /// How many were listed.
    pub(super) referrers: usize,
    /// Whether the registry left out those of other types.
    pub(super) filtered: bool,
    /// How many that might be equal were not read, since one that is equal was found before.
    pub(super) unread: usize,
}

/// Listings that were begun before it was known what is wanted on their subjects. They end with the pass.
#[derive(Default)]
pub(super) struct Ahead(Mutex<HashMap<Digest, AbortOnDropHandle<Result<Listing, RegistryError>>>>);

impl Ahead {
    fn listings(
        &self,
    ) -> MutexGuard<'_, HashMap<Digest, AbortOnDropHandle<Result<Listing, RegistryError>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listing of a subject, where one was begun; `None` too where it came to nothing.
    async fn take(&self, subject: &Digest) -> Option<Result<Listing, RegistryError>> {
        let begun = self.listings().remove(subject)?;
        begun.await.ok()
    }
}

/// What a listing brought beside its entries.
struct Found {
    source: ListingSource,
    unlisted: Unlisted,
    extent: Extent,
}

impl Pass<'_> {
    /// Lists the referrers of every target and reads what the listings leave open. Failures are the target's own.
    pub(super) async fn observe(&self, wanted: Vec<(usize, Descriptor, Listed)>) -> Vec<Target> {
        let made = self.request.memory.made();
        let made = &made;
        join_all(wanted.into_iter().map(|(row, subject, wanted)| async move {
            let known = self.request.memory.known(&subject.digest);
            let ours = made.get(&subject.digest).cloned().unwrap_or_default();
            let mut observed = Observed {
                subject,
                wanted,
                listing: Ok(Vec::new()),
                fetched: BTreeMap::new(),
                known,
                ours,
            };
            let mut retry_after = None;
            let found = match self
                .in_time(self.list(&mut observed))
                .await
                .and_then(std::convert::identity)
            {
                Ok(found) => found,
                Err(failure) => {
                    retry_after = failure.retry_after;
                    observed.listing = Err(failure.problem);
                    Found {
                        source: ListingSource::Api,
                        unlisted: Unlisted::default(),
                        extent: Extent::default(),
                    }
                }
            };
            let content = hash(&observed.wanted);
            Target {
                observed,
                source: found.source,
                row,
                content,
                unlisted: found.unlisted,
                extent: found.extent,
                retry_after,
            }
        }))
        .await
    }

    async fn list(&self, observed: &mut Observed) -> Result<Found, Failure> {
        // What this resource made earlier may be of another type: then the filter would hide it.
        let hides = observed
            .ours
            .iter()
            .any(|ours| observed.known.attachment.as_ref() != Some(ours))
            || (!observed.ours.is_empty()
                && observed.known.content.as_ref() != Some(&hash(&observed.wanted)));
        let subject = &observed.subject.digest;
        let listing = match self.ahead.take(subject).await {
            Some(listing) => listing?,
            None => self.session.referrers(subject, self.filter(hides)).await?,
        };
        let mut extent = Extent {
            referrers: listing.total,
            filtered: listing.filtered,
            unread: 0,
        };
        let mut entries = listing.entries;
        let unlisted = match &observed.wanted {
            Listed::Signature { .. } => {
                self.verify_signatures(observed, &mut entries, listing.source)
                    .await?
            }
            Listed::Content { .. } => {
                extent.unread = self
                    .read_open(observed, &mut entries, listing.source)
                    .await?;
                Unlisted::default()
            }
        };
        observed.listing = Ok(entries);
        Ok(Found {
            source: listing.source,
            unlisted,
            extent,
        })
    }

    /// The type that a listing is asked for. A limit on referrers is judged on the whole.
    fn filter(&self, hides: bool) -> Option<&ArtifactType> {
        (!hides && self.engine.options.most_referrers.is_none())
            .then(|| self.request.intent.desired.artifact_type())
    }

    /// Begins to list the root beside its own fetch, where its digest is given and the listing shows besides whether there is an API.
    pub(super) fn list_root_ahead(&self) {
        let intent = &self.request.intent;
        if let (Some(root), None) = (&intent.reference.digest, self.session.referrers_mode())
            && intent.selection.scope != Scope::Platforms
        {
            self.list_ahead(std::iter::once(root), true);
        }
    }

    /// Begins to list the targets of an image while the key that they are to be signed with is being opened.
    pub(super) fn list_targets_ahead(&self, image: &Image) {
        let Ok((chosen, _)) = self.request.intent.selection.choose(image) else {
            return;
        };
        let targets = chosen.iter().filter(|chosen| {
            chosen.skip.is_none() && !matches!(chosen.entry.kind, EntryKind::Unreadable(_))
        });
        self.list_ahead(
            targets
                .map(|chosen| &chosen.entry.subject.digest)
                .take(self.engine.options.most_targets),
            false,
        );
    }

    /// Only of subjects on which this resource has made nothing: what the others' listings are asked for depends on what is wanted.
    fn list_ahead<'b>(&self, subjects: impl Iterator<Item = &'b Digest>, first: bool) {
        let made = self.request.memory.made();
        let mut ahead = self.ahead.listings();
        for subject in subjects.filter(|subject| !made.contains_key(subject)) {
            let (session, asked, filter) = (
                self.session.clone(),
                subject.clone(),
                self.filter(false).cloned(),
            );
            ahead.entry(subject.clone()).or_insert_with(|| {
                let listing = async move {
                    match first {
                        true => session.first_referrers(&asked, filter.as_ref()).await,
                        false => session.referrers(&asked, filter.as_ref()).await,
                    }
                };
                AbortOnDropHandle::new(tokio::spawn(listing.in_current_span()))
            });
        }
    }

    /// Reads the manifests that the listing leaves open, as many as allowed, and leaves out entries whose manifest is gone. Answers
    /// with how many were not read.
    async fn read_open(
        &self,
        observed: &mut Observed,
        entries: &mut Vec<Descriptor>,
        source: ListingSource,
    ) -> Result<usize, Failure> {
        let Listed::Content { content, mark } = &observed.wanted else {
            return Ok(0);
        };
        let mut open = to_fetch(content, mark.as_ref(), &observed.subject, entries);
        let candidates = open.len();
        open.truncate(MOST_CANDIDATES);
        let kept = observed
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
            self.now,
            std::mem::take(entries),
        );
        let mut gone = Vec::new();
        for (descriptor, manifest) in self.read(&open).await? {
            match manifest {
                Some(manifest) => {
                    observed.fetched.insert(descriptor.digest, manifest);
                }
                None => gone.push(descriptor.digest),
            }
        }
        if source == ListingSource::FallbackTag {
            let listed = proven(content, &observed.subject, entries);
            let heads =
                join_all(listed.iter().cloned().map(|digest| async move {
                    self.session.head(&Locator::Digest(digest)).await
                }))
                .await;
            for (digest, head) in listed.into_iter().zip(heads) {
                match head {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => gone.push(digest),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        entries.retain(|entry| !gone.contains(&entry.digest));
        let unread = candidates - open.len();
        if unread > 0 && !is_found(content, &observed.subject, entries, &observed.fetched) {
            return Err(Failure::new(
                Reason::LimitExceeded,
                format_args!(
                    "{} has {candidates} referrers of the type {} that might be equal, more than {MOST_CANDIDATES} to read, and none of \
                     those read is: remove some",
                    observed.subject.digest, content.artifact_type
                ),
            ));
        }
        Ok(unread)
    }

    /// Reads candidates; one that is listed and gone is `None`, one that is no image manifest is left out.
    pub(super) async fn read(
        &self,
        open: &[Descriptor],
    ) -> Result<Vec<(Descriptor, Option<ImageManifest>)>, Failure> {
        let answers = observe::manifests(
            self.session,
            open.iter().map(|descriptor| &descriptor.digest),
        )
        .await;
        let mut read = Vec::new();
        for (descriptor, answer) in open.iter().zip(answers) {
            match answer {
                Ok(fetched) => match fetched.manifest {
                    Manifest::Image(manifest) => read.push((descriptor.clone(), Some(manifest))),
                    Manifest::Index(_) => {}
                },
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    read.push((descriptor.clone(), None))
                }
                Err(error) if error.kind() == ErrorKind::UnsupportedMediaType => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(read)
    }
}

/// The hash of what is wanted.
fn hash(wanted: &Listed) -> Digest {
    match wanted {
        Listed::Content { content, .. } => content.hash(),
        Listed::Signature { content, .. } => content.clone(),
    }
}

/// As status shows it.
pub(super) const fn mode(source: ListingSource) -> SupportedMode {
    match source {
        ListingSource::Api => SupportedMode::Api,
        ListingSource::FallbackTag => SupportedMode::TagSchema,
    }
}
