//! Wire types of the OCI specifications: references, digests, platforms, descriptors, manifests and
//! indexes.
//!
//! The types parse and print documents without I/O. [`RawDocument`] keeps unknown fields byte for
//! byte. Digests are computed here. Parsers reject ambiguous input, for example a reference without
//! a registry, with an error that quotes the value.

mod artifact_type;
mod descriptor;
mod digest;
mod index;
mod manifest;
pub mod media_type;
mod platform;
mod platform_pattern;
mod raw_document;
mod reference;
mod values;

pub use artifact_type::{ArtifactType, ArtifactTypeError};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use digest::{cut, hex};
pub use index::{ImageIndex, ReferrersPage, SkippedEntry};
pub use manifest::{ImageManifest, Manifest, ManifestError};
pub use platform::Platform;
pub use platform_pattern::{PlatformPattern, PlatformPatternError};
pub use raw_document::{RawDocument, RawEntry};
pub use reference::{Host, Reference, ReferenceError, Repository, RepositoryError, Tag, TagError};
pub use values::{longest_text, value_bound, without_bom};

/// Annotation keys that the image specification (annotations.md) and BuildKit define.
pub mod annotation {
    /// Creation time of an artifact, RFC 3339 (image-spec, annotations.md).
    pub const CREATED: &str = oci_client::annotations::ORG_OPENCONTAINERS_IMAGE_CREATED;
    /// File name of a layer (image-spec, annotations.md, and ORAS).
    pub const TITLE: &str = oci_client::annotations::ORG_OPENCONTAINERS_IMAGE_TITLE;
    /// Kind of a non-image entry in an index. BuildKit writes `attestation-manifest`.
    pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
    /// The platform manifest that a build attestation is about.
    pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
}
