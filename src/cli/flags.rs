//! Flags that `controller` and `webhook` share.

use std::time::Duration;

use clap::Args as ClapArgs;
use clap::builder::RangedU64ValueParser;

use crate::api::GoDuration;
use crate::identity::Endpoints;
use crate::service::{Addresses, ListenAddress};
use affix_registry::{self, HostPattern, Limits};

/// Flags of registry access.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Registries")]
pub(super) struct RegistryArgs {
    /// Allow plain HTTP for resources with insecure: true
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    insecure_allow_http: bool,
    /// Allow registries on loopback addresses
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    allow_loopback: bool,
    /// Allowed registries, such as registry.example.com or *.example.com:5000; all if not set
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allowed_registries: Vec<HostPattern>,
    /// Deny registries in private networks
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    deny_private_networks: bool,
    /// Maximum number of requests in flight to one registry
    #[arg(long, value_name = "COUNT", default_value = "32", value_parser = at_least_one())]
    max_requests_per_registry: usize,
    /// Maximum size of a manifest, an index or a page of a listing, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    max_manifest_bytes: u64,
    /// Maximum number of pages of one listing
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    max_listing_pages: usize,
    /// Maximum number of referrers of one manifest that are read
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_referrers: usize,
    /// Maximum number of entries of one index
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    max_index_entries: usize,
    /// Maximum depth of nested indexes
    #[arg(long, value_name = "LEVELS", default_value_t = 4)]
    max_index_depth: usize,
    /// Maximum size of all pages of one listing, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    max_listing_bytes: u64,
    /// Maximum number of bytes that one reconcile or one look-up reads from a registry
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    max_pass_bytes: u64,
}

/// Flags of the logins of clouds.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Workload identity")]
pub(super) struct EndpointArgs {
    /// Endpoint of AWS STS, such as that of a VPC endpoint; by default that of the registry's region
    #[arg(long, value_name = "URL", value_parser = https_url)]
    aws_sts_endpoint: Option<String>,
    /// Authority of Microsoft Entra; by default that of the registry's cloud
    #[arg(long, value_name = "URL", value_parser = https_url)]
    azure_authority_host: Option<String>,
    /// Endpoint of Google's STS; by default sts.googleapis.com
    #[arg(long, value_name = "URL", value_parser = https_url)]
    gcp_sts_endpoint: Option<String>,
}

impl From<EndpointArgs> for Endpoints {
    fn from(args: EndpointArgs) -> Self {
        Self {
            aws_sts: args.aws_sts_endpoint,
            azure_authority: args.azure_authority_host,
            gcp_sts: args.gcp_sts_endpoint,
        }
    }
}

/// Parses the URL of a service that gets tokens of ServiceAccounts.
fn https_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").unwrap_or_default();
    if host.is_empty() || host.contains(['?', '#', '@']) || host.contains(char::is_whitespace) {
        return Err("write a URL such as https://sts.example.com".to_owned());
    }
    Ok(text.to_owned())
}

/// Addresses of metrics and health probes.
#[derive(Debug, ClapArgs)]
pub(super) struct AddressArgs {
    /// Address of /metrics; 0 disables it
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    metrics_addr: Address,
    /// Address of /healthz and /readyz; 0 disables them
    #[arg(long, value_name = "ADDRESS", default_value = ":9440", value_parser = address)]
    health_addr: Address,
}

impl From<AddressArgs> for Addresses {
    fn from(args: AddressArgs) -> Self {
        Self {
            metrics: args.metrics_addr.0,
            health: args.health_addr.0,
        }
    }
}

/// An address, or `None` if it is disabled.
#[derive(Debug, Clone, Copy)]
struct Address(Option<ListenAddress>);

/// Parses an address, or `0` for none.
fn address(text: &str) -> Result<Address, String> {
    match text {
        "0" => Ok(Address(None)),
        text => text
            .parse()
            .map(|address| Address(Some(address)))
            .map_err(|error| format!("{error}, or 0 to disable it")),
    }
}

/// Returns a parser of counts. Zero would stop all work.
pub(super) fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Parses a delay. Zero would make a busy loop.
pub(super) fn delay(text: &str) -> Result<GoDuration, String> {
    const MIN_DELAY: Duration = Duration::from_millis(10);
    let delay: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    if delay.get() < MIN_DELAY {
        Err("it must be at least 10ms".to_owned())
    } else {
        Ok(delay)
    }
}

impl RegistryArgs {
    /// Returns the options. The address of the API server is always denied.
    pub(super) fn options(self) -> affix_registry::Options {
        let api_server = std::env::var("KUBERNETES_SERVICE_HOST")
            .ok()
            .and_then(|host| host.parse().ok());
        affix_registry::Options {
            allowed_registries: self.allowed_registries,
            deny_private_networks: self.deny_private_networks,
            allow_loopback: self.allow_loopback,
            allow_http: self.insecure_allow_http,
            denied_addresses: api_server.into_iter().collect(),
            max_requests_per_registry: self.max_requests_per_registry,
            limits: Limits {
                manifest_bytes: self.max_manifest_bytes,
                pages: self.max_listing_pages,
                referrers: self.max_referrers,
                index_entries: self.max_index_entries,
                depth: self.max_index_depth,
                listing_bytes: self.max_listing_bytes,
                session_bytes: self.max_pass_bytes,
                ..Limits::default()
            },
            ..affix_registry::Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use clap::CommandFactory as _;

    use crate::cli::Cli;

    #[test]
    fn a_token_service_is_reached_over_https() {
        for (url, is_valid) in [
            ("https://sts.example.com", true),
            ("https://vpce-1.sts.eu-west-1.vpce.amazonaws.com/", true),
            ("http://sts.example.com", false),
            ("https://", false),
            ("https://user@sts.example.com", false),
            ("sts.example.com", false),
        ] {
            for command in ["controller", "webhook"] {
                let flag = format!("--aws-sts-endpoint={url}");
                let parsed = Cli::command().try_get_matches_from(["affix", command, &flag]);
                assert_eq!(parsed.is_ok(), is_valid, "{command} {url}");
            }
        }
    }

    #[test]
    fn values_that_would_stop_all_work_or_make_a_busy_loop_are_refused() {
        for (command, flag, none, some) in [
            ("controller", "--verify-interval", "0s", "10ms"),
            ("controller", "--min-retry-delay", "0", "1s"),
            ("controller", "--max-retry-delay", "9ms", "1s"),
            ("controller", "--concurrent", "0", "1"),
            ("controller", "--max-requests-per-registry", "0", "1"),
            ("webhook", "--max-concurrent", "0", "1"),
            ("webhook", "--max-connections", "-1", "1"),
        ] {
            let parse = |value: &str| {
                Cli::command().try_get_matches_from(["affix", command, &format!("{flag}={value}")])
            };
            let error = parse(none).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(none), "{error}");
            assert!(parse(some).is_ok(), "{flag}={some}");
        }
    }
}
