//! A client for OCI registries that follows the distribution specification 1.1.
//!
//! The crate reads and writes manifests and blobs, lists tags and referrers, and maintains the
//! referrers tag ("fallback tag") of registries without the referrers API. It does not depend on
//! Kubernetes, and it knows nothing about the artifacts that it transports.
//!
//! * [`Registries`] is shared by the whole process. It holds connections, tokens, rate limits and
//!   the rules of [`Options`].
//! * [`Session`] works on one repository with one set of credentials ([`Access`]). Its methods are
//!   the operations of the distribution specification.
//! * [`oci`] holds the wire types: references, digests, platforms, descriptors, manifests and
//!   indexes. They need no I/O.
//! * [`interop`] converts these types from and to those of the crate `oci-client`.
//!
//! The client assumes that a registry may be hostile. It bounds every answer ([`Limits`]), hashes
//! every byte, sends a credential only to the origin that asked for it, and checks every address
//! before it connects. A failed request is always an error and never an empty result.
//! [`RegistryError::kind`] classifies errors.
//!
//! # Example
//!
//! Resolve a tag and list the referrers of the image:
//!
//! ```no_run
//! use affix_registry::oci::Reference;
//! use affix_registry::{Access, Locator, Options, Registries};
//!
//! # async fn list() -> Result<(), Box<dyn std::error::Error>> {
//! let reference: Reference = "registry.example.com/team/app:v1".parse()?;
//! let registries = Registries::new(Options::default());
//! let session = registries.open(&reference.host, &reference.repository, Access::default())?;
//! let locator = Locator::of(&reference).ok_or("the reference has neither a tag nor a digest")?;
//! let subject = session.head(&locator).await?.digest;
//! for referrer in session.referrers(&subject, None).await?.entries {
//!     println!("{} {}", referrer.digest, referrer.artifact_type);
//! }
//! # Ok(())
//! # }
//! ```

mod access;
mod client;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
pub mod interop;
pub mod oci;
mod protocol;

pub use access::denied_server::DeniedServer;
pub use access::docker_config::{DockerConfigError, Keychain};
pub use access::glob::glob;
pub use access::host_pattern::{HostPattern, HostPatternError};
pub use access::login_source::{IssuedLogin, LoginAnswer, LoginClient, LoginSource};
pub use access::secret::Secret;
pub use client::observer::{Observer, Try};
pub use client::options::{
    Access, ClientIdentity, EnvironmentProxy, Limits, ListingSource, Options, Priority, Proxy,
    ReferrersMode, Timeouts, TlsOptions,
};
pub use client::service::{Service, ServiceAccess};
pub use client::session::{Locator, Registries, Session};
pub use error::{ErrorAnswer, ErrorKind, Object, Operation, RegistryError};
pub use http::retry::RetryPolicy;
pub use http::write_gate::{Closed, WriteGate};
pub use ipnet::IpNet;
pub use protocol::manifests::{Deletion, Fetched, Head, Put};
pub use protocol::referrers::Listing;
pub use protocol::signature_tag::{SignatureLayer, SignatureTag};
pub use protocol::tag_document::{TagChange, TagOutcome};
