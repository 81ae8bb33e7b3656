//! Wire types of the OCI specifications: references, digests, platforms, descriptors, manifests and indexes.
//!
//! Owns parsing and printing of what registries store, byte for byte: unknown fields are kept, digests are computed here,
//! and nothing is normalised on the way through. It refuses what no registry may mean (bad digests, references without a
//! host) with errors that name the value. It knows no I/O.

mod artifact_type;
mod descriptor;
mod digest;
mod index;
mod manifest;
pub mod media_type;
mod platform;
mod platform_pattern;
mod reference;
mod values;

pub use artifact_type::{ArtifactType, ArtifactTypeError};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use digest::{cut, hex};
pub use index::{ImageIndex, RawEntry, RawIndex, ReferrersPage};
pub use manifest::{ImageManifest, Manifest, ManifestError};
pub use platform::Platform;
pub use platform_pattern::{PlatformPattern, PlatformPatternError};
pub use reference::{Host, Reference, ReferenceError, Repository, RepositoryError, Tag, TagError};
pub use values::{longest_text, most_values};

/// Annotation keys that the OCI image specification and BuildKit reserve.
pub mod annotation {
    /// The time at which an artifact was made, RFC 3339 (image-spec, annotations.md).
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// The name of a layer's file (ORAS and image-spec, annotations.md).
    pub const TITLE: &str = "org.opencontainers.image.title";
    /// What an index entry refers to besides an image; `attestation-manifest` for BuildKit's attestations.
    pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
}
