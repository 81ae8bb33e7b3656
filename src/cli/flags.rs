//! Flags that several long-running commands share.

use std::time::Duration;

use clap::Args as ClapArgs;
use clap::builder::RangedU64ValueParser;

use crate::api::GoDuration;
use crate::service::{Addresses, ListenAddress};
use affix_registry::{self, HostPattern, Limits};

/// What is allowed with registries.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Registries")]
pub(super) struct RegistryArgs {
    /// Allow resources that set insecure: true to speak plain HTTP
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    insecure_allow_http: bool,
    /// Allow registries on loopback addresses
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    allow_loopback: bool,
    /// Registries that may be used, such as registry.example.com or *.example.com:5000; all without it
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allowed_registries: Vec<HostPattern>,
    /// Refuse registries in private networks
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    deny_private_networks: bool,
    /// Requests in flight at once to one registry
    #[arg(long, value_name = "COUNT", default_value = "32", value_parser = at_least_one())]
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
    /// Most bytes of all pages of one listing together
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    max_listing_bytes: u64,
    /// Most bytes that one pass over one resource, or one look at an image, takes from a registry in all
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20)]
    max_pass_bytes: u64,
}

/// Where a long-running command can be asked how it is.
#[derive(Debug, ClapArgs)]
pub(super) struct AddressArgs {
    /// Where /metrics is served; 0 switches it off
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    metrics_addr: Address,
    /// Where /healthz and /readyz are served; 0 switches them off
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

/// An address, or none.
#[derive(Debug, Clone, Copy)]
struct Address(Option<ListenAddress>);

/// Reads an address, or `0` for none.
fn address(text: &str) -> Result<Address, String> {
    match text {
        "0" => Ok(Address(None)),
        text => text
            .parse()
            .map(|address| Address(Some(address)))
            .map_err(|refusal| format!("{refusal}, or 0 to switch it off")),
    }
}

/// Reads how many of something there may be at once: with none, nothing would ever be done.
pub(super) fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Reads after which time something is done again: after none, it would be done all the time.
pub(super) fn pause(text: &str) -> Result<GoDuration, String> {
    const LEAST: Duration = Duration::from_millis(10);
    let pause: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    if pause.get() < LEAST {
        Err("it must be at least 10ms".to_owned())
    } else {
        Ok(pause)
    }
}

impl RegistryArgs {
    /// The same as options. The API server is never a registry, whatever a resource says.
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
    #![allow(
        clippy::unwrap_used,
        reason = "a test that unwraps fails, as it should"
    )]

    use clap::CommandFactory as _;

    use crate::cli::Cli;

    #[test]
    fn what_would_keep_the_process_busy_or_idle_for_ever_is_refused() {
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
            let refused = parse(none).unwrap_err().to_string();
            assert!(
                refused.contains(flag) && refused.contains(none),
                "{refused}"
            );
            assert!(parse(some).is_ok(), "{flag}={some}");
        }
    }
}
