//! The fallback tag, which lists referrers on registries without the referrers API (distribution-spec, "Referrers Tag Schema").

use std::future::{Future, ready};

use bytes::Bytes;

use crate::client::options::{ListingSource, ReferrersMode};
use crate::client::session::Session;
use crate::error::{Object, Operation, RegistryError};
use crate::oci::{Descriptor, Digest, RawDocument, RawEntry, Tag, media_type};
use crate::protocol::referrers::READS_TAG_AS_DIGEST;
use crate::protocol::tag_document::{
    TagChange, TagContent, TagDocument, TagOutcome, TagRead, rewrite_after,
};

impl Session {
    /// Updates the fallback tag of `subject`, and verifies that concurrent writers did not undo the
    /// update. Foreign entries keep their bytes and their order. Entries that a concurrent writer
    /// dropped are restored.
    ///
    /// With `seen_before` the tag is known to exist, so a 404 is verified by repeated reads.
    ///
    /// # Errors
    /// `FallbackTagConflict` if the tag holds other content or the registry has the referrers API.
    /// `ImmutableTag`. [`RegistryError::Dangling`] if a manifest of `change.add` does not exist.
    /// The errors of every request.
    pub async fn rewrite_fallback(
        &self,
        subject: &Descriptor,
        change: TagChange,
        seen_before: bool,
    ) -> Result<TagOutcome, RegistryError> {
        self.rewrite_fallback_after(ready(Ok(())), subject, change, seen_before)
            .await
    }

    /// Behaves like [`rewrite_fallback`](Self::rewrite_fallback), but writes only after `first` has
    /// succeeded. The first read runs concurrently with `first`, which is normally the PUT of the
    /// manifest to list.
    ///
    /// # Errors
    /// The error of `first`, and those of [`rewrite_fallback`](Self::rewrite_fallback).
    pub async fn rewrite_fallback_after(
        &self,
        first: impl Future<Output = Result<(), RegistryError>>,
        subject: &Descriptor,
        change: TagChange,
        seen_before: bool,
    ) -> Result<TagOutcome, RegistryError> {
        let operation = self.operation("PUT", Object::FallbackTag, subject.digest.fallback_tag());
        let conflict = |what: &str| RegistryError::FallbackTagConflict {
            operation: operation.clone(),
            what: what.to_owned(),
        };
        if self.inner.mode == ReferrersMode::Auto && self.referrers_mode().is_none() {
            self.referrers(&subject.digest, None).await?; // detects the referrers API
        }
        if self.referrers_mode() == Some(ListingSource::Api) {
            return Err(conflict(
                "the registry has the referrers API, so no fallback tag is written",
            ));
        }
        let tag = subject
            .digest
            .fallback_tag()
            .parse()
            .map_err(|_| conflict("it is not a valid tag"))?;
        let kind = FallbackDocument {
            session: self.clone(),
            subject: subject.digest.clone(),
            operation,
            tag,
        };
        rewrite_after(kind, first, &change, seen_before).await
    }
}

struct FallbackDocument {
    session: Session,
    subject: Digest,
    operation: Operation,
    tag: Tag,
}

impl TagDocument for FallbackDocument {
    const ENTRIES: &'static str = "referrers";
    const HAS_DEPENDENT_PARTS: bool = false;
    const PAUSE_MILLIS: u64 = 50;

    fn session(&self) -> &Session {
        &self.session
    }

    fn tag(&self) -> &Tag {
        &self.tag
    }

    fn operation(&self) -> &Operation {
        &self.operation
    }

    fn empty(&self) -> RawDocument {
        RawDocument::empty_index()
    }

    fn entry(&self, descriptor: &Descriptor) -> RawEntry {
        RawEntry::from(descriptor)
    }

    async fn read(&self) -> Result<TagRead, RegistryError> {
        self.session.fallback_tag(&self.subject).await
    }

    async fn has_content(&self, digest: &Digest) -> Result<bool, RegistryError> {
        self.session.has_manifest(digest).await
    }

    async fn prepare(
        &mut self,
        _: Option<&TagContent>,
        _: &mut RawDocument,
    ) -> Result<bool, RegistryError> {
        Ok(false)
    }

    fn written(&self, document: &RawDocument) -> (String, Bytes) {
        (media_type::OCI_INDEX.to_owned(), document.to_bytes().into())
    }

    fn conflict(&self) -> RegistryError {
        RegistryError::FallbackTagConflict {
            operation: self.operation.clone(),
            what: READS_TAG_AS_DIGEST.to_owned(),
        }
    }
}
