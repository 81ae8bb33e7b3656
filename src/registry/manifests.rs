//! Manifests.
use bytes::Bytes;

use super::error::{Answered, RegistryError};
use super::session::{Locator, Session};
use crate::oci::{Descriptor, Digest, Manifest};

/// What a registry says of a manifest without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, without parameters.
    pub media_type: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// A manifest whose bytes were checked.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The digest that its bytes have.
    pub digest: Digest,
    /// The media type that names it in a descriptor.
    pub media_type: String,
    /// The bytes, as served.
    pub bytes: Bytes,
    /// The same as data.
    pub manifest: Manifest,
}

impl Fetched {
    /// The plain descriptor of the manifest, as a subject names it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::plain(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

/// A manifest was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The digest from `OCI-Subject`: the registry has put the manifest on that subject's listing, or says so.
    pub subject_acknowledged: Option<Digest>,
}

/// What became of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// The registry took the manifest away.
    Done,
    /// There was none (404).
    Gone,
    /// The registry does not delete (405), may not for this credential (401, 403), or will not (400, 409): the bytes remain.
    Refused(Answered),
}

impl Session {
    /// Digest, media type and size of a manifest by HEAD; by GET where the registry does not say the digest or does not know HEAD.
    ///
    /// # Errors
    /// `NotFound`, and what every request can end in.
    pub async fn head(&self, at: &Locator) -> Result<Head, RegistryError> {
        let _ = at;
        unimplemented!()
    }

    /// A manifest, hashed, and compared with the digest asked for and with the one in the header.
    ///
    /// # Errors
    /// `NotFound`, `DigestMismatch`, `UnsupportedMediaType`, `LimitExceeded`, and what every request can end in.
    pub async fn manifest(&self, at: &Locator) -> Result<Fetched, RegistryError> {
        let _ = at;
        unimplemented!()
    }

    /// The manifest of a descriptor: as [`manifest`](Self::manifest), and its size is compared too.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub async fn manifest_of(&self, descriptor: &Descriptor) -> Result<Fetched, RegistryError> {
        let _ = descriptor;
        unimplemented!()
    }

    /// Writes a manifest. The digest that the registry answers with is compared.
    ///
    /// # Errors
    /// `ManifestRejected`, `ImmutableTag`, `DigestMismatch`, and what every request can end in.
    pub async fn put_manifest(&self, at: &Locator, media_type: &str, bytes: Bytes) -> Result<Put, RegistryError> {
        let _ = (at, media_type, bytes);
        unimplemented!()
    }

    /// Deletes a manifest by digest. The one request for which a token with the action `delete` is asked.
    ///
    /// # Errors
    /// What every request can end in; a refusal is no error but [`Deletion::Refused`].
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<Deletion, RegistryError> {
        let _ = digest;
        unimplemented!()
    }
}
