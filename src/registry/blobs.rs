//! Blobs.
use bytes::Bytes;

use super::error::RegistryError;
use super::session::Session;
use crate::oci::{Descriptor, Digest};

impl Session {
    /// Whether the repository has the blob (HEAD).
    ///
    /// # Errors
    /// What every request can end in; 404 is an answer.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let _ = digest;
        unimplemented!()
    }

    /// Uploads a blob, whether or not it is there: POST with the content; where that keeps nothing, PUT.
    ///
    /// # Errors
    /// `ManifestRejected`, `DigestMismatch`, and what every request can end in.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<Digest, RegistryError> {
        let _ = bytes;
        unimplemented!()
    }

    /// The content of a descriptor, at most `cap` bytes, hashed and its size compared.
    ///
    /// # Errors
    /// `NotFound`, `DigestMismatch`, `LimitExceeded`, and what every request can end in.
    pub async fn blob(&self, descriptor: &Descriptor, cap: u64) -> Result<Bytes, RegistryError> {
        let _ = (descriptor, cap);
        unimplemented!()
    }
}
