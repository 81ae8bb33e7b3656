//! The distribution protocol (distribution-spec 1.1): manifests, blobs, tags, referrers and their fallback tag.
//!
//! Owns everything that goes over the wire to a registry: which addresses may be dialled, who sees which credential, how
//! much is read, how often is tried, and the check of every byte against its digest. [`Registries`] is shared by the whole
//! process; a [`Session`] is one pass over one repository. It knows nothing of Kubernetes, and of the work that it is used
//! for: it refuses to guess, so every failure is an error and no failure is ever an empty answer.

mod access;
mod client;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
pub mod oci;
mod protocol;

pub use access::denied_server::DeniedServer;
pub use access::docker_config::{DockerConfigError, Keychain};
pub use access::host_pattern::{HostPattern, HostPatternError};
pub use access::secret::Secret;
pub use client::observer::{Observer, Try};
pub use client::options::{
    Access, ClientIdentity, Limits, Options, Proxy, ReferrersMode, Timeouts, TlsOptions,
};
pub use client::session::{Locator, Registries, Session};
pub use error::{Answered, ErrorKind, Object, Operation, RegistryError};
pub use http::retry::RetryPolicy;
pub use http::write_gate::{Closed, WriteGate};
pub use protocol::fallback_tag::{FallbackChange, FallbackOutcome};
pub use protocol::manifests::{Deletion, Fetched, Head, Put};
pub use protocol::referrers::{Listing, ListingSource};
