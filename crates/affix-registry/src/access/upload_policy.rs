//! Uploads to another origin: where the bytes go if a registry names another host in the `Location`
//! of an upload (docs/decisions/0100).
//!
//! A tenant chooses the bytes, and a hostile registry the URL. Without a rule, both together write
//! to any service in the network.

use ipnet::IpNet;
use url::Url;

use crate::access::address_policy::{AddressPolicy, NotAllowed, authority};
use crate::access::host_pattern::HostPattern;
use crate::client::options::Options;
use crate::oci::Host;

/// The rules for writes to another origin than the registry's.
pub(crate) struct UploadPolicy {
    /// Hosts that may have a private address.
    hosts: Vec<HostPattern>,
    /// Networks that no host may be in.
    networks: Vec<IpNet>,
}

impl UploadPolicy {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            hosts: options.upload_hosts.clone(),
            networks: options.cluster_networks.clone(),
        }
    }

    /// Returns the address policy for a connection to `url`, which adds to the rules of `base`.
    ///
    /// # Errors
    /// The host is not allowed, as far as that is known before DNS. A proxy hides the address, so
    /// it is used for hosts of the rules only.
    pub(crate) fn for_url(
        &self,
        url: &Url,
        base: &AddressPolicy,
        is_proxied: bool,
    ) -> Result<AddressPolicy, NotAllowed> {
        let is_listed = self.lists(url);
        if is_proxied && !is_listed {
            return Err(NotAllowed {
                host: authority(url),
                why: "uploads to another host go through a proxy only by --upload-hosts".to_owned(),
            });
        }
        let policy = AddressPolicy {
            public_only: !is_listed,
            allow_loopback: base.allow_loopback && is_listed,
            denied_networks: self.networks.clone(),
            ..base.clone()
        };
        policy.check_url(url)?;
        Ok(policy)
    }

    /// Returns whether a pattern has the host of `url`, with or without the default port.
    fn lists(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        [authority(url), format!("{host}:{port}")]
            .iter()
            .filter_map(|text| text.parse::<Host>().ok())
            .any(|host| self.hosts.iter().any(|pattern| pattern.matches(&host)))
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    /// Returns the refusal of an upload to `url`, or "" if it is allowed.
    fn verdict(hosts: &[&str], networks: &[&str], base: &AddressPolicy, url: &str) -> String {
        let rules = UploadPolicy::new(&Options {
            upload_hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            cluster_networks: networks
                .iter()
                .map(|network| network.parse().unwrap())
                .collect(),
            ..Options::default()
        });
        let checked = rules.for_url(&url.parse().unwrap(), base, false);
        checked.map_or_else(|refused| refused.to_string(), |_| String::new())
    }

    #[test]
    fn t38_without_a_rule_only_public_addresses_outside_of_the_cluster_get_uploads() {
        let networks = ["34.118.224.0/20", "2001:db8:1::/108"];
        let base = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        for (host, expected) in [
            ("8.8.8.8", ""),
            ("34.118.240.1", ""),
            ("[2600::1]", ""),
            ("store.example.com", ""),
            ("34.118.224.10", "a network of the cluster"),
            ("[::ffff:34.118.224.10]", "a network of the cluster"),
            ("[64:ff9b::2276:e00a]", "a network of the cluster"),
            ("[2001:db8:1::a]", "a network of the cluster"),
            ("10.1.2.3", "private"),
            ("[fc00::1]", "private"),
            ("[4000::1]", "private"),
            ("127.0.0.1", "loopback"),
            ("localhost", "loopback"),
            ("app.localhost", "loopback"),
        ] {
            let refused = verdict(&[], &networks, &base, &format!("https://{host}/x"));
            assert_eq!(refused.is_empty(), expected.is_empty(), "{host}: {refused}");
            assert!(refused.contains(expected), "{host}: {refused}");
        }
    }

    #[test]
    fn t38_a_rule_allows_private_addresses_and_no_other_forbidden_one() {
        let base = AddressPolicy::default();
        let hosts = ["*", "*:*"];
        let allowed = |base: &AddressPolicy, host: &str| {
            verdict(
                &hosts,
                &["10.96.0.0/16"],
                base,
                &format!("https://{host}/x"),
            )
        };
        assert_eq!(allowed(&base, "10.1.2.3:9000"), "");
        for host in ["127.0.0.1", "localhost", "169.254.169.254", "10.96.0.1"] {
            assert!(allowed(&base, host).contains("is not allowed"), "{host}");
        }
        let strict = AddressPolicy {
            deny_private_networks: true,
            ..AddressPolicy::default()
        };
        assert!(allowed(&strict, "10.1.2.3").contains("--deny-private-networks"));
    }

    #[test]
    fn t38_a_rule_names_the_default_port_or_none() {
        let base = AddressPolicy::default();
        for (pattern, url, is_allowed) in [
            ("10.0.0.1", "https://10.0.0.1:443/x", true),
            ("10.0.0.1:443", "https://10.0.0.1/x", true),
            ("10.0.0.1:443", "http://10.0.0.1/x", false),
            ("10.0.0.1", "https://10.0.0.1:9000/x", false),
            ("10.0.0.1:9000", "https://10.0.0.1:9000/x", true),
            ("[fd00::1]:9000", "https://[fd00::1]:9000/x", true),
        ] {
            let refused = verdict(&[pattern], &[], &base, url);
            assert_eq!(refused.is_empty(), is_allowed, "{pattern} {url}: {refused}");
        }
    }
}
