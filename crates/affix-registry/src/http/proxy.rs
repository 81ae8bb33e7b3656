//! The HTTP proxy of a pass.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use url::Url;

use crate::access::address_policy::AddressPolicy;
use crate::access::secret::Secret;
use crate::client::options::Proxy;
use crate::error::RegistryError;

/// A proxy server and the login for it.
pub(crate) struct ProxyServer {
    pub(crate) uri: Uri,
    /// The value of `Proxy-Authorization`.
    pub(crate) login: Option<HeaderValue>,
}

impl ProxyServer {
    /// Reads the proxy of a pass. Its address follows the same policy as a registry's: an IP address is checked here, the
    /// addresses behind a name when the name is resolved.
    ///
    /// # Errors
    /// `InvalidAccess` for an address that is no proxy's URL, `HostNotAllowed` for a host that the policy forbids.
    pub(crate) fn from_access(proxy: &Proxy, policy: &AddressPolicy) -> Result<Self, RegistryError> {
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
