//! Services beside a registry, such as a key management service, with the transport of the registry client: its address rules,
//! limits, retries and time limits.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;
use url::Url;

use crate::access::login_source::{LoginAnswer, LoginClient};
use crate::access::secret::Secret;
use crate::access::tokens::Actions;
use crate::client::options::{Access, Proxy, TlsOptions};
use crate::client::session::{Registries, Session};
use crate::error::{Object, RegistryError};
use crate::http::request::{Redirects, Request};
use crate::oci::{Host, Repository};
use crate::protocol::error_body::{one_line, redact};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// The way to a service.
#[derive(Debug, Clone, Default)]
pub struct ServiceAccess {
    /// The owner of the requests, such as a namespace.
    pub tenant: String,
    /// Certificates.
    pub tls: TlsOptions,
    /// The proxy. It takes precedence over [`Options::environment_proxy`](crate::Options::environment_proxy).
    pub proxy: Option<Proxy>,
    /// Allows plain HTTP to any host, for requests without a secret and answers that are verified.
    pub allow_http: bool,
}

/// A service at one address. It is used over https only, except on loopback addresses if
/// [`Options::allow_loopback`](crate::Options::allow_loopback) is set and with [`ServiceAccess::allow_http`], and follows no redirect.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    session: Session,
    base: Url,
}

impl Registries {
    /// Opens a service. `address` is a URL without a path. It sends no request.
    ///
    /// # Errors
    /// `HostNotAllowed` if [`Options::allowed_services`](crate::Options::allowed_services) or the rules on addresses forbid it,
    /// `InsecureNotAllowed` for plain HTTP, `InvalidAccess` and `CertificateInvalid` if `access` cannot be used.
    pub fn open_service(
        &self,
        address: &str,
        access: ServiceAccess,
    ) -> Result<Service, RegistryError> {
        let refuse = |why: &str| RegistryError::HostNotAllowed {
            host: crate::oci::cut(address),
            why: why.to_owned(),
        };
        let malformed = || refuse("it is not a URL such as https://service.example.com");
        let base = Url::parse(address).map_err(|_| malformed())?;
        let is_plain = base.username().is_empty()
            && base.password().is_none()
            && base.path() == "/"
            && base.query().is_none()
            && base.fragment().is_none();
        let (_, authority) = address.split_once("://").ok_or_else(malformed)?;
        let host: Host = authority
            .trim_end_matches('/')
            .parse()
            .map_err(|_| malformed())?;
        if !is_plain || !matches!(base.scheme(), "http" | "https") {
            return Err(malformed());
        }
        let allowed = &self.options().allowed_services;
        if !allowed.is_empty() && !allowed.iter().any(|pattern| pattern.matches(&host)) {
            let patterns: Vec<_> = allowed.iter().map(ToString::to_string).collect();
            let why = format!("--allowed-signing-hosts has only {}", patterns.join(", "));
            return Err(refuse(&why));
        }
        let insecure = base.scheme() == "http";
        let is_local = self.options().allow_loopback && is_loopback(&base);
        if insecure && !access.allow_http && !is_local {
            return Err(RegistryError::InsecureNotAllowed {
                host: host.to_string(),
                why: "a token is sent over https only".to_owned(),
            });
        }
        let access = Access {
            tenant: access.tenant,
            tls: access.tls,
            proxy: access.proxy,
            insecure,
            ..Access::default()
        };
        // The repository names no object of a service; a session has one.
        let repository: Repository = "service".parse().map_err(|_| malformed())?;
        let session = self.session(&base, &host, &repository, &access)?;
        Ok(Service { session, base })
    }

    /// Opens the service at a URL, and returns the path of the URL.
    ///
    /// # Errors
    /// As for [`open_service`](Self::open_service).
    pub fn open_service_at<'a>(
        &self,
        url: &'a str,
        access: ServiceAccess,
    ) -> Result<(Service, &'a str), RegistryError> {
        let host = url.find("://").map_or(0, |scheme| scheme + 3);
        let path = url.get(host..).and_then(|rest| rest.find('/'));
        let (origin, path) = url.split_at(path.map_or(url.len(), |path| host + path));
        Ok((self.open_service(origin, access)?, path))
    }
}

