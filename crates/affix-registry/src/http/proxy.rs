//! HTTP proxies: the one of a pass, and those of the environment.
//!
//! The two differ in trust. A tenant chooses the proxy of a pass, so its address follows the address policy. The operator chooses
//! the environment, so its proxies may be on loopback or in a private network. In both cases the policy applies to the registry's
//! host and to every host that the registry refers to.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use ipnet::IpNet;
use url::Url;

use crate::access::address_policy::AddressPolicy;
use crate::access::secret::Secret;
use crate::error::RegistryError;

/// An HTTP proxy that a pass brings along.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://host:port` or `https://host:port`, without a login.
    pub address: String,
    /// User name, for a proxy that asks for one.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
}

/// A proxy server and the login for it.
#[derive(Debug, Clone)]
pub(crate) struct ProxyServer {
    pub(crate) uri: Uri,
    /// The value of `Proxy-Authorization`.
    pub(crate) login: Option<HeaderValue>,
    /// Whether the operator chose it, so that it is exempt from the address policy.
    pub(crate) trusted: bool,
}

/// Decides which requests go through which proxy.
#[derive(Debug, Clone)]
pub(crate) enum ProxyRules {
    /// All requests go through the proxy of the pass.
    Access(ProxyServer),
    /// The environment decides.
    Environment(EnvironmentProxy),
}

impl ProxyRules {
    /// Returns the proxy for a URL; `None` means a direct connection.
    ///
    /// # Errors
    /// The cause, for an environment that names an unusable proxy for this URL. A direct connection is then no substitute.
    pub(crate) fn server_for(&self, uri: &Uri) -> Result<Option<ProxyServer>, &'static str> {
        match self {
            Self::Access(server) => Ok(Some(server.clone())),
            Self::Environment(environment) => environment.server_for(uri),
        }
    }
}

impl ProxyServer {
    /// Reads the proxy of a pass. An IP address is checked against the policy here, the addresses behind a name when the name is
    /// resolved.
    ///
    /// # Errors
    /// `InvalidAccess` for an address that is no proxy's URL, `HostNotAllowed` for a host that the policy forbids.
    pub(crate) fn from_access(
        proxy: &Proxy,
        policy: &AddressPolicy,
    ) -> Result<Self, RegistryError> {
        const FORM: &str = "it must be http://host:port or https://host:port";
        let invalid = |why: &str| RegistryError::InvalidAccess {
            what: "proxy address",
            why: why.to_owned(),
        };
        let url = Url::parse(&proxy.address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| invalid(FORM))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "it holds a login: give username and password in keys of their own",
            ));
        }
        policy
            .check_url(&url)
            .map_err(|refused| RegistryError::HostNotAllowed {
                host: format!("proxy {}", refused.host),
                why: refused.why,
            })?;
        let uri = url.as_str().parse().map_err(|_| invalid(FORM))?;
        let has_login = proxy.username.is_some() || proxy.password.is_some();
        Ok(Self {
            uri,
            login: has_login.then(|| basic_auth(proxy)).flatten(),
            trusted: false,
        })
    }
}

/// Returns user name and password as a header value (RFC 7617).
fn basic_auth(proxy: &Proxy) -> Option<HeaderValue> {
    let mut login = proxy.username.clone().unwrap_or_default().into_bytes();
    login.push(b':');
    login.extend_from_slice(
        proxy
            .password
            .as_ref()
            .map(Secret::expose)
            .unwrap_or_default(),
    );
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
///
/// A value is `http://host:port` or `https://host:port`, with an optional login (`http://user:password@host:port`). SOCKS is not
/// supported: a URL for which the environment names such a proxy is refused, not requested directly.
///
/// `NO_PROXY` follows the rules of Go's `net/http`. Entries are separated by commas, and each can end in `:port`:
/// - `example.com` matches the domain and its subdomains
/// - `.example.com` and `*.example.com` match subdomains only
/// - `10.1.2.3` and `10.0.0.0/8` match hosts that are written as addresses
/// - `*` matches every host
///
/// `localhost` and loopback addresses are always requested directly.
#[derive(Debug, Clone)]
pub struct EnvironmentProxy {
    servers: Arc<Matcher>,
    for_http: bool,
    for_https: bool,
    no_proxy: Arc<str>,
}

impl EnvironmentProxy {
    /// Returns the settings of the process's environment. It is read once. The upper-case name of a variable takes precedence, and
    /// an empty variable counts as absent.
    #[must_use]
    pub fn from_env() -> Self {
        static ENVIRONMENT: LazyLock<EnvironmentProxy> = LazyLock::new(|| {
            let read = |names: &[&str]| {
                let values = names.iter().filter_map(|name| std::env::var(name).ok());
                values.into_iter().find(|value| !value.is_empty())
            };
            let of_scheme =
                |upper, lower| read(&[upper, lower, "ALL_PROXY", "all_proxy"]).unwrap_or_default();
            EnvironmentProxy::new(
                &of_scheme("HTTP_PROXY", "http_proxy"),
                &of_scheme("HTTPS_PROXY", "https_proxy"),
                &read(&["NO_PROXY", "no_proxy"]).unwrap_or_default(),
            )
        });
        ENVIRONMENT.clone()
    }

    /// Returns settings that do not depend on the environment: the proxies for `http` and `https` URLs, and the value of
    /// `NO_PROXY`. Each can be empty.
    #[must_use]
    pub fn new(http: &str, https: &str, no_proxy: &str) -> Self {
        Self {
            servers: Arc::new(Matcher::builder().http(http).https(https).build()),
            for_http: !http.is_empty(),
            for_https: !https.is_empty(),
            no_proxy: no_proxy.into(),
        }
    }

    fn server_for(&self, uri: &Uri) -> Result<Option<ProxyServer>, &'static str> {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let (is_set, unusable) = if is_https {
            (
                self.for_https,
                "the proxy in HTTPS_PROXY or ALL_PROXY is no http:// or https:// URL",
            )
        } else {
            (
                self.for_http,
                "the proxy in HTTP_PROXY or ALL_PROXY is no http:// or https:// URL",
            )
        };
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if !is_set || is_direct(&self.no_proxy, uri.host().unwrap_or_default(), port) {
            return Ok(None);
        }
        let server = self.servers.intercept(uri).ok_or(unusable)?;
        if !matches!(server.uri().scheme_str(), Some("http" | "https")) {
            return Err(unusable);
        }
        Ok(Some(ProxyServer {
            uri: server.uri().clone(),
            login: server.basic_auth().cloned(),
            trusted: true,
        }))
    }
}

