//! `affix controller`: the operator. Flags that Flux has too have the names of Flux.

use std::collections::BTreeSet;

use clap::Args as ClapArgs;

use crate::api::GoDuration;
use crate::controller::{self, LeaderElection, Options};
use crate::engine::{EngineOptions, TenantRules};
use crate::service::cluster_networks;
use affix_registry::oci::Digest;
use affix_registry::{HostPattern, IpNet};

use crate::cli::flags::{AddressArgs, EndpointArgs, RegistryArgs, at_least_one, delay};
use crate::cli::label_selector::label_selector;

/// Flags of `affix controller`.
#[derive(Debug, ClapArgs)]
#[command(after_long_help = "\
Examples:
  # Run against the cluster of the current kubeconfig, with a registry on this machine
  affix controller --allow-loopback --metrics-addr 127.0.0.1:8080

  # Reconcile the resources of two namespaces only, and allow one registry only
  affix controller --watch-namespaces team-a,team-b --allowed-registries registry.example.com,*.registry.example.com

  # Run one of two shards
  affix controller --watch-label-selector affix.dev/shard=1")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    addresses: AddressArgs,
    /// Reconcile only resources with these labels, for sharding
    #[arg(long, value_name = "SELECTOR", value_parser = label_selector)]
    watch_label_selector: Option<String>,
    /// Namespaces to watch; all if not set
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Number of resources that are reconciled at once
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = at_least_one())]
    concurrent: usize,
    /// Number of resources of one namespace that are reconciled, the oldest first
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = at_least_one())]
    max_resources_per_namespace: usize,
    /// Size in bytes of all resources of one namespace that are reconciled, the oldest first
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    max_resource_bytes_per_namespace: u64,
    /// Minimum delay before a failed reconcile is retried
    #[arg(long, value_name = "DURATION", default_value = "750ms", value_parser = delay)]
    min_retry_delay: GoDuration,
    /// Maximum delay before a failed reconcile is retried
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = delay)]
    max_retry_delay: GoDuration,
    /// Minimum interval of a resource that needs no retry; it lengthens a shorter spec.interval
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = delay)]
    min_interval: GoDuration,
    /// Percentage by which an interval is shortened or lengthened at random
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    interval_jitter_percentage: u8,
    /// Interval at which the attachments are verified against the registries
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = delay)]
    verify_interval: GoDuration,
    /// Time to remove the attachments of a deleted resource with deletionPolicy: Delete, after which its finalizer is removed anyway
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    deletion_timeout: GoDuration,
    /// Maximum rate of requests to the API server, per second; 0 disables the limit
    #[arg(long, value_name = "RATE", default_value_t = 500.0)]
    kube_api_qps: f32,
    /// Maximum burst of requests to the API server above --kube-api-qps
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    kube_api_burst: u32,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Number of referrers of one manifest above which affix adds no more; unlimited if not set
    #[arg(long, value_name = "COUNT", help_heading = "Registries")]
    referrers_limit: Option<usize>,
    /// Maximum time of one reconcile; it limits spec.timeout
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10m",
        help_heading = "Registries"
    )]
    max_pass_time: GoDuration,
    #[command(flatten)]
    tenants: TenantArgs,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// Flags of the logins of resources by cloud identities.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Workload identity")]
struct IdentityArgs {
    /// Log in to the registries of clouds (provider) and to key management services (kms), and sign without a key (keyless), by tokens of ServiceAccounts; needs the right to create serviceaccounts/token
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    enable_workload_identity: bool,
    /// Allowed hosts of key management services and of Sigstore services, such as bao.example.com or *.example.com:8200; all if not set
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allowed_signing_hosts: Vec<HostPattern>,
    #[command(flatten)]
    endpoints: EndpointArgs,
}

/// Flags on the rights of those who create resources.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Tenants")]
struct TenantArgs {
    /// Use the proxy of a resource (proxySecretRef)
    #[arg(long, value_name = "RULE", value_enum, default_value = "allow")]
    tenant_proxies: TenantRule,
    /// Trust the certificate authority of a resource (ca.crt of certSecretRef)
    #[arg(long, value_name = "RULE", value_enum, default_value = "allow")]
    tenant_authorities: TenantRule,
    /// Hosts that registries may name for uploads, such as store.example.com:9000; other hosts than the registry itself need a public
    /// address if not set
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    upload_hosts: Vec<HostPattern>,
    /// Networks of the cluster, such as 10.96.0.0/12, in addition to those that affix detects; a registry cannot name a host there for
    /// uploads
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    cluster_networks: Vec<IpNet>,
}

