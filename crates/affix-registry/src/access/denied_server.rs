//! A server that is never a registry, such as that of the cluster's API: known by its name, and by the addresses behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long addresses are believed: servers of managed clusters move.
const CURRENT: Duration = Duration::from_mins(1);

/// A host and a port that are never asked, whatever name leads there. Other ports of the host are not meant: on a small cluster the
/// API server and a registry may share a machine. Clones are the same server.
#[derive(Debug, Clone)]
pub struct DeniedServer {
    host: String,
    port: u16,
    addresses: Arc<Mutex<Vec<IpAddr>>>,
}

impl DeniedServer {
    /// The server at `host`, a name or an address, which may stand in brackets. The addresses of a name are not known before
    /// [`look_up`](Self::look_up).
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

    /// Looks up the addresses of its name. Where that fails, those known before are believed.
    pub async fn look_up(&self) {
        if let Ok(found) = tokio::net::lookup_host((self.host.as_str(), self.port)).await {
            let found = found.map(|address| address.ip().to_canonical()).collect();
            *self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    /// Looks up the addresses of its name for ever, once a minute; of an address there is nothing to look up.
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

    /// Whether `name`, lower-case and without a dot at its end, is the server's own.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.host == name
    }

    /// Whether the server is at `address`.
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
