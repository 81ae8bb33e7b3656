//! Fallback tags.
use super::error::RegistryError;
use super::session::Session;
use crate::oci::{Descriptor, Digest, RawEntry};

/// What is to be different in a fallback tag.
#[derive(Debug, Clone, Default)]
pub struct FallbackChange {
    /// Entries to have, unless the digest is listed already. Their manifests must be in the registry.
    pub add: Vec<Descriptor>,
    /// Entries to take off the list.
    pub remove: Vec<Digest>,
}

/// How a rewrite ended.
#[derive(Debug, Clone)]
pub struct FallbackOutcome {
    /// Whether anything was written; `false`: the tag was as wanted when first read.
    pub written: bool,
    /// PUTs that were made.
    pub attempts: u32,
    /// Entries of others whose manifests are gone and that the registry refused: they were left out.
    pub dropped: Vec<Digest>,
    /// The entries as last read.
    pub entries: Vec<RawEntry>,
}

impl Session {
    /// Changes the fallback tag of `subject` so that the change is there and stays there while others write it too.
    /// `seen_before`: the tag is known to have existed, so a 404 is read again before it is believed.
    ///
    /// # Errors
    /// `FallbackTagConflict`, `ImmutableTag`, [`RegistryError::Dangling`] where a manifest of `change.add` is gone, and what
    /// every request can end in.
    pub async fn rewrite_fallback(
        &self,
        subject: &Descriptor,
        change: FallbackChange,
        seen_before: bool,
    ) -> Result<FallbackOutcome, RegistryError> {
        let _ = (subject, change, seen_before);
        unimplemented!()
    }
}
