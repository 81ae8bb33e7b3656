//! Documents with entries under a tag that several clients write: the fallback tag and the signature tag.
//!
//! See docs/decisions/0090. [`entries`] merges a change with what other writers did, [`rewrite`] reads, writes and verifies.

mod entries;
mod rewrite;

use std::future::Future;

use bytes::Bytes;
use tokio::time::Instant;

use crate::client::session::Session;
use crate::error::{Operation, RegistryError};
use crate::oci::{Descriptor, Digest, RawDocument, RawEntry, Tag};

pub(crate) use rewrite::rewrite_after;

/// A change to the entries of a tag.
#[derive(Debug, Clone, Default)]
pub struct TagChange {
    /// Entries to add. An entry that is listed is not added again. The content must exist.
    pub add: Vec<Descriptor>,
    /// The identities of entries to remove: digests in a fallback tag,
    /// [`SignatureLayer::id`](crate::SignatureLayer::id) in a signature tag.
    pub remove: Vec<Digest>,
}

/// The result of an update.
#[derive(Debug, Clone)]
pub struct TagOutcome {
    /// True if the tag was written. False if it had the requested content.
    pub written: bool,
    /// The number of PUT requests.
    pub attempts: u32,
    /// Foreign entries that were removed because their content does not exist and the registry
    /// rejected the list.
    pub dropped: Vec<Digest>,
    /// The entries of the last read.
    pub entries: Vec<RawEntry>,
}

/// One read of a tag.
pub(crate) struct TagRead {
    /// The time at which the answered request was sent.
    pub(crate) sent: Instant,
    /// The content. `None` only for a 404, and for a tag that names the subject itself.
    pub(crate) tag: Option<TagContent>,
    /// True if the tag names the subject itself. It holds no list, and may be replaced.
    pub(crate) names_subject: bool,
}

/// The content of a tag.
#[derive(Clone)]
pub(crate) struct TagContent {
    pub(crate) digest: Digest,
    pub(crate) document: RawDocument,
}

/// A kind of document with entries under a tag.
pub(crate) trait TagDocument: Send {
    /// The name of the entries in messages.
    const ENTRIES: &'static str;
    /// True if the parts outside of the list depend on it, so that they are uploaded before the read
    /// that a write is based on.
    const HAS_DEPENDENT_PARTS: bool;
    /// The shortest pause between a write and its verification, in milliseconds.
    const PAUSE_MILLIS: u64;

    fn session(&self) -> &Session;

    fn tag(&self) -> &Tag;

    /// Returns the write for messages.
    fn operation(&self) -> &Operation;

    /// Returns the document of a tag that does not exist.
    fn empty(&self) -> RawDocument;

    /// Returns an entry of the list for a descriptor.
    fn entry(&self, descriptor: &Descriptor) -> RawEntry;

    /// Reads the tag.
    fn read(&self) -> impl Future<Output = Result<TagRead, RegistryError>> + Send;

    /// Returns true if the registry has the content of an entry.
    fn has_content(
        &self,
        digest: &Digest,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Makes the parts of `document` that depend on its entries. `base` is the content that it was
    /// made from. Returns true if this took requests, so that `base` may be outdated.
    fn prepare(
        &mut self,
        base: Option<&TagContent>,
        document: &mut RawDocument,
    ) -> impl Future<Output = Result<bool, RegistryError>> + Send;

    /// Returns the media type and the bytes of a document.
    fn written(&self, document: &RawDocument) -> (String, Bytes);

    /// Returns the error of a tag that names the subject itself after each write.
    fn conflict(&self) -> RegistryError;
}
