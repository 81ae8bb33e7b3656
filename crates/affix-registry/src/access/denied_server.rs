//! Servers that must not be reached as a registry, for example the cluster's API server.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Interval between lookups. The API servers of managed clusters change their addresses.
const CURRENT: Duration = Duration::from_mins(1);

/// A host and a port that the client never connects to, under any name. Other ports of the host
/// stay allowed, because an API server and a registry may share a machine. Clones share their
/// addresses.
#[derive(Debug, Clone)]
pub struct DeniedServer {
    host: String,
    port: u16,
    addresses: Arc<Mutex<Vec<IpAddr>>>,
}

impl DeniedServer {
    /// Creates the rule for `host`: a name, or an address with or without brackets. The addresses
    /// of a name are unknown until [`look_up`](Self::look_up).
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        let host = host
            .trim_matches(['[', ']'])
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let addresses = host
            .parse::<IpAddr>()
            .ok()
            .map(|address| address.to_canonical())
            .into_iter()
            .collect();
        Self {
            host,
            port,
            addresses: Arc::new(Mutex::new(addresses)),
        }
    }

    /// Resolves the name. If that fails, the known addresses stay.
    pub async fn look_up(&self) {
        if let Ok(found) = tokio::net::lookup_host((self.host.as_str(), self.port)).await {
            let found = found.map(|address| address.ip().to_canonical()).collect();
            *self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    /// Resolves the name once a minute, for ever. Returns at once if the host is an address.
    pub async fn follow(self) {
        if self.host.parse::<IpAddr>().is_ok() {
            return;
        }
        loop {
            tokio::time::sleep(CURRENT).await;
            self.look_up().await;
        }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Returns true if `name` is the server's name. `name` is lower-case without a final dot.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.host == name
    }

    /// Returns true if the server has `address`.
    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        address.port() == self.port
            && self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&ip)
    }
}
