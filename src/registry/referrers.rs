//! Listing referrers.
use super::error::RegistryError;
use super::session::Session;
use crate::oci::{ArtifactType, Digest, RawEntry};

/// Where a listing came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListingSource {
    /// The referrers API.
    Api,
    /// The fallback tag.
    FallbackTag,
}

/// The referrers of one subject.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The entries, in the registry's order, as they were written.
    pub entries: Vec<RawEntry>,
    /// Where they came from.
    pub source: ListingSource,
    /// Whether the registry applied the filter itself. Where not, it was applied here.
    pub filtered: bool,
}

impl Session {
    /// The referrers of `subject`, all or those of one type. Entries whose type the listing leaves empty pass the filter: the
    /// listing only nominates, the manifest decides.
    ///
    /// # Errors
    /// Any failure is one: a listing that could not be read is never empty.
    pub async fn referrers(&self, subject: &Digest, artifact_type: Option<&ArtifactType>) -> Result<Listing, RegistryError> {
        let _ = (subject, artifact_type);
        unimplemented!()
    }
}