/// The rule of the operator for a field that tenants set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TenantRule {
    Allow,
    Refuse,
}

impl TenantArgs {
    fn rules(&self) -> TenantRules {
        TenantRules {
            refuse_proxies: self.tenant_proxies == TenantRule::Refuse,
            refuse_authorities: self.tenant_authorities == TenantRule::Refuse,
        }
    }

    /// Adds the rules for uploads.
    fn complete(self, options: affix_registry::Options) -> affix_registry::Options {
        let mut cluster_networks = cluster_networks();
        cluster_networks.extend(self.cluster_networks);
        affix_registry::Options {
            upload_hosts: self.upload_hosts,
            cluster_networks,
            ..options
        }
    }
}

/// Flags of leader election.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Leader election")]
struct ElectionArgs {
    /// Reconcile only while holding a Lease, so that several replicas can run
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Namespace of the Lease; by default that of the pod, or of the context of the kubeconfig
    #[arg(long, value_name = "NAMESPACE", env = "RUNTIME_NAMESPACE")]
    leader_election_namespace: Option<String>,
    /// Name of the Lease; with --watch-label-selector, a hash of the selector is appended
    #[arg(long, value_name = "NAME", default_value = "affix-controller")]
    leader_election_name: String,
    /// Deployment that owns the Lease, so that both are deleted together; empty for none
    #[arg(long, value_name = "NAME", default_value = "")]
    owner_deployment: String,
    /// Time after the last renewal during which no other replica takes the Lease
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    leader_election_lease_duration: GoDuration,
    /// Time without a renewal after which the leader stops
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    leader_election_renew_deadline: GoDuration,
    /// Time between renewals
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    leader_election_retry_period: GoDuration,
}

impl ElectionArgs {
    /// Returns the options. Each shard of an installation has its own Lease.
    fn options(self, selector: Option<&str>) -> Option<LeaderElection> {
        let name = match selector {
            None => self.leader_election_name,
            Some(selector) => {
                let hash: String = Digest::sha256(selector.as_bytes())
                    .hex()
                    .chars()
                    .take(8)
                    .collect();
                format!("{}-{hash}", self.leader_election_name)
            }
        };
        self.leader_elect.then(|| LeaderElection {
            namespace: self
                .leader_election_namespace
                .filter(|namespace| !namespace.is_empty()),
            name,
            owner: Some(self.owner_deployment).filter(|owner| !owner.is_empty()),
            lease_duration: self.leader_election_lease_duration.get(),
            renew_deadline: self.leader_election_renew_deadline.get(),
            retry_period: self.leader_election_retry_period.get(),
        })
    }
}

impl Args {
    /// Runs the operator until it receives a signal.
    ///
    /// # Errors
    /// If it cannot start.
    pub(in crate::cli) async fn run(self) -> Result<(), controller::RunError> {
        controller::run(self.options()).await
    }

    fn options(self) -> Options {
        Options {
            addresses: self.addresses.into(),
            leader_election: self.election.options(self.watch_label_selector.as_deref()),
            watch_label_selector: self.watch_label_selector,
            // There is one watch for each namespace, so a namespace must not occur twice.
            watch_namespaces: BTreeSet::from_iter(self.watch_namespaces)
                .into_iter()
                .collect(),
            concurrent: self.concurrent,
            max_resources_per_namespace: self.max_resources_per_namespace,
            max_resource_bytes_per_namespace: self.max_resource_bytes_per_namespace,
            min_retry_delay: self.min_retry_delay.get(),
            max_retry_delay: self.max_retry_delay.get(),
            min_interval: self.min_interval.get(),
            interval_jitter_percentage: self.interval_jitter_percentage,
            verify_interval: self.verify_interval.get(),
            deletion_timeout: self.deletion_timeout.get(),
            kube_api_qps: self.kube_api_qps,
            kube_api_burst: self.kube_api_burst,
            tenants: self.tenants.rules(),
            workload_identity: self
                .identity
                .enable_workload_identity
                .then(|| self.identity.endpoints.into()),
            registries: affix_registry::Options {
                allowed_services: self.identity.allowed_signing_hosts,
                ..self.tenants.complete(self.registries.options())
            },
            engine: EngineOptions {
                max_referrers: self.referrers_limit,
                max_pass_time: Some(self.max_pass_time.get()),
                ..EngineOptions::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_namespace_that_is_given_twice_is_watched_once() {
        let command = Command::parse_from([
            "affix",
            "--watch-namespaces",
            "team-b,team-a",
            "--watch-namespaces",
            "team-b",
        ]);
        assert_eq!(
            command.args.options().watch_namespaces,
            ["team-a", "team-b"]
        );
    }
}
