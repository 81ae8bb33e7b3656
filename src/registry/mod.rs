//! The distribution protocol (distribution-spec 1.1): manifests, blobs, tags, referrers and their fallback tag.
//!
//! Owns everything that goes over the wire to a registry: which addresses may be dialled, who sees which credential, how
//! much is read, how often is tried, and the check of every byte against its digest. [`Registries`] is shared by the whole
//! process; a [`Session`] is one pass over one repository. It knows nothing of Kubernetes, and of the work that it is used
//! for: it refuses to guess, so every failure is an error and no failure is ever an empty answer.

mod auth;
mod blobs;
mod budget;
mod challenge;
mod denied_server;
mod dial;
mod docker_config;
pub(crate) mod doors;
mod error;
mod error_body;
mod exchange;
mod fallback_tag;
mod guard;
mod host_pattern;
mod link;
mod manifests;
mod network_fault;
mod observer;
mod options;
mod pages;
mod referrers;
mod retry;
mod retry_after;
mod secret;
mod session;
mod spares;
mod tags;
mod throttle;
mod tls;
mod tokens;
mod transport;
mod upstream;
mod write_gate;

pub use denied_server::DeniedServer;
pub use docker_config::{DockerConfigError, Keychain};
pub use error::{Answered, ErrorKind, Object, Operation, RegistryError};
pub use fallback_tag::{FallbackChange, FallbackOutcome};
pub use host_pattern::{HostPattern, HostPatternError};
pub use manifests::{Deletion, Fetched, Head, Put};
pub use observer::{Observer, Try};
pub use options::{
    Access, ClientIdentity, Limits, Options, Proxy, ReferrersMode, Timeouts, TlsOptions,
};
pub use referrers::{Listing, ListingSource};
pub use retry::RetryPolicy;
pub use secret::Secret;
pub use session::{Locator, Registries, Session};
pub use write_gate::{Closed, WriteGate};
