//! Logins that a service issues for a limited time, such as those of cloud registries.
//!
//! A [`LoginSource`] asks the service. The client caches the login until shortly before its end, concurrent requests share
//! one request to the source, and a login that the registry refuses is replaced by a new one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderName, Method, header};
use url::Url;
use zeroize::Zeroizing;

use crate::access::address_policy::authority;
use crate::access::secret::Secret;
use crate::access::tokens::Actions;
use crate::client::service::sensitive;
use crate::client::session::Session;
use crate::error::{Object, RegistryError};
use crate::http::request::{Redirects, Request};
use crate::oci::Digest;
use crate::protocol::error_body::{one_line, redact};

/// The largest answer of a service that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Issues the login for one registry.
pub trait LoginSource: fmt::Debug + Send + Sync {
    /// Returns the key of the login. Sources with the same key issue the same login, so that passes share it.
    fn key(&self) -> &Digest;

    /// Describes the login for messages, for example by the account that it belongs to.
    fn describe(&self) -> String;

    /// Asks the service for a login. `client` sends requests with the proxy and the address rules of the session.
    ///
    /// # Errors
    /// [`RegistryError::LoginRefused`] with the answer of the service, and the errors of `client`.
    fn issue<'a>(
        &'a self,
        client: LoginClient<'a>,
    ) -> BoxFuture<'a, Result<IssuedLogin, RegistryError>>;
}

/// A login with its validity.
#[derive(Debug, Clone)]
pub struct IssuedLogin {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// Validity, counted from the request.
    pub lifetime: Duration,
}

/// The HTTP client of a [`LoginSource`]. It follows no redirect, uses https only, and trusts the authorities of the system only:
/// a certificate authority of [`Access`](crate::Access) cannot stand in for the service.
#[derive(Clone, Copy)]
pub struct LoginClient<'a> {
    session: &'a Session,
}

/// The answer of a service that is reached with a [`LoginClient`].
pub struct LoginAnswer {
    /// The host that answered, with its port if it has one.
    pub host: String,
    /// The HTTP status, which is neither 429 nor 5xx.
    pub status: u16,
    body: Zeroizing<Vec<u8>>,
}

impl LoginAnswer {
    pub(crate) fn new(host: String, status: u16, body: &[u8]) -> Self {
        Self {
            host,
            status,
            body: Zeroizing::new(body.to_vec()),
        }
    }

    /// Returns whether the status is 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// Returns the body, which may contain secrets. That of an error is cut at
    /// [`Limits::error_bytes`](crate::Limits::error_bytes).
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for LoginAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginAnswer({}, {})", self.host, self.status)
    }
}

impl<'a> LoginClient<'a> {
    pub(crate) const fn new(session: &'a Session) -> Self {
        Self { session }
    }

    /// Returns the registry that needs the login, with its port if it has one.
    #[must_use]
    pub fn registry(&self) -> &'a str {
        self.session.host().as_str()
    }

    /// Redacts a secret in the messages of this registry, until the next login is issued.
    pub fn redact(&self, secret: &Secret) {
        self.session.inner.client.auth.issued.redact(secret);
    }

    /// Sends a form by POST.
    ///
    /// # Errors
    /// As for [`post`](Self::post).
    pub async fn post_form(
        &self,
        url: &str,
        headers: &[(HeaderName, &str)],
        fields: &[(&str, &str)],
    ) -> Result<LoginAnswer, RegistryError> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let mut headers = headers.to_vec();
        headers.push((header::CONTENT_TYPE, "application/x-www-form-urlencoded"));
        self.post(url, &headers, form.into_bytes()).await
    }

    /// Sends a body by POST, with retries.
    ///
    /// # Errors
    /// `InsecureNotAllowed` for a URL without https. `HostNotAllowed` by the rules on addresses. `Unreachable`, `Unavailable`
    /// and `RateLimited` if no attempt got another answer.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(HeaderName, &str)],
        body: Vec<u8>,
    ) -> Result<LoginAnswer, RegistryError> {
        let session = self.session;
        let operation = session.operation("POST", Object::Token, "");
        let url = Url::parse(url)
            .ok()
            .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| session.protocol(&operation, "the login service is not a valid URL"))?;
        let mut request = Request::new(&operation, Method::POST, url, Actions::Pull);
        request.operation.host = authority(&request.url);
        request.operation.repository = None;
        if request.url.scheme() != "https" {
            return Err(RegistryError::InsecureNotAllowed {
                host: request.operation.host,
                why: "a token is exchanged over https only".to_owned(),
            });
        }
        request.headers = sensitive(headers).ok_or_else(|| {
            session.protocol(&request.operation, "a header of the login is malformed")
        })?;
        request.body = Bytes::from(body);
        request.redirects = Redirects::Never;
        request.is_login = true;
        request.cap = MAX_ANSWER;
        let answer = session.transmit(&request, None).await?;
        Ok(LoginAnswer::new(
            request.operation.host,
            answer.status,
            &answer.body,
        ))
    }

    /// Returns the error for an answer that is not a login. `text` is untrusted: it is shortened, and secrets and volatile
    /// words are redacted.
    #[must_use]
    pub fn refused(&self, answer: &LoginAnswer, action: &str, text: &str) -> RegistryError {
        let text = one_line(&redact(text, &self.session.inner.secrets()));
        let colon = if text.is_empty() { "" } else { ": " };
        RegistryError::LoginRefused {
            why: format!(
                "{} {action}: HTTP {}{colon}{text}",
                answer.host, answer.status
            ),
        }
    }
}

/// A [`LoginSource`] that is compared by its key.
#[derive(Debug, Clone)]
pub(crate) struct Issuer(pub(crate) Arc<dyn LoginSource>);

impl PartialEq for Issuer {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Issuer {}
