//! The address policy: rules on the addresses that may be dialled.
//!
//! The policy checks the resolved address of every connection, including redirects, token realms,
//! upload locations and proxies. It rejects the names of metadata services before DNS, because
//! their addresses are not always recognisable.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;
use url::Url;

use crate::access::denied_server::DeniedServer;

/// Names under which clouds and clusters serve credentials to their workloads.
const FORBIDDEN_NAMES: [&str; 15] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.com",
    "metadata.azure.internal",
    "metadata.internal",
    "metadata.platformequinix.com",
    "metadata.packet.net",
    "metadata.tencentyun.com",
    "instance-data",
    "instance-data.ec2.internal",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Metadata services at addresses outside of the ranges below: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// Metadata services within unique local IPv6: AWS, Google, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// The rules on addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressPolicy {
    pub(crate) deny_private_networks: bool,
    pub(crate) allow_loopback: bool,
    pub(crate) denied_addresses: Vec<IpAddr>,
    pub(crate) denied_servers: Vec<DeniedServer>,
    /// Allows public addresses only, for uploads (see `upload_policy`).
    pub(crate) public_only: bool,
    /// Networks of the cluster that no upload to another origin reaches.
    pub(crate) denied_networks: Vec<IpNet>,
    /// Names and ports of requests that may resolve to a denied server. The resolver does not
    /// receive the port of a name, so the policy keeps it here.
    pub(crate) names_to_check: Arc<Mutex<BTreeSet<(String, u16)>>>,
}

/// Maximum number of names in `names_to_check`. Redirects of a registry determine their number.
const MAX_NAMES_TO_CHECK: usize = 4096;
/// The rule for a denied server.
const DENIED_SERVER: &str = "it is the cluster's API server";
/// The rules for uploads to another origin.
const PRIVATE_UPLOAD: &str =
    "the address is private, and uploads to another host go there only by --upload-hosts";
const LOOPBACK_UPLOAD: &str =
    "it is loopback, and uploads to another host go there only by --upload-hosts";
const CLUSTER_UPLOAD: &str =
    "the address is in a network of the cluster, where no upload to another host goes";

/// The error for a host or an address that may not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct NotAllowed {
    /// The host, with its port if it has one.
    pub(crate) host: String,
    /// The rule.
    pub(crate) why: String,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not allowed: {}", self.host, self.why)
    }
}

