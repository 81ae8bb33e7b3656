//! `affix webhook`: the admission webhooks.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::admission::{
    self, CertificateSource, LifecycleType, Lookups, Options, SelfManaged, ServerLimits,
};
use crate::api::GoDuration;
use crate::service::{ListenAddress, StartError};
use affix_registry::{self, HostPattern, RetryPolicy};

use super::flags::{AddressArgs, RegistryArgs, at_least_one};

/// Flags of `affix webhook`.
#[derive(Debug, ClapArgs)]
#[command(after_long_help = "\
Examples:
  # In the cluster, with certificates that it makes itself and keeps in a Secret
  affix webhook --certificate-secret affix-webhook-tls --service-name affix-webhook

  # With a certificate that cert-manager made and the pod has mounted
  affix webhook --certificate-dir /etc/affix/tls

  # Also what one team's resources say of end-of-life dates, and marks of another type
  affix webhook --trusted-namespaces platform --lifecycle-type application/vnd.microsoft.artifact.lifecycle,application/vnd.demo.artifact.lifecycle")]
pub(super) struct Args {
    /// Where the API server is answered, over TLS
    #[arg(long, value_name = "ADDRESS", default_value = ":9443")]
    listen_addr: ListenAddress,
    #[command(flatten)]
    addresses: AddressArgs,
    /// After SIGTERM: how long new calls are still taken, so that none fails while the Service forgets this replica
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    shutdown_delay: GoDuration,
    #[command(flatten)]
    certificates: CertificateArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    end_of_life: EndOfLifeArgs,
    #[command(flatten)]
    registries: RegistryArgs,
}

/// Where the certificate comes from.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Certificate")]
struct CertificateArgs {
    /// Folder with tls.crt and tls.key, such as a mounted Secret of cert-manager, looked at again every few seconds; without it the
    /// certificate is made and renewed here
    #[arg(long, value_name = "FOLDER")]
    certificate_dir: Option<PathBuf>,
    /// The Secret in which all replicas share the certificate that they make
    #[arg(long, value_name = "NAME", default_value = "affix-webhook-tls")]
    certificate_secret: String,
    /// Namespace of that Secret and of the Service; that of the pod (or of the kubeconfig) without it
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// The Service by which the API server calls
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    service_name: String,
    /// More names and addresses that the certificate is for
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    dns_names: Vec<String>,
    /// The configuration whose caBundle is kept current; empty: none
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    validating_webhook_configuration: String,
    /// The configuration whose caBundle is kept current; empty: none
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    mutating_webhook_configuration: String,
}

/// What is taken from callers.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Largest review, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    max_body_bytes: usize,
    /// Reviews worked on at once
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = at_least_one())]
    max_concurrent: usize,
    /// Connections at once
    #[arg(long, value_name = "COUNT", default_value = "512", value_parser = at_least_one())]
    max_connections: usize,
}

/// What is looked up about the images of pods.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "End of life")]
struct EndOfLifeArgs {
    /// Types of end-of-life marks that count, as TYPE or TYPE=ANNOTATION; for application/NAME the annotation is
    /// NAME.end-of-life.date unless it is given
    #[arg(
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        default_value = "application/vnd.microsoft.artifact.lifecycle"
    )]
    lifecycle_type: Vec<LifecycleType>,
    /// How long before the date a pod gets a warning
    #[arg(long, value_name = "DURATION", default_value = "720h")]
    warn_before: GoDuration,
    /// Namespaces whose ImageAttachments are believed about every pod's images; a pod's own namespace is believed about dates that
    /// have passed
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    trusted_namespaces: Vec<String>,
    /// How long an answer about a digest is believed: a mark that is taken away is gone from verdicts after this time
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    cache_ttl: GoDuration,
    /// How long one review may wait for registries before it is admitted with a warning
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    lookup_timeout: GoDuration,
    /// Registries that are asked over plain HTTP about images of pods
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    insecure_registries: Vec<HostPattern>,
}

impl Args {
    /// Runs the webhooks until they are told to stop.
    ///
    /// # Errors
    /// When they cannot start.
    pub(super) async fn run(self) -> Result<(), StartError> {
        admission::run(self.options()).await
    }

    fn options(self) -> Options {
        let (certificates, end_of_life) = (self.certificates, self.end_of_life);
        let named = |name: String| (!name.is_empty()).then_some(name);
        Options {
            listen_addr: self.listen_addr,
            addresses: self.addresses.into(),
            shutdown_delay: self.shutdown_delay.get(),
            certificate: match certificates.certificate_dir {
                Some(dir) => CertificateSource::Given(dir),
                None => CertificateSource::SelfManaged(SelfManaged {
                    secret: certificates.certificate_secret,
                    namespace: certificates.namespace,
                    service: certificates.service_name,
                    names: certificates.dns_names,
                    validating: named(certificates.validating_webhook_configuration),
                    mutating: named(certificates.mutating_webhook_configuration),
                }),
            },
            limits: ServerLimits {
                body_bytes: self.limits.max_body_bytes,
                concurrent: self.limits.max_concurrent,
                connections: self.limits.max_connections,
                ..ServerLimits::default()
            },
            lookups: Lookups {
                lifecycle_types: end_of_life.lifecycle_type,
                warn_before: end_of_life.warn_before.get(),
                trusted_namespaces: end_of_life.trusted_namespaces,
                cache_ttl: end_of_life.cache_ttl.get(),
                timeout: end_of_life.lookup_timeout.get(),
                insecure_registries: end_of_life.insecure_registries,
            },
            registries: affix_registry::Options {
                // Nobody waits longer than the look-up's time-out; what is asked again later has a better chance.
                retry: RetryPolicy {
                    min_tries: 2,
                    max_tries: 2,
                    ..RetryPolicy::default()
                },
                ..self.registries.options()
            },
        }
    }
}