/// Returns whether a URL names a loopback address.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl Service {
    /// Sets the deadline of the caller. No wait for the service goes beyond it.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.session = self.session.until(deadline);
        self
    }

    /// Returns the host, with its port if it has one.
    #[must_use]
    pub fn host(&self) -> &str {
        self.session.host().as_str()
    }

    /// Returns a client for the login at other hosts, such as the token service of a cloud.
    #[must_use]
    pub const fn login_client(&self) -> LoginClient<'_> {
        LoginClient::new(&self.session)
    }

    /// Redacts a secret in the messages of this service.
    pub fn redact(&self, secret: &Secret) {
        self.login_client().redact(secret);
    }

    /// Returns an untrusted text as one short line, without secrets and without words that differ with each answer.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        one_line(&redact(text, &self.session.inner.secrets()))
    }

    /// Reads `path`, with retries. Any status but 429 and 5xx is an answer.
    ///
    /// # Errors
    /// `HostNotAllowed` by the rules on addresses. `CertificateInvalid`. `Unreachable`, `Unavailable` and `RateLimited` if no
    /// attempt got another answer.
    pub async fn get(
        &self,
        path: &str,
        headers: &[(HeaderName, &str)],
    ) -> Result<LoginAnswer, RegistryError> {
        self.send(("GET", Method::GET), path, headers, Bytes::new())
            .await
    }

    /// Sends a body to `path` by POST, with retries. Any status but 429 and 5xx is an answer.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn post(
        &self,
        path: &str,
        headers: &[(HeaderName, &str)],
        body: impl Into<Bytes>,
    ) -> Result<LoginAnswer, RegistryError> {
        self.send(("POST", Method::POST), path, headers, body.into())
            .await
    }

    async fn send(
        &self,
        (name, method): (&'static str, Method),
        path: &str,
        headers: &[(HeaderName, &str)],
        body: Bytes,
    ) -> Result<LoginAnswer, RegistryError> {
        let session = &self.session;
        let mut operation = session.operation(name, Object::Service, "");
        operation.what = path.to_owned();
        operation.repository = None;
        let mut url = self.base.clone();
        url.set_path(path);
        let mut request = Request::new(&operation, method, url, Actions::Pull);
        request.headers = sensitive(headers)
            .ok_or_else(|| session.protocol(&operation, "a header of the request is malformed"))?;
        request.body = body;
        request.redirects = Redirects::Never;
        request.cap = MAX_ANSWER;
        let answer = session.transmit(&request, None).await?;
        Ok(LoginAnswer::new(
            operation.host,
            answer.status,
            &answer.body,
        ))
    }
}

/// Returns headers whose values do not appear in messages, or `None` if one is malformed.
pub(crate) fn sensitive(headers: &[(HeaderName, &str)]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        map.insert(name.clone(), value);
    }
    Some(map)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;
    use crate::Options;

    fn open(options: Options, address: &str) -> Result<Service, RegistryError> {
        Registries::new(options).open_service(address, ServiceAccess::default())
    }

    #[tokio::test]
    async fn t11_a_secret_of_a_service_is_in_no_message() {
        let service = open(Options::default(), "https://bao.example.com").unwrap();
        service.redact(&Secret::from("c4n4ry-token".to_owned()));
        assert_eq!(service.clean("refused c4n4ry-token"), "refused …");
    }

    #[tokio::test]
    async fn t27_a_service_is_opened_over_https_by_the_rules_of_the_operator_only() {
        let loopback = || Options {
            allow_loopback: true,
            ..Options::default()
        };
        let limited = || Options {
            allowed_services: vec!["*.example.com:8200".parse().unwrap()],
            ..Options::default()
        };
        for (options, address, refusal) in [
            (Options::default(), "https://bao.example.com:8200", None),
            (Options::default(), "https://bao.example.com/", None),
            (limited(), "https://bao.example.com:8200", None),
            (
                limited(),
                "https://bao.example.com",
                Some("--allowed-signing-hosts"),
            ),
            (
                limited(),
                "https://bao.example.org:8200",
                Some("--allowed-signing-hosts"),
            ),
            (
                Options::default(),
                "http://bao.example.com",
                Some("https only"),
            ),
            (loopback(), "http://bao.example.com", Some("https only")),
            (
                Options::default(),
                "http://127.0.0.1:8200",
                Some("https only"),
            ),
            (loopback(), "http://127.0.0.1:8200", None),
            (loopback(), "http://[::1]:8200", None),
            (
                Options::default(),
                "https://127.0.0.1:8200",
                Some("loopback"),
            ),
            (
                Options::default(),
                "https://169.254.169.254",
                Some("169.254.169.254"),
            ),
            (
                Options::default(),
                "https://user@bao.example.com",
                Some("not a URL"),
            ),
            (
                Options::default(),
                "https://bao.example.com/v1",
                Some("not a URL"),
            ),
            (
                Options::default(),
                "https://bao.example.com?x",
                Some("not a URL"),
            ),
            (
                Options::default(),
                "ftp://bao.example.com",
                Some("not a URL"),
            ),
            (Options::default(), "bao.example.com", Some("not a URL")),
        ] {
            let result = open(options, address);
            match (result, refusal) {
                (Ok(service), None) => assert!(address.contains(service.host())),
                (Err(error), Some(refusal)) => {
                    let text = error.to_string();
                    assert!(text.contains(refusal), "{address}: {text}");
                }
                (result, _) => assert_eq!(result.err(), None, "{address}"),
            }
        }
    }
}