/// Returns whether Go's rules exempt a host from the proxy. The library's own rules are curl's, which know no ports.
fn is_direct(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split(',').any(|entry| {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        if let Ok(network) = entry.parse::<IpNet>() {
            return address.is_some_and(|address| network.contains(&address));
        }
        let (name, entry_port) = match entry.rsplit_once(':') {
            // An IPv6 address without a port.
            Some(_) if entry.parse::<IpAddr>().is_ok() => (entry.as_str(), None),
            Some((name, port)) => (name, Some(port)),
            None => (entry.as_str(), None),
        };
        let name = name.trim_matches(['[', ']']);
        let same_port = entry_port.is_none_or(|text| text == port.to_string());
        let same_host = match (address, name.parse::<IpAddr>()) {
            (Some(address), Ok(named)) => address == named.to_canonical(),
            (None, Err(_)) => is_in_domain(&host, name.strip_prefix('*').unwrap_or(name)),
            _ => false,
        };
        same_port && same_host
    })
}

/// Returns whether `host` is below `domain`, or is the domain itself if that has no dot in front.
fn is_in_domain(host: &str, domain: &str) -> bool {
    let Some(rest) = host.strip_suffix(domain) else {
        return false;
    };
    let is_below = domain.starts_with('.') || rest.ends_with('.');
    !domain.is_empty()
        && (is_below && !rest.is_empty() || rest.is_empty() && !domain.starts_with('.'))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn server_for(proxies: &EnvironmentProxy, url: &str) -> Option<String> {
        let server = proxies.server_for(&url.parse().unwrap()).unwrap();
        server.map(|server| server.uri.to_string())
    }

    #[test]
    fn no_proxy_follows_the_rules_of_go() {
        for (no_proxy, direct, proxied) in [
            (
                "example.com",
                "https://example.com https://r.example.com https://R.Example.COM",
                "https://badexample.com https://example.com.evil.io https://com",
            ),
            (
                ".example.com",
                "https://r.example.com https://a.b.example.com:5000",
                "https://example.com https://rexample.com",
            ),
            (
                "*.example.com",
                "https://r.example.com",
                "https://example.com",
            ),
            ("*", "https://ghcr.io https://8.8.8.8", ""),
            (
                "a.io, r.io:5000 ,10.0.0.0/8,192.0.2.7,192.0.2.8:80,2001:db8::/32,[2001:db9::1]:443",
                "https://a.io https://r.io:5000 https://10.1.2.3 https://192.0.2.7:1 http://192.0.2.8 https://[2001:db8::7] https://[2001:db9::1]",
                "https://r.io https://11.1.2.3 https://192.0.2.8 https://[2001:db9::1]:5000 https://b.io",
            ),
            (
                " ,,",
                "https://localhost:5000 https://127.0.0.1 https://[::1]",
                "https://ghcr.io https://localhost.example.com",
            ),
        ] {
            let proxies = EnvironmentProxy::new("http://p:3128", "http://p:3128", no_proxy);
            for url in direct.split_whitespace() {
                assert_eq!(server_for(&proxies, url), None, "{no_proxy:?} {url}");
            }
            for url in proxied.split_whitespace() {
                assert!(server_for(&proxies, url).is_some(), "{no_proxy:?} {url}");
            }
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_a_login_is_no_part_of_the_address() {
        let proxies = EnvironmentProxy::new("", "https://al:p%40ss@proxy.example.com:3128", "");
        assert_eq!(server_for(&proxies, "http://r.io/"), None);
        let url = "https://r.io/".parse().unwrap();
        let server = proxies.server_for(&url).unwrap().unwrap();
        assert_eq!(server.uri, "https://proxy.example.com:3128/");
        let login = format!("Basic {}", STANDARD.encode("al:p@ss"));
        assert_eq!(server.login.unwrap(), login);
        assert!(!format!("{proxies:?}").contains("ss"));
        let bare = EnvironmentProxy::new("proxy:3128", "", "");
        assert_eq!(
            server_for(&bare, "http://r.io/").as_deref(),
            Some("http://proxy:3128/")
        );
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_no_leave_to_go_directly() {
        for value in ["socks5://proxy:1080", "ftp://proxy", "http://"] {
            let proxies = EnvironmentProxy::new("", value, "direct.io");
            let refused = proxies.server_for(&"https://r.io/".parse().unwrap());
            assert!(refused.unwrap_err().contains("HTTPS_PROXY"), "{value}");
            assert_eq!(server_for(&proxies, "https://direct.io/"), None);
            assert_eq!(server_for(&proxies, "http://r.io/"), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_in_no_proxy_is_read_without_a_panic(no_proxy in "\\PC{0,40}", host in "[a-z.:\\[\\]0-9]{0,20}") {
            is_direct(&no_proxy, &host, 443);
        }
    }
}
