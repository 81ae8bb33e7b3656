//! `affix controller`: the operator. The flags are Flux's where Flux has them.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::api::GoDuration;
use crate::controller::{self, Options};
use crate::engine::EngineOptions;

use super::flags::{Address, RegistryArgs, address};

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
    /// Where /metrics is served; 0 switches it off
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    metrics_addr: Address,
    /// Where /healthz and /readyz are served; 0 switches them off
    #[arg(long, value_name = "ADDRESS", default_value = ":9440", value_parser = address)]
    health_addr: Address,
    /// Only resources with these labels, for sharding
    #[arg(long, value_name = "SELECTOR")]
    watch_label_selector: Option<String>,
    /// Only these namespaces; all without it
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Resources worked on at once
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    concurrent: usize,
    /// First delay after a failure
    #[arg(long, value_name = "DURATION", default_value = "750ms")]
    min_retry_delay: GoDuration,
    /// Longest delay after failures
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    max_retry_delay: GoDuration,
    /// By how much an interval is shortened or lengthened at random
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    interval_jitter_percentage: u8,
    /// How often the registries' listings are verified
    #[arg(long, value_name = "DURATION", default_value = "6h")]
    verify_interval: GoDuration,
    /// How long a deleted resource with deletionPolicy: Delete may be held for the removal of what it made, before it is let go all the same
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    deletion_timeout: GoDuration,
    /// Requests per second to the API server
    #[arg(long, value_name = "RATE", default_value_t = 50.0)]
    kube_api_qps: f32,
    /// Requests at once to the API server
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    kube_api_burst: u32,
    #[command(flatten)]
    registries: RegistryArgs,
    /// Referrers of one manifest at which affix adds no more; no limit without it
    #[arg(long, value_name = "COUNT", help_heading = "Registries")]
    referrers_limit: Option<usize>,
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
        let pause = |duration: &GoDuration| -> Duration { duration.get() };
        Options {
            metrics_addr: self.metrics_addr.0,
            health_addr: self.health_addr.0,
            watch_label_selector: self.watch_label_selector,
            watch_namespaces: self.watch_namespaces,
            concurrent: self.concurrent,
            min_retry_delay: pause(&self.min_retry_delay),
            max_retry_delay: pause(&self.max_retry_delay),
            interval_jitter_percentage: self.interval_jitter_percentage,
            verify_interval: pause(&self.verify_interval),
            deletion_timeout: pause(&self.deletion_timeout),
            kube_api_qps: self.kube_api_qps,
            kube_api_burst: self.kube_api_burst,
            registries: self.registries.options(),
            engine: EngineOptions { most_referrers: self.referrers_limit, ..EngineOptions::default() },
        }
    }
}