impl AddressPolicy {
    /// Checks a URL before DNS: names of metadata services, and hosts that are addresses. The URL
    /// parser has converted decimal, octal and hexadecimal notation to addresses.
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), NotAllowed> {
        let refuse = |why: String| {
            Err(NotAllowed {
                host: authority(url),
                why,
            })
        };
        let port = url.port_or_known_default().unwrap_or_default();
        let address = match url.host() {
            None => return refuse("the URL names no host".to_owned()),
            Some(url::Host::Domain(name)) => {
                return self
                    .check_name(name)
                    .and_then(|()| self.check_name_at(name, port))
                    .or_else(refuse);
            }
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
        };
        let checked = self
            .check(address)
            .and_then(|()| self.check_server(SocketAddr::new(address, port)));
        checked.or_else(|rule| refuse(rule.to_owned()))
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if FORBIDDEN_NAMES.contains(&name.as_str()) {
            return Err("it is the name of a metadata service or of the cluster's API".to_owned());
        }
        if !self.allow_loopback && (name == "localhost" || name.ends_with(".localhost")) {
            return Err(if self.public_only {
                LOOPBACK_UPLOAD.to_owned()
            } else {
                "it is a loopback name (--allow-loopback allows it)".to_owned()
            });
        }
        Ok(())
    }

    /// Rejects the name of a denied server. Records other names with the port of a denied server
    /// for the check after DNS.
    fn check_name_at(&self, name: &str, port: u16) -> Result<(), String> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut at_port = self
            .denied_servers
            .iter()
            .filter(|server| server.port() == port)
            .peekable();
        if at_port.peek().is_none() {
            return Ok(());
        }
        if at_port.any(|server| server.is_named(&name)) {
            return Err(DENIED_SERVER.to_owned());
        }
        let mut names_to_check = self
            .names_to_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if names_to_check.len() >= MAX_NAMES_TO_CHECK {
            return Err("the registry refers to too many hosts".to_owned());
        }
        names_to_check.insert((name, port));
        Ok(())
    }

    /// Checks an address with its port. The error is the rule.
    fn check_server(&self, address: SocketAddr) -> Result<(), &'static str> {
        let mapped = match address.ip() {
            IpAddr::V6(v6) => embedded_v4(v6).map(|v4| SocketAddr::new(v4.into(), address.port())),
            IpAddr::V4(_) => None,
        };
        let is_denied = |address| {
            self.denied_servers
                .iter()
                .any(|server| server.is_at(address))
        };
        if is_denied(address) || mapped.is_some_and(is_denied) {
            Err(DENIED_SERVER)
        } else {
            Ok(())
        }
    }

    /// Checks an address to which `name` resolved. The error is the rule.
    fn check_resolved(&self, name: &str, address: IpAddr) -> Result<(), &'static str> {
        self.check(address)?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let names_to_check = self
            .names_to_check
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut ports = names_to_check
            .iter()
            .filter(|(recorded, _)| *recorded == name)
            .map(|(_, port)| *port);
        ports.try_for_each(|port| self.check_server(SocketAddr::new(address, port)))
    }

    /// Checks an address. The error is the rule.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.denied_addresses.contains(&address) {
            return Err("the address is denied by this installation");
        }
        let plain = match address {
            IpAddr::V6(v6) => embedded_v4(v6).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        if self
            .denied_networks
            .iter()
            .any(|network| network.contains(&plain) || network.contains(&address))
        {
            return Err(CLUSTER_UPLOAD);
        }
        match address {
            IpAddr::V4(v4) => self.check_v4(v4),
            IpAddr::V6(v6) => match embedded_v4(v6) {
                Some(v4) if self.denied_addresses.contains(&IpAddr::V4(v4)) => {
                    Err("the address is denied by this installation")
                }
                Some(v4) => self.check_v4(v4),
                None => self.check_v6(v6),
            },
        }
    }

    fn check_v4(&self, address: Ipv4Addr) -> Result<(), &'static str> {
        let [a, b, c, _] = address.octets();
        if METADATA_V4.contains(&address) {
            return Err("the address belongs to a metadata service");
        }
        if address.is_loopback() {
            return self.loopback();
        }
        match (a, b) {
            (0, _) => Err("the address is unspecified"),
            (169, 254) => Err("the address is link-local, where metadata services live"),
            (224..=239, _) => Err("the address is multicast"),
            (240..=255, _) => Err("the address is reserved or broadcast"),
            (10, _) | (172, 16..=31) | (192, 168) | (100, 64..=127) | (198, 18..=19) => {
                self.private()
            }
            (192, 0) if c == 0 => self.private(),
            _ => Ok(()),
        }
    }

    fn check_v6(&self, address: Ipv6Addr) -> Result<(), &'static str> {
        if METADATA_V6.contains(&address) {
            return Err("the address belongs to a metadata service");
        }
        if address.is_loopback() {
            return self.loopback();
        }
        if address.is_unspecified() {
            return Err("the address is unspecified");
        }
        match address.segments() {
            [first, ..] if first & 0xff00 == 0xff00 => Err("the address is multicast"),
            [first, ..] if first & 0xffc0 == 0xfe80 => {
                Err("the address is link-local, where metadata services live")
            }
            [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 => self.private(),
            // Global unicast addresses (RFC 4291, section 2.4).
            [first, ..] if self.public_only && first & 0xe000 != 0x2000 => Err(PRIVATE_UPLOAD),
            _ => Ok(()),
        }
    }

    const fn loopback(&self) -> Result<(), &'static str> {
        if self.allow_loopback {
            Ok(())
        } else if self.public_only {
            Err(LOOPBACK_UPLOAD)
        } else {
            Err("the address is loopback (--allow-loopback allows it)")
        }
    }

    const fn private(&self) -> Result<(), &'static str> {
        if self.deny_private_networks {
            Err("the address is private, and --deny-private-networks is set")
        } else if self.public_only {
            Err(PRIVATE_UPLOAD)
        } else {
            Ok(())
        }
    }
}

/// Returns the IPv4 address that an IPv6 address embeds: mapped, compatible, NAT64 or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None, // unspecified and loopback
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            Some(pair(high, low))
        }
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] | [0x2002, high, low, ..] => {
            Some(pair(high, low))
        }
        _ => None,
    }
}

/// Returns the host and port of a URL for messages.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The system's resolver with the address policy applied to its results.
///
/// One forbidden address rejects the name, because the connection could use any of its addresses.
#[derive(Clone)]
pub(crate) struct PolicyResolver(pub(crate) Arc<AddressPolicy>);

