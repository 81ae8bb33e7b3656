//! What the webhooks' flags say.

use std::path::PathBuf;
use std::time::Duration;

use super::mark::LifecycleType;
use crate::service::{Addresses, ListenAddress};
use affix_registry::{self, HostPattern};

/// Options of the webhooks.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the webhooks, which speak TLS.
    pub listen_addr: ListenAddress,
    /// Where health and metrics are served.
    pub addresses: Addresses,
    /// How long new calls are taken after the order to stop.
    pub shutdown_delay: Duration,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// What is taken from callers.
    pub limits: ServerLimits,
    /// What is looked up about the images of pods.
    pub lookups: Lookups,
    /// What is allowed with registries.
    pub registries: affix_registry::Options,
}

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// A folder with `tls.crt` and `tls.key`. The `caBundle` is somebody else's business.
    Given(PathBuf),
    /// It is made here.
    SelfManaged(SelfManaged),
}

/// A certificate that the replicas make and share.
#[derive(Debug, Clone)]
pub struct SelfManaged {
    /// The Secret that they share.
    pub secret: String,
    /// Its namespace, and the Service's; `None`: the client's own.
    pub namespace: Option<String>,
    /// The Service by which the API server calls.
    pub service: String,
    /// More DNS names and addresses of the certificate.
    pub names: Vec<String>,
    /// The ValidatingWebhookConfiguration whose `caBundle` is kept current.
    pub validating: Option<String>,
    /// The MutatingWebhookConfiguration whose `caBundle` is kept current.
    pub mutating: Option<String>,
}

/// What is taken from callers.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Bytes of one review. Default 8 MiB: an object of at most 3 MiB (the API server's own limit), old and new, and the rest.
    pub body_bytes: usize,
    /// Reviews worked on at once. Default 256.
    pub concurrent: usize,
    /// Connections at once. Default 512.
    pub connections: usize,
    /// How long a caller may take for a handshake, for a request's head, and for its body. Default 5 s.
    pub patience: Duration,
    /// How long a review waits for its turn. Default 1 s.
    pub turn: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            concurrent: 256,
            connections: 512,
            patience: Duration::from_secs(5),
            turn: Duration::from_secs(1),
        }
    }
}

/// What is looked up about the images of pods.
#[derive(Debug, Clone)]
pub struct Lookups {
    /// The types of marks that count.
    pub lifecycle_types: Vec<LifecycleType>,
    /// How long before the date there is a warning.
    pub warn_before: Duration,
    /// Namespaces whose ImageAttachments are believed.
    pub trusted_namespaces: Vec<String>,
    /// How long an answer about a digest is believed.
    pub cache_ttl: Duration,
    /// How long one review may wait for registries.
    pub timeout: Duration,
    /// Registries that are asked over plain HTTP.
    pub insecure_registries: Vec<HostPattern>,
}
