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
pub(crate) struct Guard {
    pub(crate) deny_private_networks: bool,
    pub(crate) allow_loopback: bool,
    pub(crate) denied_addresses: Vec<IpAddr>,
    pub(crate) denied_servers: Vec<DeniedServer>,
    /// Names and ports of requests that may resolve to a denied server. The resolver does not
    /// receive the port of a name, so the policy keeps it here.
    pub(crate) suspects: Arc<Mutex<BTreeSet<(String, u16)>>>,
}

/// Maximum number of names in `names_to_check`. Redirects of a registry determine their number.
const MOST_SUSPECTS: usize = 4096;
/// The rule for a denied server.
const DENIED_SERVER: &str = "it is the server of the cluster's API";

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

impl Guard {
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
            return Err("it is a loopback name (--allow-loopback allows it)".to_owned());
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
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() >= MOST_SUSPECTS {
            return Err("the registry has led to too many other hosts".to_owned());
        }
        suspects.insert((name, port));
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
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ports = suspects
            .iter()
            .filter(|(suspect, _)| *suspect == name)
            .map(|(_, port)| *port);
        ports.try_for_each(|port| self.check_server(SocketAddr::new(address, port)))
    }

    /// Checks an address. The error is the rule.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.denied_addresses.contains(&address) {
            return Err("the address is denied by this installation");
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
            return if self.allow_loopback {
                Ok(())
            } else {
                Err("the address is loopback (--allow-loopback allows it)")
            };
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
            return if self.allow_loopback {
                Ok(())
            } else {
                Err("the address is loopback (--allow-loopback allows it)")
            };
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
            _ => Ok(()),
        }
    }

    const fn private(&self) -> Result<(), &'static str> {
        if self.deny_private_networks {
            Err("the address is private, and --deny-private-networks is set")
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
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None, // unspecified and loopback are IPv6's own
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
pub(crate) struct GuardedResolver(pub(crate) Arc<Guard>);

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            guard.check_name(&host).map_err(|why| NotAllowed {
                host: host.clone(),
                why,
            })?;
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            for address in &addresses {
                let ip = address.ip();
                guard.check_resolved(&host, ip).map_err(|rule| NotAllowed {
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

    fn said(guard: &Guard, url: &str) -> String {
        guard
            .check_url(&url.parse().unwrap())
            .map_or_else(|refused| refused.to_string(), |()| "allowed".to_owned())
    }

    #[test]
    fn metadata_link_local_loopback_multicast_and_unspecified_addresses_are_refused_in_every_spelling()
     {
        let guard = Guard::default();
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
            let said = said(&guard, &format!("https://{host}/v2/"));
            assert!(said.contains(rule), "{host}: {said}");
        }
    }

    #[test]
    fn private_ranges_are_refused_only_when_told_so() {
        for host in [
            "10.0.0.1",
            "172.16.3.4",
            "192.168.0.1",
            "100.64.0.1",
            "[fc00::1]",
            "[::ffff:10.0.0.1]",
        ] {
            let url = format!("https://{host}/");
            assert_eq!(said(&Guard::default(), &url), "allowed");
            let strict = Guard {
                deny_private_networks: true,
                ..Guard::default()
            };
            assert!(
                said(&strict, &url).contains("--deny-private-networks is set"),
                "{host}"
            );
        }
    }

    #[test]
    fn public_addresses_and_names_are_allowed_and_loopback_when_told_so() {
        let desk = Guard {
            allow_loopback: true,
            ..Guard::default()
        };
        for host in ["8.8.8.8", "[2606:4700::1111]", "ghcr.io", "172.32.0.1"] {
            assert_eq!(
                said(&Guard::default(), &format!("https://{host}/")),
                "allowed"
            );
        }
        for host in ["127.0.0.1:5000", "[::1]", "localhost"] {
            assert_eq!(said(&desk, &format!("http://{host}/")), "allowed");
        }
    }

    #[test]
    fn an_address_that_the_installation_denies_is_denied_in_its_mapped_form_too() {
        let guard = Guard {
            denied_addresses: vec![IpAddr::from([10, 96, 0, 1])],
            ..Guard::default()
        };
        for host in ["10.96.0.1", "[::ffff:10.96.0.1]"] {
            assert!(
                said(&guard, &format!("https://{host}/")).contains("denied by this installation"),
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn a_denied_server_is_refused_by_its_name_by_each_of_its_addresses_and_by_other_names_for_them_at_its_port_alone()
     {
        let named = DeniedServer::new("LocalHost.", 6443);
        named.look_up().await;
        for server in [named, DeniedServer::new("127.0.0.1", 6443)] {
            let guard = Guard {
                denied_servers: vec![server.clone()],
                allow_loopback: true,
                ..Guard::default()
            };
            for host in ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]"] {
                assert!(
                    said(&guard, &format!("https://{host}:6443/")).contains(DENIED_SERVER),
                    "{host} {server:?}"
                );
                assert_eq!(
                    said(&guard, &format!("https://{host}:5000/")),
                    "allowed",
                    "{host} {server:?}"
                );
            }
            let resolve = async |guard: &Guard| {
                let found = GuardedResolver(Arc::new(guard.clone()))
                    .call("localhost".parse().unwrap())
                    .await;
                found.err().map(|error| error.to_string())
            };
            assert_eq!(said(&guard, "https://localhost:5000/"), "allowed");
            assert_eq!(resolve(&guard).await, None, "{server:?}");
            let by_name = said(&guard, "https://localhost:6443/");
            let resolved = resolve(&guard).await;
            assert!(
                by_name.contains(DENIED_SERVER)
                    || resolved
                        .as_deref()
                        .is_some_and(|said| said.contains(DENIED_SERVER)),
                "{by_name} {resolved:?} {server:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_refused_address_is_refused_with_that_address() {
        // The policy allows loopback names here, so the address decides.
        let guard = Guard {
            denied_addresses: vec![IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()],
            allow_loopback: true,
            ..Guard::default()
        };
        let refused = GuardedResolver(Arc::new(guard))
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
            let guard = Guard { deny_private_networks: true, ..Guard::default() };
            let v4 = Ipv4Addr::from(bits);
            proptest::prop_assert_eq!(guard.check(v4.into()), guard.check(v4.to_ipv6_mapped().into()));
        }
    }
}
