//! `affix webhook`: the admission webhooks.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::admission::{
    self, CertificateSource, Configurations, DefaultMode, ImagePattern, LookupIdentity, Lookups,
    Options, ReportFormat, ReportOptions, SelfManaged, ServerLimits, UncheckedPolicy,
};
use crate::api::{GoDuration, Provider};
use crate::engine::LifecycleType;
use crate::service::{LeaderElection, ListenAddress, StartError};
use affix_registry::{self, HostPattern, RetryPolicy};

use crate::cli::flags::{AddressArgs, EndpointArgs, RegistryArgs, at_least_one, delay};

/// Flags of `affix webhook`.
#[derive(Debug, ClapArgs)]
#[command(after_long_help = "\
Examples:
  # Run in a cluster with self-signed certificates in a Secret
  affix webhook --certificate-secret affix-webhook-tls --service-name affix-webhook

  # Use a certificate of cert-manager that is mounted into the pod
  affix webhook --certificate-dir /etc/affix/tls

  # Refuse images only for dates that one of these keys has signed
  affix webhook --lifecycle-trust /etc/affix/release.pub,/etc/affix/security.pub

  # Use the end-of-life dates of the resources of one namespace, and marks of a second type
  affix webhook --trusted-namespaces platform --lifecycle-type application/vnd.microsoft.artifact.lifecycle,application/vnd.demo.artifact.lifecycle")]
pub(in crate::cli) struct Args {
    /// Address of the webhooks, over TLS
    #[arg(long, value_name = "ADDRESS", default_value = ":9443")]
    listen_addr: ListenAddress,
    #[command(flatten)]
    addresses: AddressArgs,
    /// Time after SIGTERM during which new calls are still accepted, until the Service stops routing to this replica
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    shutdown_delay: GoDuration,
    /// PEM file with the authorities of the API server's client certificate; callers without such a certificate are refused. If not
    /// set, every caller is served
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    #[command(flatten)]
    certificates: CertificateArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    end_of_life: EndOfLifeArgs,
    #[command(flatten)]
    reports: ReportArgs,
    #[command(flatten)]
    provider: ProviderArgs,
    #[command(flatten)]
    registries: RegistryArgs,
}

/// Flags of the certificate.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Certificate")]
struct CertificateArgs {
    /// Folder with tls.crt and tls.key, for example a mounted Secret of cert-manager; changes are detected. If not set, the webhook
    /// creates and renews a certificate itself
    #[arg(long, value_name = "FOLDER")]
    certificate_dir: Option<PathBuf>,
    /// Secret with the certificate that the replicas create and share
    #[arg(long, value_name = "NAME", default_value = "affix-webhook-tls")]
    certificate_secret: String,
    /// Namespace of the Secret and of the Service; by default that of the pod, or of the context of the kubeconfig
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Deployment that owns this Secret, so that both are deleted together; empty for none
    #[arg(long, value_name = "NAME", default_value = "")]
    owner_deployment: String,
    /// Service that the API server calls
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    service_name: String,
    /// Additional names and addresses of the certificate
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    dns_names: Vec<String>,
    /// ValidatingWebhookConfiguration that calls this webhook. Its absence is reported, and without --certificate-dir its caBundle is
    /// kept up to date; empty for none
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    validating_webhook_configuration: String,
    /// MutatingWebhookConfiguration that calls this webhook, as above; empty for none
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    mutating_webhook_configuration: String,
    /// Namespace in which the webhook dry-runs an ImageAttachment that it must refuse, to notice that no call of the API server
    /// arrives; empty for none
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    self_check_namespace: String,
    /// Dry-run such an ImageAttachment until the webhook refuses it, at most for this time, and exit: with 0 after the refusal
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1m")]
    self_check: Option<GoDuration>,
}

/// Limits of requests to the webhooks.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Maximum size of a review, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    max_body_bytes: usize,
    /// Maximum number of concurrent reviews
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = at_least_one())]
    max_concurrent: usize,
    /// Maximum number of open connections
    #[arg(long, value_name = "COUNT", default_value = "512", value_parser = at_least_one())]
    max_connections: usize,
}

/// Flags of the look-up of end-of-life dates.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "End of life")]
struct EndOfLifeArgs {
    /// Artifact types of end-of-life marks, as TYPE or TYPE=ANNOTATION; the default annotation of application/NAME is
    /// NAME.end-of-life.date
    #[arg(
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        default_value = "application/vnd.microsoft.artifact.lifecycle"
    )]
    lifecycle_type: Vec<LifecycleType>,
    /// Public keys as PEM, or folders with them. Only signed statements (OpenEoX Core) by one of these keys are then enforced; unsigned
    /// marks and statements of other keys cause warnings. Changes are detected
    #[arg(long, value_name = "FILE", value_delimiter = ',', num_args = 1..)]
    lifecycle_trust: Vec<PathBuf>,
    /// Time before the end-of-life date from which pods get a warning
    #[arg(long, value_name = "DURATION", default_value = "720h")]
    warn_before: GoDuration,
    /// Grace period of enforcement: time after the end-of-life date in which a namespace with the label value enforce only warns
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    enforce_after: GoDuration,
    /// Namespaces whose ImageAttachments are watched, besides the trusted ones; by default all. The webhook configurations select the
    /// namespaces whose objects are reviewed
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Namespaces whose ImageAttachments are trusted for the images of all pods; those of a pod's own namespace are trusted for dates
    /// in the past only
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    trusted_namespaces: Vec<String>,
    /// Time for which the marks of a digest are cached; a removed mark has no effect after this time
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    cache_ttl: GoDuration,
    /// Maximum time that a review waits for registries; after it the image is not checked. The time-out of the API server, less a
    /// margin, takes precedence if it is shorter
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    lookup_timeout: GoDuration,
    /// Effect of an image that could not be checked, in a namespace with enforce: admit the pod with a warning, or refuse it
    #[arg(long, value_name = "POLICY", value_enum, default_value = "warn")]
    unchecked: UncheckedPolicy,
    /// Mode of namespaces without the label affix.dev/end-of-life
    #[arg(long, value_name = "MODE", value_enum, default_value = "off")]
    default_mode: DefaultMode,
    /// Images that are not checked, such as registry.example.com/platform/* or docker.io/library/busybox:1.*
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    exempt_images: Vec<ImagePattern>,
    /// Pull Secrets in the webhook's own namespace for the images of all pods; those of the pod are tried first
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    image_pull_secrets: Vec<String>,
    /// Registries that are reached over plain HTTP
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    insecure_registries: Vec<HostPattern>,
}

