//! The settings of the process ([`Options`]) and of one pass ([`Access`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::access::authority_bundle::AuthorityBundle;
use crate::access::denied_server::DeniedServer;
use crate::access::docker_config::Keychain;
use crate::access::host_pattern::HostPattern;
use crate::access::secret::Secret;
use crate::client::observer::{Observer, Unobserved};
pub use crate::http::proxy::{EnvironmentProxy, Proxy};
use crate::http::retry::RetryPolicy;
use crate::http::write_gate::WriteGate;

/// The settings of the process, which apply to all passes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Registries that may be used; empty means all. Hosts that a registry refers to (a token realm, a store of blobs) are not
    /// limited by this, only by the rules on addresses.
    pub allowed_registries: Vec<HostPattern>,
    /// Hosts of services that [`Registries::open_service`](crate::Registries::open_service) may open; empty means all.
    pub allowed_services: Vec<HostPattern>,
    /// Refuses private address ranges (RFC 1918, RFC 6598, unique local IPv6). Default false.
    pub deny_private_networks: bool,
    /// Allows loopback addresses. Default false.
    pub allow_loopback: bool,
    /// Allows plain HTTP for passes with [`Access::insecure`]. Default true.
    pub allow_http: bool,
    /// More addresses that are never connected to, such as that of the cluster's API server.
    pub denied_addresses: Vec<IpAddr>,
    /// More servers that are never connected to. Unlike an address, a server includes a port.
    pub denied_servers: Vec<DeniedServer>,
    /// Hosts that a registry may name for an upload, beside public ones: they may have a private address, or a loopback address
    /// if `allow_loopback` is set. Empty: none. The registry's own origin is always allowed.
    pub upload_hosts: Vec<HostPattern>,
    /// Networks of the cluster. No upload to another origin than the registry's goes there, whatever its name.
    pub cluster_networks: Vec<IpNet>,
    /// The proxies for passes without [`Access::proxy`]. The operator is trusted with their addresses, so the rules above do not
    /// apply to them; they apply to the hosts behind the proxy. Default [`EnvironmentProxy::from_env`].
    pub environment_proxy: EnvironmentProxy,
    /// Requests in flight to one registry, over all passes. Default 32.
    pub max_requests_per_registry: usize,
    /// Limits on the responses of a registry.
    pub limits: Limits,
    /// Time limits for a registry.
    pub timeouts: Timeouts,
    /// The number of attempts of a failed request, and their delays.
    pub retry: RetryPolicy,
    /// The longest pause that a registry can ask for with `Retry-After`. Default 15 minutes.
    pub max_pause: Duration,
    /// The `User-Agent` header. Default `affix/<version>`.
    pub user_agent: String,
    /// Receives the events of all requests. Default: they are ignored.
    pub observer: Arc<dyn Observer>,
    /// Passed by every request that can change the registry. Default: always open.
    pub write_gate: WriteGate,
}

impl Options {
    /// Denies the cluster's API server (host and port). Its name is resolved now, and again each minute until `stop`.
    pub async fn deny_server(
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
            allowed_services: Vec::new(),
            deny_private_networks: false,
            allow_loopback: false,
            allow_http: true,
            denied_addresses: Vec::new(),
            denied_servers: Vec::new(),
            upload_hosts: Vec::new(),
            cluster_networks: Vec::new(),
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

/// Limits on the responses of a registry. A response above one of them is a `LimitExceeded` error, which names the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one manifest, index or page of a listing. Default 4 MiB.
    pub manifest_bytes: u64,
    /// Bytes of an error's body that are read. The rest is ignored. Default 8 KiB.
    pub error_bytes: u64,
    /// Bytes of one blob that is read, unless the caller sets a lower limit. Default 24 MiB.
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
    /// Levels of nested indexes that a pass reads. Default 4.
    pub depth: usize,
    /// Bytes of all responses of one [`Session`](crate::Session), without listings of referrers and without the responses to
    /// [`Session::uncounted`](crate::Session::uncounted). Default 32 MiB.
    pub session_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            error_bytes: 8 << 10,
            blob_bytes: 24 << 20,
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

/// Time limits for one attempt of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, proxy and TLS included. Default 10 s.
    pub connect: Duration,
    /// Between two parts of a response. Default 10 s.
    pub idle: Duration,
    /// For a request and its response, except blobs. Default 30 s.
    pub request: Duration,
    /// For the transfer of a blob. Default 5 minutes.
    pub blob: Duration,
    /// For all waits of a session for a registry that asks for a pause, unless
    /// [`Session::until`](crate::Session::until) sets a deadline. Default 60 s.
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

/// The priority of work among other work at the same registry, from low to high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Periodic verification. It leaves a quarter of the requests in flight to interactive work.
    Background,
    /// A user waits for the result, such as that of a changed resource.
    #[default]
    Interactive,
}

/// The settings of one pass. Tokens, pauses and the registry's capabilities are shared only between passes that are equal in
/// credential, TLS, proxy and `insecure`, and without a credential also in `tenant`.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The owner of the pass, such as a namespace. Tenants share nothing that was learned without a credential.
    pub tenant: String,
    /// Logins, matched by host and path. Empty: anonymous.
    pub credentials: Keychain,
    /// Certificates.
    pub tls: TlsOptions,
    /// The proxy for all requests of the pass. It takes precedence over [`Options::environment_proxy`].
    pub proxy: Option<Proxy>,
    /// Uses plain HTTP.
    pub insecure: bool,
    /// The way in which referrers are listed and written.
    pub referrers_mode: ReferrersMode,
}

impl Access {
    /// Returns the warnings on logins and certificate authorities that were skipped because they
    /// are unreadable. At most three are named.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        const MAX_NAMED: usize = 3;
        let bundle = self.tls.ca_pem.as_deref().map(AuthorityBundle::parse);
        let mut warnings = self.credentials.warnings().to_vec();
        warnings.extend(bundle.into_iter().flat_map(|bundle| bundle.warnings));
        let more = warnings.len().saturating_sub(MAX_NAMED);
        warnings.truncate(MAX_NAMED);
        if more > 0 {
            warnings.push(format!("{more} more entries are skipped"));
        }
        warnings
    }
}

/// Certificates of a pass.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// PEM of certificate authorities that are trusted in addition to those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// The client certificate, which only the registry itself receives.
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

/// The way in which referrers are listed and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReferrersMode {
    /// The referrers API if the registry has it, else the fallback tag.
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
