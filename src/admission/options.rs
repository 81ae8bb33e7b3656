//! The options of the webhooks, as the command line sets them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::service::{Addresses, ListenAddress};
use affix_registry::oci::ArtifactType;
use affix_registry::{self, HostPattern};

/// A source of the current time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Options of the webhooks.
#[derive(Debug, Clone)]
pub struct Options {
    /// HTTPS address of the webhooks.
    pub listen_addr: ListenAddress,
    /// Addresses of health and metrics.
    pub addresses: Addresses,
    /// Time between the stop signal and the end of accepting connections.
    pub shutdown_delay: Duration,
    /// Source of the serving certificate.
    pub certificate: CertificateSource,
    /// Limits of the HTTPS server.
    pub limits: ServerLimits,
    /// Look-ups for the images of pods.
    pub lookups: Lookups,
    /// Options of the registry client.
    pub registries: affix_registry::Options,
}

/// Source of the serving certificate.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// A folder with `tls.crt` and `tls.key`. An external tool maintains the `caBundle`.
    Provided(PathBuf),
    /// affix creates and rotates the certificate.
    SelfManaged(SelfManaged),
}

/// A certificate that the replicas create and share.
#[derive(Debug, Clone)]
pub struct SelfManaged {
    /// Name of the shared Secret.
    pub secret: String,
    /// Namespace of the Secret and the Service. `None`: the namespace of the client.
    pub namespace: Option<String>,
    /// Name of the Service that the API server calls.
    pub service: String,
    /// Additional DNS names and IP addresses of the certificate.
    pub names: Vec<String>,
    /// ValidatingWebhookConfiguration whose `caBundle` affix maintains.
    pub validating: Option<String>,
    /// MutatingWebhookConfiguration whose `caBundle` affix maintains.
    pub mutating: Option<String>,
}

/// Limits of the HTTPS server.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Maximum body size in bytes. Default 8 MiB: the API server limits an object to 3 MiB, and a
    /// review has the old and the new object.
    pub body_bytes: usize,
    /// Concurrent reviews. Default 256.
    pub concurrent: usize,
    /// Open connections. Default 512.
    pub connections: usize,
    /// Time limit for a TLS handshake, for request headers and for a body. Default 5 s.
    pub patience: Duration,
    /// Maximum time in the queue for one of the concurrent reviews. Default 1 s.
    pub queue_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            concurrent: 256,
            connections: 512,
            patience: Duration::from_secs(5),
            queue_timeout: Duration::from_secs(1),
        }
    }
}

/// Look-ups for the images of pods.
#[derive(Debug, Clone)]
pub struct Lookups {
    /// The lifecycle artifact types to evaluate.
    pub lifecycle_types: Vec<LifecycleType>,
    /// Period before an end-of-life date in which pods get a warning.
    pub warn_before: Duration,
    /// Namespaces whose ImageAttachments are trusted for all pods.
    pub trusted_namespaces: Vec<String>,
    /// Cache lifetime of a look-up by digest.
    pub cache_ttl: Duration,
    /// Time limit of one review for requests to registries.
    pub timeout: Duration,
    /// Registries that use plain HTTP.
    pub insecure_registries: Vec<HostPattern>,
}

/// A lifecycle artifact type and the annotation with its date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleType {
    /// The artifact type.
    pub artifact_type: ArtifactType,
    /// The key of the annotation.
    pub annotation: Box<str>,
}

impl FromStr for LifecycleType {
    type Err = String;

    /// Parses `TYPE=ANNOTATION`, or `application/NAME` with the default annotation
    /// `NAME.end-of-life.date`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, annotation) = text
            .split_once('=')
            .map_or((text, None), |(kind, annotation)| (kind, Some(annotation)));
        let artifact_type: ArtifactType = kind
            .parse()
            .map_err(|error: affix_registry::oci::ArtifactTypeError| error.to_string())?;
        let (_, name) = kind.split_once('/').unwrap_or(("", kind));
        let annotation = match annotation {
            Some("") => {
                return Err(format!(
                    "no annotation after '=' in {text:?}: write TYPE=ANNOTATION"
                ));
            }
            Some(annotation) => annotation.into(),
            None => format!("{name}.end-of-life.date").into(),
        };
        Ok(Self {
            artifact_type,
            annotation,
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_annotation_gets_the_default_annotation() {
        let microsoft: LifecycleType = "application/vnd.microsoft.artifact.lifecycle"
            .parse()
            .unwrap();
        assert_eq!(
            &*microsoft.annotation,
            crate::api::EndOfLife::DEFAULT_ANNOTATION
        );
        let own: LifecycleType = "application/vnd.demo.eol=eol".parse().unwrap();
        assert_eq!(
            (own.artifact_type.as_str(), &*own.annotation),
            ("application/vnd.demo.eol", "eol")
        );
        assert!(
            "lifecycle"
                .parse::<LifecycleType>()
                .unwrap_err()
                .contains("type/subtype")
        );
        assert!(
            "a/b="
                .parse::<LifecycleType>()
                .unwrap_err()
                .contains("no annotation after")
        );
    }
}
