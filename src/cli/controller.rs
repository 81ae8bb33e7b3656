//! `affix controller`: the operator. The flags are Flux's where Flux has them.

use std::collections::BTreeSet;

use clap::Args as ClapArgs;

use crate::api::GoDuration;
use crate::controller::{self, LeaderElection, Options};
use crate::engine::EngineOptions;
use affix_registry::oci::Digest;

use super::flags::{AddressArgs, RegistryArgs, at_least_one, pause};

/// Flags of `affix controller`.
#[derive(Debug, ClapArgs)]
#[command(after_long_help = "\
Examples:
  # Against the cluster of the current kubeconfig, with a registry on this machine
  affix controller --allow-loopback --metrics-addr 127.0.0.1:8080

  # Only two teams, and only the company's registry
  affix controller --watch-namespaces team-a,team-b --allowed-registries registry.example.com,*.registry.example.com

  # One shard of two
  affix controller --watch-label-selector affix.dev/shard=1")]
pub(super) struct Args {
    #[command(flatten)]
    addresses: AddressArgs,
    /// Only resources with these labels, for sharding
    #[arg(long, value_name = "SELECTOR")]
    watch_label_selector: Option<String>,
    /// Only these namespaces; all without it
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Resources worked on at once
    #[arg(long, value_name = "COUNT", default_value = "64", value_parser = at_least_one())]
    concurrent: usize,
    /// First delay after a failure
    #[arg(long, value_name = "DURATION", default_value = "750ms", value_parser = pause)]
    min_retry_delay: GoDuration,
    /// Longest delay after failures
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = pause)]
    max_retry_delay: GoDuration,
    /// By how much an interval is shortened or lengthened at random
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    interval_jitter_percentage: u8,
    /// How often the registries' listings are verified
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = pause)]
    verify_interval: GoDuration,
    /// How long a deleted resource with deletionPolicy: Delete may be held for the removal of what it made, before it is let go all the same
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    deletion_timeout: GoDuration,
    /// Requests per second to the API server in the long run; 0: as many as it takes
    #[arg(long, value_name = "RATE", default_value_t = 500.0)]
    kube_api_qps: f32,
    /// Requests to the API server that may go at once, before --kube-api-qps counts
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    kube_api_burst: u32,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Referrers of one manifest at which affix adds no more; no limit without it
    #[arg(long, value_name = "COUNT", help_heading = "Registries")]
    referrers_limit: Option<usize>,
    /// Longest time for one pass over one resource, whatever its spec.timeout says
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10m",
        help_heading = "Registries"
    )]
    max_pass_time: GoDuration,
}

/// How replicas agree on the one that works.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Leader election")]
struct ElectionArgs {
    /// Work only while holding a Lease, so that several replicas can run
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Namespace of the Lease; that of the pod, or of the kubeconfig's context, without it
    #[arg(long, value_name = "NAMESPACE", env = "RUNTIME_NAMESPACE")]
    leader_election_namespace: Option<String>,
    /// Name of the Lease; with --watch-label-selector, a hash of the selector is added
    #[arg(long, value_name = "NAME", default_value = "affix-controller")]
    leader_election_name: String,
    /// How long the Lease is nobody else's after its last renewal
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    leader_election_lease_duration: GoDuration,
    /// How long a leader works without a renewal
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    leader_election_renew_deadline: GoDuration,
    /// Time between two renewals
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    leader_election_retry_period: GoDuration,
}

impl ElectionArgs {
    /// The shards of one installation have a Lease each.
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
            lease_duration: self.leader_election_lease_duration.get(),
            renew_deadline: self.leader_election_renew_deadline.get(),
            retry_period: self.leader_election_retry_period.get(),
        })
    }
}

impl Args {
    /// Runs the operator until it is told to stop.
    ///
    /// # Errors
    /// When it cannot start.
    pub(super) async fn run(self) -> Result<(), controller::RunError> {
        controller::run(self.options()).await
    }

    fn options(self) -> Options {
        Options {
            addresses: self.addresses.into(),
            leader_election: self.election.options(self.watch_label_selector.as_deref()),
            watch_label_selector: self.watch_label_selector,
            // Each has one watch: of two on one namespace, either would take what it sees for known by the other.
            watch_namespaces: BTreeSet::from_iter(self.watch_namespaces)
                .into_iter()
                .collect(),
            concurrent: self.concurrent,
            min_retry_delay: self.min_retry_delay.get(),
            max_retry_delay: self.max_retry_delay.get(),
            interval_jitter_percentage: self.interval_jitter_percentage,
            verify_interval: self.verify_interval.get(),
            deletion_timeout: self.deletion_timeout.get(),
            kube_api_qps: self.kube_api_qps,
            kube_api_burst: self.kube_api_burst,
            registries: self.registries.options(),
            engine: EngineOptions {
                most_referrers: self.referrers_limit,
                longest_pass: Some(self.max_pass_time.get()),
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
    fn a_namespace_that_is_named_twice_is_watched_once() {
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
