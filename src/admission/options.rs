//! The options of the webhooks, as the command line sets them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::Provider;
use crate::engine::LifecycleType;
use crate::identity::Endpoints;
use crate::inventory::ReportFormat;
use crate::service::{Addresses, LeaderElection, ListenAddress};
use affix_registry::glob;
use affix_registry::oci::Reference;
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
    /// File with the authorities of the API server's client certificate. `None`: any caller is served.
    pub client_ca: Option<PathBuf>,
    /// The webhook configurations.
    pub configurations: Configurations,
    /// Limits of the HTTPS server.
    pub limits: ServerLimits,
    /// Look-ups for the images of pods.
    pub lookups: Lookups,
    /// Reports of running images. `None`: none are written.
    pub reports: Option<ReportOptions>,
    /// Options of the registry client.
    pub registries: affix_registry::Options,
}

/// Reports of running images.
#[derive(Debug, Clone)]
pub struct ReportOptions {
    /// The kind of the objects.
    pub format: ReportFormat,
    /// The time between two lists of the pods.
    pub interval: Duration,
    /// The time after which the marks of an image are read again.
    pub refresh_interval: Duration,
    /// The election of the replica that writes.
    pub election: LeaderElection,
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
    /// Deployment that owns the Secret, in the same namespace. `None`: the Secret has no owner.
    pub owner: Option<String>,
    /// Name of the Service that the API server calls.
    pub service: String,
    /// Additional DNS names and IP addresses of the certificate.
    pub names: Vec<String>,
}

/// The webhook configurations that call this webhook. affix maintains their `caBundle` if it creates
/// the certificate, and reports a configuration without effect.
#[derive(Debug, Clone, Default)]
pub struct Configurations {
    /// Name of the ValidatingWebhookConfiguration.
    pub validating: Option<String>,
    /// Name of the MutatingWebhookConfiguration.
    pub mutating: Option<String>,
    /// Namespace of the self-check's dry runs. `None`: no self-check.
    pub self_check_namespace: Option<String>,
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
    /// Files and folders with the public keys whose signed statements are enforced. Empty: unsigned marks are
    /// enforced.
    pub lifecycle_trust: Vec<PathBuf>,
    /// Period before an end-of-life date in which pods get a warning.
    pub warn_before: Duration,
    /// Period after an end-of-life date in which an enforcing namespace only warns.
    pub enforce_after: Duration,
    /// Namespaces whose pods and ImageAttachments are reviewed. Empty: all.
    pub watch_namespaces: Vec<String>,
    /// Namespaces whose ImageAttachments are trusted for all pods.
    pub trusted_namespaces: Vec<String>,
    /// Cache lifetime of a look-up by digest.
    pub cache_ttl: Duration,
    /// Time limit of one review for requests to registries.
    pub timeout: Duration,
    /// Registries that use plain HTTP.
    pub insecure_registries: Vec<HostPattern>,
    /// The effect of an image that could not be checked in a namespace with `enforce`.
    pub unchecked: UncheckedPolicy,
    /// The mode of namespaces without a label.
    pub default_mode: DefaultMode,
    /// Images that are not checked for end of life.
    pub exempt_images: Vec<ImagePattern>,
    /// Pull secrets for the images of all pods, in the webhook's own namespace.
    pub image_pull_secrets: Vec<String>,
    /// The identity for the images of all pods in the registries of a cloud.
    pub identity: Option<LookupIdentity>,
    /// The webhook's own namespace. `None`: the namespace of the client.
    pub own_namespace: Option<String>,
}

/// The identity of the webhook in a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupIdentity {
    /// The cloud.
    pub provider: Provider,
    /// The ServiceAccount in the webhook's own namespace.
    pub service_account: String,
    /// Token services that replace those of the cloud.
    pub endpoints: Endpoints,
}

/// The effect of an image that could not be checked in a namespace with `enforce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum UncheckedPolicy {
    /// Admit the pod with a warning.
    #[default]
    Warn,
    /// Refuse the pod.
    Refuse,
}

