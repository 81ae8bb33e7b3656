//! `affix controller`: the operator. The flags are Flux's where Flux has them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::api::GoDuration;
use crate::controller::{self, Options};
use crate::engine::EngineOptions;
use crate::registry::{self, HostPattern, Limits};

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
}

/// What is allowed with registries.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Registries")]
struct RegistryArgs {
    /// Allow resources that set insecure: true to speak plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    insecure_allow_http: bool,
    /// Allow registries on loopback addresses
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    allow_loopback: bool,
    /// Registries that may be used, such as registry.example.com or *.example.com:5000; all without it
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allowed_registries: Vec<HostPattern>,
    /// Refuse registries in private networks
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    deny_private_networks: bool,
    /// Requests in flight at once to one registry
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    max_requests_per_registry: usize,
    /// Largest manifest, index or page of a listing, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    max_manifest_bytes: u64,
    /// Most pages of one listing
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    max_listing_pages: usize,
    /// Most referrers of one manifest that are read
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_referrers: usize,
    /// Most entries of one image
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_index_entries: usize,
    /// Deepest nesting of indexes that is walked
    #[arg(long, value_name = "LEVELS", default_value_t = 4)]
    max_index_depth: usize,
    /// Referrers of one manifest at which affix adds no more; no limit without it
    #[arg(long, value_name = "COUNT")]
    referrers_limit: Option<usize>,
}

/// An address, or none.
#[derive(Debug, Clone, Copy)]
struct Address(Option<SocketAddr>);

/// Reads `host:port`, `:port` (every address of the machine) and `0` (none).
fn address(text: &str) -> Result<Address, String> {
    if text == "0" {
        return Ok(Address(None));
    }
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    whole
        .parse()
        .map(|address| Address(Some(address)))
        .map_err(|_| format!("{text:?} is not an address: write :8080, 127.0.0.1:8080, or 0 to switch it off"))
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
        let registries = self.registries;
        let pause = |duration: &GoDuration| -> Duration { duration.get() };
        let api_server = std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
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
            registries: registry::Options {
                allowed_registries: registries.allowed_registries,
                deny_private_networks: registries.deny_private_networks,
                allow_loopback: registries.allow_loopback,
                allow_http: registries.insecure_allow_http,
                denied_addresses: api_server.into_iter().collect(),
                max_requests_per_registry: registries.max_requests_per_registry,
                limits: Limits {
                    manifest_bytes: registries.max_manifest_bytes,
                    pages: registries.max_listing_pages,
                    referrers: registries.max_referrers,
                    index_entries: registries.max_index_entries,
                    depth: registries.max_index_depth,
                    ..Limits::default()
                },
                ..registry::Options::default()
            },
            engine: EngineOptions { most_referrers: registries.referrers_limit, ..EngineOptions::default() },
        }
    }
}