/// Flags of the reports of running images.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Reports")]
struct ReportArgs {
    /// Write reports of the images that run in the cluster, as objects of this API; none are written if not set. The cluster must have
    /// the API
    #[arg(long, value_name = "FORMAT", value_enum)]
    reports: Option<ReportFormat>,
    /// Time between two lists of the pods
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = delay)]
    reports_interval: GoDuration,
    /// Time after which the marks of a running image are read again
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = delay)]
    reports_refresh_interval: GoDuration,
    /// Lease that elects the replica that writes the reports
    #[arg(long, value_name = "NAME", default_value = "affix-reports")]
    reports_lease: String,
}

impl ReportArgs {
    fn options(self, namespace: Option<String>, owner: Option<String>) -> Option<ReportOptions> {
        Some(ReportOptions {
            format: self.reports?,
            interval: self.reports_interval.get(),
            refresh_interval: self.reports_refresh_interval.get(),
            election: LeaderElection {
                namespace,
                name: self.reports_lease,
                owner,
                lease_duration: Duration::from_secs(15),
                renew_deadline: Duration::from_secs(10),
                retry_period: Duration::from_secs(2),
            },
        })
    }
}

/// Flags of the webhook's own login to the registries of a cloud.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Workload identity")]
struct ProviderArgs {
    /// Cloud whose registries are looked up with an identity of the webhook; the pull Secrets are tried first
    #[arg(long, value_name = "PROVIDER", value_enum, default_value = "generic")]
    provider: Provider,
    /// ServiceAccount in the webhook's own namespace with this identity
    #[arg(long, value_name = "NAME", default_value = "affix-webhook")]
    provider_service_account: String,
    #[command(flatten)]
    endpoints: EndpointArgs,
}

impl ProviderArgs {
    fn identity(self) -> Option<LookupIdentity> {
        (self.provider != Provider::Generic).then(|| LookupIdentity {
            provider: self.provider,
            service_account: self.provider_service_account,
            endpoints: self.endpoints.into(),
        })
    }
}

impl Args {
    /// Runs the webhooks until the process receives a signal.
    ///
    /// # Errors
    /// If they cannot start.
    pub(in crate::cli) async fn run(self) -> Result<(), StartError> {
        let certificates = &self.certificates;
        let Some(patience) = &certificates.self_check else {
            return admission::run(self.options()).await;
        };
        admission::self_check(&certificates.self_check_namespace, patience.get()).await?;
        tracing::info!("the API server calls the webhook: it refused an invalid ImageAttachment");
        Ok(())
    }

    fn options(self) -> Options {
        let (certificates, end_of_life) = (self.certificates, self.end_of_life);
        let non_empty = |name: String| (!name.is_empty()).then_some(name);
        let own_namespace = certificates.namespace.clone();
        let owner = non_empty(certificates.owner_deployment.clone());
        let reports = self.reports.options(own_namespace.clone(), owner);
        Options {
            listen_addr: self.listen_addr,
            addresses: self.addresses.into(),
            shutdown_delay: self.shutdown_delay.get(),
            certificate: match certificates.certificate_dir {
                Some(dir) => CertificateSource::Provided(dir),
                None => CertificateSource::SelfManaged(SelfManaged {
                    secret: certificates.certificate_secret,
                    namespace: certificates.namespace,
                    owner: non_empty(certificates.owner_deployment),
                    service: certificates.service_name,
                    names: certificates.dns_names,
                }),
            },
            client_ca: self.client_ca,
            configurations: Configurations {
                validating: non_empty(certificates.validating_webhook_configuration),
                mutating: non_empty(certificates.mutating_webhook_configuration),
                self_check_namespace: non_empty(certificates.self_check_namespace),
            },
            limits: ServerLimits {
                body_bytes: self.limits.max_body_bytes,
                concurrent: self.limits.max_concurrent,
                connections: self.limits.max_connections,
                ..ServerLimits::default()
            },
            lookups: Lookups {
                lifecycle_types: end_of_life.lifecycle_type,
                lifecycle_trust: end_of_life.lifecycle_trust,
                warn_before: end_of_life.warn_before.get(),
                enforce_after: end_of_life.enforce_after.get(),
                watch_namespaces: end_of_life.watch_namespaces,
                trusted_namespaces: end_of_life.trusted_namespaces,
                cache_ttl: end_of_life.cache_ttl.get(),
                timeout: end_of_life.lookup_timeout.get(),
                insecure_registries: end_of_life.insecure_registries,
                unchecked: end_of_life.unchecked,
                default_mode: end_of_life.default_mode,
                exempt_images: end_of_life.exempt_images,
                image_pull_secrets: end_of_life.image_pull_secrets,
                identity: self.provider.identity(),
                own_namespace,
            },
            reports,
            registries: affix_registry::Options {
                // A review waits for the look-up timeout only, so more tries would be in vain.
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
