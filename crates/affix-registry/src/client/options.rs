//! What the process allows ([`Options`]) and what one pass brings along ([`Access`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::denied_server::DeniedServer;
use crate::access::docker_config::Keychain;
use crate::access::host_pattern::HostPattern;
use crate::access::secret::Secret;
use crate::client::observer::{Observer, Unobserved};
pub use crate::http::proxy::{EnvironmentProxy, Proxy};
use crate::http::retry::RetryPolicy;
use crate::http::write_gate::WriteGate;

/// What the operator of the process allows, for all passes alike.
#[derive(Debug, Clone)]
pub struct Options {
    /// Registries that may be asked at all; empty means every one. Hosts that a registry sends us to (a token realm, a
    /// store of blobs) are not limited by this, only by the rules on addresses.
    pub allowed_registries: Vec<HostPattern>,
    /// Refuses private address ranges (RFC 1918, RFC 6598, unique local IPv6). Default false.
    pub deny_private_networks: bool,
    /// Allows loopback addresses. Default false.
    pub allow_loopback: bool,
    /// Allows plain HTTP where a pass asks for it with [`Access::insecure`]. Default true.
    pub allow_http: bool,
    /// Further addresses that are never dialled, such as that of the cluster's API server.
    pub denied_addresses: Vec<IpAddr>,
    /// Further servers that are never asked: unlike an address, one of these is a port too.
    pub denied_servers: Vec<DeniedServer>,
    /// The proxies for passes without [`Access::proxy`]. The operator is trusted with their addresses, so the rules above do not
    /// apply to them; they apply to the hosts behind the proxy. Default [`EnvironmentProxy::from_env`].
    pub environment_proxy: EnvironmentProxy,
    /// Requests in flight at once to one registry, over all passes. Default 32.
    pub max_requests_per_registry: usize,
    /// How much of what a registry sends is taken.
    pub limits: Limits,
    /// How long a registry may take.
    pub timeouts: Timeouts,
    /// How often and how patiently a failed request is tried again.
    pub retry: RetryPolicy,
    /// The longest time for which a registry's `Retry-After` is believed. Default 15 minutes.
    pub max_pause: Duration,
    /// The `User-Agent` header. Default `affix/<version>`.
    pub user_agent: String,
    /// Who is told of every request. Default nobody.
    pub observer: Arc<dyn Observer>,
    /// What every request that may change something passes. Default: always open.
    pub write_gate: WriteGate,
}

impl Options {
    /// The same with the cluster's API server denied, whose addresses are looked up now and followed until `stop`.
    pub async fn without_server(
        mut self,
        server: Option<(String, u16)>,
        stop: &CancellationToken,
    ) -> Self {
        if let Some((host, port)) = server {
            let server = DeniedServer::new(&host, port);
            server.look_up().await;
            tokio::spawn(
                stop.clone()
                    .run_until_cancelled_owned(server.clone().follow()),
            );
            self.denied_servers.push(server);
        }
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allowed_registries: Vec::new(),
            deny_private_networks: false,
            allow_loopback: false,
            allow_http: true,
            denied_addresses: Vec::new(),
            denied_servers: Vec::new(),
            environment_proxy: EnvironmentProxy::from_env(),
            max_requests_per_registry: 32,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            max_pause: Duration::from_mins(15),
            user_agent: concat!("affix/", env!("CARGO_PKG_VERSION")).to_owned(),
            observer: Arc::new(Unobserved),
            write_gate: WriteGate::default(),
        }
    }
}

/// Caps on what a registry may send. What is above one of them ends in `LimitExceeded`, which names the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one manifest, index or page of a listing. Default 4 MiB.
    pub manifest_bytes: u64,
    /// Bytes of an error's body that are read; the rest is left unread, which is no error. Default 8 KiB.
    pub error_bytes: u64,
    /// Bytes of one blob that is read, where the caller names no lower cap. Default 4 MiB.
    pub blob_bytes: u64,
    /// Bytes of all pages of one listing together. Default 4 MiB.
    pub listing_bytes: u64,
    /// Values of one JSON document: keys, strings, numbers, lists and objects. Default 20000.
    pub values: usize,
    /// Bytes of one text in a JSON document. Default 512 KiB.
    pub text_bytes: usize,
    /// Pages of one listing. Default 50.
    pub pages: usize,
    /// Referrers of one subject. Default 1000.
    pub referrers: usize,
    /// Entries of one image index. Default 1000.
    pub index_entries: usize,
    /// Levels of nested indexes that the engine walks. Default 4.
    pub depth: usize,
    /// Bytes that one [`Session`](crate::Session) takes in all. Default 32 MiB.
    pub session_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            error_bytes: 8 << 10,
            blob_bytes: 4 << 20,
            listing_bytes: 4 << 20,
            values: 20_000,
            text_bytes: 512 << 10,
            pages: 50,
            referrers: 1000,
            index_entries: 1000,
            depth: 4,
            session_bytes: 32 << 20,
        }
    }
}

/// How long a registry may take for one try of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands, TLS included. Default 10 s.
    pub connect: Duration,
    /// Between two pieces of an answer. Default 10 s.
    pub idle: Duration,
    /// The whole of a request and its answer, blobs excepted. Default 30 s.
    pub request: Duration,
    /// The whole of a blob's transfer. Default 5 minutes.
    pub blob: Duration,
    /// How long a session waits in all for a registry that asks for patience, where the caller set no deadline with
    /// [`Session::until`](crate::Session::until). Default 60 s.
    pub patience: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(10),
            request: Duration::from_secs(30),
            blob: Duration::from_mins(5),
            patience: Duration::from_mins(1),
        }
    }
}

/// What one pass brings along. Nothing learned under one `Access` is used under another that differs in credential, TLS,
/// proxy or `insecure`.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Logins, matched by host and path. Empty: anonymous.
    pub credentials: Keychain,
    /// Certificates.
    pub tls: TlsOptions,
    /// The proxy for all requests of the pass. It takes precedence over [`Options::environment_proxy`].
    pub proxy: Option<Proxy>,
    /// Speaks plain HTTP.
    pub insecure: bool,
    /// How referrers are listed and written.
    pub referrers_mode: ReferrersMode,
}

/// Certificates of a pass.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// PEM of certificate authorities that are trusted besides those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Certificate and key by which affix shows itself to the registry, and to no other host.
    pub client: Option<ClientIdentity>,
}

/// A client certificate with its key.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// PEM of the certificate, then of its intermediates.
    pub certificate_pem: Vec<u8>,
    /// PEM of the key: PKCS#8, PKCS#1 or SEC1.
    pub key_pem: Secret,
}

/// How referrers are listed and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReferrersMode {
    /// The referrers API where the registry has it, else the fallback tag.
    #[default]
    Auto,
    /// The referrers API only.
    Api,
    /// The fallback tag only.
    TagSchema,
}

/// The source of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListingSource {
    /// The referrers API.
    Api,
    /// The fallback tag.
    FallbackTag,
}