/// The mode of namespaces without a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum DefaultMode {
    /// Check no pod.
    #[default]
    Off,
    /// As with the label value `warn`.
    Warn,
    /// As with the label value `enforce`.
    Enforce,
}

/// A pattern of images.
///
/// `HOST/REPOSITORY` or `HOST/REPOSITORY:TAG`, where `*` matches any characters of one label of the host, and any
/// characters of the repository or the tag. At least one label of the host has no `*`: otherwise a registry of
/// anyone would match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    host: HostPattern,
    repository: Box<str>,
    tag: Option<Box<str>>,
}

impl ImagePattern {
    /// Returns whether an image matches.
    #[must_use]
    pub fn matches(&self, image: &Reference) -> bool {
        let is_tag = |pattern: &str| {
            image
                .tag
                .as_ref()
                .is_some_and(|tag| glob(pattern, tag.as_str()))
        };
        self.host.matches(&image.host)
            && glob(&self.repository, image.repository.as_str())
            && self.tag.as_deref().is_none_or(is_tag)
    }
}

impl FromStr for ImagePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "{text:?} is not a pattern of images: write HOST/REPOSITORY or HOST/REPOSITORY:TAG, such as \
                 registry.example.com/team/* or docker.io/library/busybox"
            )
        };
        let (host, rest) = text.split_once('/').ok_or_else(malformed)?;
        let (repository, tag) = rest
            .split_once(':')
            .map_or((rest, None), |(repository, tag)| (repository, Some(tag)));
        let name = host.split(':').next().unwrap_or(host);
        let names_a_label = name
            .split('.')
            .any(|label| !label.is_empty() && !label.contains('*'));
        let is_host = host.contains(['.', ':']) || host == "localhost";
        let readable =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/*".contains(c);
        if !is_host
            || !names_a_label
            || repository.is_empty()
            || !repository.chars().all(readable)
            || tag.is_some_and(str::is_empty)
        {
            return Err(malformed());
        }
        Ok(Self {
            host: host.parse().map_err(|_| malformed())?,
            repository: repository.into(),
            tag: tag.map(Into::into),
        })
    }
}

impl Lookups {
    /// Returns the namespaces whose ImageAttachments apply to reviewed pods. `None`: all.
    pub(crate) fn attachment_scopes(&self) -> Vec<Option<String>> {
        if self.watch_namespaces.is_empty() {
            return vec![None];
        }
        let all = self.watch_namespaces.iter().chain(&self.trusted_namespaces);
        let all: std::collections::BTreeSet<&String> = all.collect();
        all.into_iter().cloned().map(Some).collect()
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
    fn t20_an_image_pattern_names_a_host_and_matches_no_other() {
        let matches = |pattern: &str, image: &str| {
            let pattern: ImagePattern = pattern.parse().unwrap();
            pattern.matches(&image.parse().unwrap())
        };
        for (pattern, image, expected) in [
            ("r.example.com/team/*", "r.example.com/team/a/b:v1", true),
            ("r.example.com/team/*", "r.example.com/other/a:v1", false),
            (
                "r.example.com/team/*",
                "evil.example.com/r.example.com/team/a:v1",
                false,
            ),
            ("r.example.com/*", "r.example.com:5000/team/a:v1", false),
            ("*.example.com/app", "r.example.com/app:v1", true),
            ("*.example.com/app", "a.b.example.com/app:v1", false),
            ("r.example.com/app:v1.*", "r.example.com/app:v1.2", true),
            ("r.example.com/app:v1.*", "r.example.com/app:v2.1", false),
        ] {
            assert_eq!(matches(pattern, image), expected, "{pattern} {image}");
        }
        let pinned = format!("r.example.com/app@sha256:{}", "a".repeat(64));
        assert!(matches("r.example.com/app", &pinned) && !matches("r.example.com/app:v1", &pinned));
        for pattern in [
            "*/app",
            "*.*/app",
            "app",
            "library/app",
            "r.example.com/",
            "r.example.com/app:",
            "r.example.com/App",
        ] {
            let error = pattern.parse::<ImagePattern>().unwrap_err();
            assert!(error.contains("HOST/REPOSITORY"), "{error}");
        }
    }
}