impl Service<Name> for PolicyResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            policy.check_name(&host).map_err(|why| NotAllowed {
                host: host.clone(),
                why,
            })?;
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            for address in &addresses {
                let ip = address.ip();
                policy
                    .check_resolved(&host, ip)
                    .map_err(|rule| NotAllowed {
                        host: host.clone(),
                        why: format!("it resolves to {ip}: {rule}"),
                    })?;
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn verdict(policy: &AddressPolicy, url: &str) -> String {
        policy
            .check_url(&url.parse().unwrap())
            .map_or_else(|refused| refused.to_string(), |()| "allowed".to_owned())
    }

    #[test]
    fn special_addresses_are_refused_in_every_notation() {
        let policy = AddressPolicy::default();
        for (host, rule) in [
            ("169.254.169.254", "link-local"),
            ("2852039166", "link-local"),
            ("0xa9fea9fe", "link-local"),
            ("0251.0376.0251.0376", "link-local"),
            ("[::ffff:169.254.169.254]", "link-local"),
            ("[::169.254.169.254]", "link-local"),
            ("[64:ff9b::a9fe:a9fe]", "link-local"),
            ("[64:ff9b:1::a9fe:a9fe]", "link-local"),
            ("[2002:a9fe:a9fe::1]", "link-local"),
            ("[::ffff:0:a9fe:a9fe]", "link-local"),
            ("[fe80::1]", "link-local"),
            ("[fd00:ec2::254]", "metadata"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("127.0.0.1", "loopback"),
            ("127.1", "loopback"),
            ("017700000001", "loopback"),
            ("[::1]", "loopback"),
            ("[::ffff:127.0.0.1]", "loopback"),
            ("localhost", "loopback"),
            ("x.localhost.", "loopback"),
            ("0.0.0.0", "unspecified"),
            ("0", "unspecified"),
            ("[::]", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("[ff02::1]", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("metadata.google.internal", "metadata"),
            ("METADATA.google.internal.", "metadata"),
            ("kubernetes.default.svc", "cluster's API"),
        ] {
            let verdict = verdict(&policy, &format!("https://{host}/v2/"));
            assert!(verdict.contains(rule), "{host}: {verdict}");
        }
    }

    #[test]
    fn private_ranges_are_refused_only_if_configured() {
        for host in [
            "10.0.0.1",
            "172.16.3.4",
            "192.168.0.1",
            "100.64.0.1",
            "[fc00::1]",
            "[::ffff:10.0.0.1]",
        ] {
            let url = format!("https://{host}/");
            assert_eq!(verdict(&AddressPolicy::default(), &url), "allowed");
            let strict = AddressPolicy {
                deny_private_networks: true,
                ..AddressPolicy::default()
            };
            assert!(
                verdict(&strict, &url).contains("--deny-private-networks is set"),
                "{host}"
            );
        }
    }

    #[test]
    fn public_addresses_are_allowed_and_loopback_if_configured() {
        let with_loopback = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        for host in ["8.8.8.8", "[2606:4700::1111]", "ghcr.io", "172.32.0.1"] {
            assert_eq!(
                verdict(&AddressPolicy::default(), &format!("https://{host}/")),
                "allowed"
            );
        }
        for host in ["127.0.0.1:5000", "[::1]", "localhost"] {
            assert_eq!(
                verdict(&with_loopback, &format!("http://{host}/")),
                "allowed"
            );
        }
    }

    #[test]
    fn a_denied_address_is_denied_in_its_ipv6_mapped_form_too() {
        let policy = AddressPolicy {
            denied_addresses: vec![IpAddr::from([10, 96, 0, 1])],
            ..AddressPolicy::default()
        };
        for host in ["10.96.0.1", "[::ffff:10.96.0.1]"] {
            assert!(
                verdict(&policy, &format!("https://{host}/"))
                    .contains("denied by this installation"),
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn a_denied_server_is_refused_at_its_port_by_name_address_and_other_names() {
        let named = DeniedServer::new("LocalHost.", 6443);
        named.look_up().await;
        for server in [named, DeniedServer::new("127.0.0.1", 6443)] {
            let policy = AddressPolicy {
                denied_servers: vec![server.clone()],
                allow_loopback: true,
                ..AddressPolicy::default()
            };
            for host in ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"] {
                assert!(
                    verdict(&policy, &format!("https://{host}:6443/")).contains(DENIED_SERVER),
                    "{host} {server:?}"
                );
                assert_eq!(
                    verdict(&policy, &format!("https://{host}:5000/")),
                    "allowed",
                    "{host} {server:?}"
                );
            }
            let resolve = async |policy: &AddressPolicy| {
                let found = PolicyResolver(Arc::new(policy.clone()))
                    .call("localhost".parse().unwrap())
                    .await;
                found.err().map(|error| error.to_string())
            };
            assert_eq!(verdict(&policy, "https://localhost:5000/"), "allowed");
            assert_eq!(resolve(&policy).await, None, "{server:?}");
            let by_name = verdict(&policy, "https://localhost:6443/");
            let resolved = resolve(&policy).await;
            assert!(
                by_name.contains(DENIED_SERVER)
                    || resolved
                        .as_deref()
                        .is_some_and(|error| error.contains(DENIED_SERVER)),
                "{by_name} {resolved:?} {server:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_is_refused_with_the_forbidden_address_that_it_resolves_to() {
        // The policy allows loopback names here, so the address decides.
        let policy = AddressPolicy {
            denied_addresses: vec![IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()],
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        let refused = PolicyResolver(Arc::new(policy))
            .call("localhost".parse().unwrap())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            refused.starts_with("localhost is not allowed: it resolves to ")
                && refused.contains("denied"),
            "{refused}"
        );
    }

    proptest::proptest! {
        #[test]
        fn a_mapped_address_is_judged_as_the_address_it_stands_for(bits in proptest::num::u32::ANY) {
            let policy = AddressPolicy { deny_private_networks: true, ..AddressPolicy::default() };
            let v4 = Ipv4Addr::from(bits);
            proptest::prop_assert_eq!(policy.check(v4.into()), policy.check(v4.to_ipv6_mapped().into()));
        }
    }
}
