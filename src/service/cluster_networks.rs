//! The networks of the cluster, as far as a pod can know them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use affix_registry::IpNet;

/// Returns the networks around the Service of the API server and around the address of this pod. Outside of a cluster there are none.
///
/// Most clusters have private ranges. This is for the others: GKE gives Services addresses of 34.118.224.0/20.
pub(crate) fn cluster_networks() -> Vec<IpNet> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_default();
    let Ok(api_server) = host.trim_matches(['[', ']']).parse() else {
        return Vec::new();
    };
    networks(api_server, own_address(api_server))
}

/// Returns the networks around these addresses. A range of Services has at most 2^20 IPv6 addresses and on GKE 2^12 IPv4 addresses; a
/// node has a /24 or a /64 for its pods by default.
fn networks(api_server: IpAddr, own: Option<IpAddr>) -> Vec<IpNet> {
    let around = |address: IpAddr, v4: u8, v6: u8| {
        let length = if address.is_ipv4() { v4 } else { v6 };
        // Loopback has a rule of its own, --allow-loopback.
        let network = IpNet::new(address, length).ok()?;
        (!address.is_loopback()).then(|| network.trunc())
    };
    let own = own.and_then(|own| around(own, 24, 64));
    around(api_server, 20, 108).into_iter().chain(own).collect()
}

/// Returns the address of this process toward `peer`. A UDP socket that connects sends nothing.
fn own_address(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 443)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn t38_the_networks_of_a_pod_are_around_its_own_address_and_the_api_server() {
        let known = |api_server: &str, own: &str| {
            let found = networks(api_server.parse().unwrap(), own.parse().ok());
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            known("34.118.224.1", "10.4.2.17"),
            ["34.118.224.0/20", "10.4.2.0/24"]
        );
        assert_eq!(
            known("fd00:10:96::1", "2001:db8:4::17"),
            ["fd00:10:96::/108", "2001:db8:4::/64"]
        );
        assert_eq!(known("10.96.0.1", ""), ["10.96.0.0/20"]);
        assert!(known("127.0.0.1", "127.0.0.1").is_empty());
        assert_eq!(
            own_address(Ipv4Addr::LOCALHOST.into()),
            Some(Ipv4Addr::LOCALHOST.into())
        );
    }
}
