//! What the webhooks' flags say.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::service::{Addresses, ListenAddress};
use affix_registry::oci::ArtifactType;
use affix_registry::{self, HostPattern};

/// What tells the time of day.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

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

/// A type of marks, and the annotation that holds their date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleType {
    /// The artifact type.
    pub artifact_type: ArtifactType,
    /// The key of the annotation.
    pub annotation: Box<str>,
}

impl FromStr for LifecycleType {
    type Err = String;

    /// Reads `TYPE=ANNOTATION`, or `application/NAME` for the annotation `NAME.end-of-life.date`.
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
                    "{text:?} names no annotation after the '=': write TYPE=ANNOTATION"
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
    fn a_type_without_annotation_has_the_one_of_its_name() {
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
                .contains("names no annotation")
        );
    }
}
