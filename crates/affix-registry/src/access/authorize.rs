//! Authentication: which credential is sent to which server, and when.
//!
//! No credential is sent before the registry's first challenge. Later requests send it without a
//! challenge. Only challenges from the registry's own origin count, and the newest one decides. A
//! token service that failed gets no further request before the registry names it again
//! (docs/decisions/0099). The token service must use https, unless the session allows plain HTTP.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, Method, header};
use oci_client::errors::OciErrorCode;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use crate::access::address_policy::authority;
use crate::access::auth::{Authorization, Scheme, basic, sensitive};
use crate::access::challenge::{Challenge, TokenService};
use crate::access::docker_config::Credential;
use crate::access::issued_logins::CurrentLogin;
use crate::access::login_source::{Issuer, LoginClient};
use crate::access::secret::Secret;
use crate::access::tokens::Token;
use crate::client::session::Session;
use crate::error::{Object, RegistryError};
use crate::http::request::{Redirects, Request};
use crate::http::transport::Answer;

/// The answer of a token service (distribution, "Token Authentication Specification").
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Number>,
}

impl Session {
    /// Returns the authorization for a request that began at `begun`, according to the newest
    /// challenge. May request a token.
    pub(crate) async fn authorize(
        &self,
        request: &Request,
        begun: Instant,
    ) -> Result<Authorization, RegistryError> {
        let auth = &self.inner.client.auth;
        if let Credential::Registry(token) = &auth.credential {
            return Ok(Authorization::Configured(sensitive("Bearer", token)?));
        }
        match (auth.scheme(), &auth.credential) {
            (Some(Scheme::Basic), Credential::Basic { username, password }) => Ok(
                Authorization::Basic(sensitive("Basic", &basic(username, password))?),
            ),
            (Some(Scheme::Basic), Credential::Issued(issuer)) => {
                let login = self.issued_login(issuer, begun).await?;
                Ok(Authorization::Issued(
                    sensitive("Basic", &login.basic)?,
                    login,
                ))
            }
            (Some(Scheme::Bearer(_)), _) => {
                let fetch = async |service: &TokenService, challenged: &str| {
                    // Boxed: every request holds this future, and few need it.
                    let fetching = self
                        .fetch_token(request, service, challenged, begun)
                        .boxed();
                    fetching.await.inspect_err(|_| auth.record_failure(service))
                };
                let key = (self.repository(), request.actions);
                let current = || auth.token_service();
                match auth.tokens.get(key, begun, current, fetch).await? {
                    Some(token) => Ok(Authorization::Token(sensitive("Bearer", &token)?, token)),
                    None => Ok(Authorization::Nothing),
                }
            }
            _ => Ok(Authorization::Nothing),
        }
    }

    /// Processes a 401. Returns true if the request should be sent again.
    pub(crate) async fn challenged(
        &self,
        request: &Request,
        answer: &Answer,
        sent: &Authorization,
    ) -> bool {
        let auth = &self.inner.client.auth;
        let challenges = Challenge::parse_all(answer.header_lines(header::WWW_AUTHENTICATE));
        let refused = match sent {
            Authorization::Token(_, token) => Some(token),
            _ => None,
        };
        let chosen = auth.choose(&challenges);
        let scope = chosen.as_ref().and_then(|(_, scope)| scope.as_deref());
        if refused.is_some() || scope.is_some() {
            auth.tokens
                .challenge(self.repository(), request.actions, refused, scope)
                .await;
        }
        let Some((scheme, _)) = chosen else {
            auth.forget();
            return false;
        };
        let retry = match sent {
            Authorization::Configured(_) => false,
            Authorization::Basic(_) => scheme != Scheme::Basic,
            Authorization::Issued(_, login) => {
                auth.issued.refuse(login).await || scheme != Scheme::Basic
            }
            Authorization::Nothing | Authorization::Token(..) => true,
        };
        if retry {
            auth.remember(scheme, answer.sent);
        }
        retry
    }

    /// Returns the error for a final 401. A token without the required scope means that the
    /// credential lacks the right.
    pub(crate) fn unauthorized(
        &self,
        request: &Request,
        answer: &Answer,
        sent: &Authorization,
    ) -> RegistryError {
        let auth = &self.inner.client.auth;
        let challenges = Challenge::parse_all(answer.header_lines(header::WWW_AUTHENTICATE));
        let insufficient_scope =
            challenges.iter().any(|c| matches!(c, Challenge::Bearer { error: Some(error), .. } if error == "insufficient_scope"));
        let answered = self.answered(&request.operation, answer);
        let denied = insufficient_scope || answered.has_code(&OciErrorCode::Denied);
        let known = auth.credential != Credential::Anonymous;
        if known && matches!(sent, Authorization::Token(..)) && denied {
            return RegistryError::AccessDenied(answered);
        }
        RegistryError::AuthenticationFailed {
            answer: answered,
            hint: self.login_hint(),
        }
    }

    fn login_hint(&self) -> String {
        let auth = &self.inner.client.auth;
        let name = format!("{}/{}", self.host(), self.repository());
        match &auth.credential {
            Credential::Anonymous if auth.names_helpers => {
                format!(
                    "no login is configured for {name}; the docker config names a credential helper, which is not run"
                )
            }
            Credential::Anonymous => format!(
                "no login is configured for {name}{}",
                self.inner.login_warnings()
            ),
            Credential::Basic { .. } => format!("the user name and password for {name} were sent"),
            Credential::Identity(_) => format!("the identity token for {name} was sent"),
            Credential::Registry(_) => format!("the registry token for {name} was sent"),
            Credential::Issued(issuer) => format!("{} was sent", issuer.0.describe()),
        }
    }

    /// Returns the login that the service of the credential issues, from the cache or new.
    async fn issued_login(
        &self,
        Issuer(source): &Issuer,
        begun: Instant,
    ) -> Result<CurrentLogin, RegistryError> {
        let issue = async || source.issue(LoginClient::new(self)).await;
        self.inner.client.auth.issued.get(begun, issue).await
    }

    /// Requests a token. A login that the token service refuses is replaced once.
    async fn fetch_token(
        &self,
        original: &Request,
        service: &TokenService,
        challenged: &str,
        begun: Instant,
    ) -> Result<Token, RegistryError> {
        let auth = &self.inner.client.auth;
        let Credential::Issued(issuer) = &auth.credential else {
            return self
                .fetch_token_with(original, service, challenged, None)
                .await;
        };
        let login = self.issued_login(issuer, begun).await?;
        let fetched = self
            .fetch_token_with(original, service, challenged, Some(&login))
            .await;
        let is_refused = matches!(
            fetched,
            Err(RegistryError::AuthenticationFailed { .. } | RegistryError::AccessDenied(_))
        );
        if !is_refused || !auth.issued.refuse(&login).await {
            return fetched;
        }
        let login = self.issued_login(issuer, begun).await?;
        self.fetch_token_with(original, service, challenged, Some(&login))
            .await
    }

    async fn fetch_token_with(
        &self,
        original: &Request,
        TokenService { realm, service }: &TokenService,
        challenged: &str,
        login: Option<&CurrentLogin>,
    ) -> Result<Token, RegistryError> {
        let client = &self.inner.client;
        let mut request = Request::new(
            &self.operation("GET", Object::Token, ""),
            Method::GET,
            client.transport.base().clone(),
            original.actions,
        );
        let mut url = Url::parse(realm)
            .ok()
            .filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| {
                self.protocol(
                    &request.operation,
                    "the registry's token service is not a valid URL",
                )
            })?;
        request.operation.host = authority(&url);
        request.operation.repository = None;
        if url.scheme() != "https" && !client.transport.insecure() {
            let why = format!(
                "{} uses it as its token service, and credentials are never sent over plain HTTP",
                self.host()
            );
            return Err(RegistryError::InsecureNotAllowed {
                host: request.operation.host,
                why,
            });
        }
        let scopes = original.actions.scopes(self.repository(), challenged);
        if let Credential::Identity(token) = &client.auth.credential {
            request.method = Method::POST;
            request.operation.method = "POST";
            request.headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            );
            request.body = refresh_form(token, service.as_deref(), &scopes);
        } else {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in &scopes {
                query.append_pair("scope", scope);
            }
            drop(query);
            let login = match &client.auth.credential {
                Credential::Basic { username, password } => Some(basic(username, password)),
                _ => login.map(|login| login.basic.clone()),
            };
            if let Some(login) = login {
                request
                    .headers
                    .insert(header::AUTHORIZATION, sensitive("Basic", &login)?);
            }
        }
        request.url = url;
        request.redirects = Redirects::Never;
        // The cache holds one token per repository. No server accepts a header of this size.
        request.cap = 16 << 10;
        let answer = self.transmit(&request, None).await?;
        self.read_token(&request, &answer)
    }

    fn read_token(&self, request: &Request, answer: &Answer) -> Result<Token, RegistryError> {
        if !answer.is_success() {
            let answered = self.answered(&request.operation, answer);
            let anonymous = self.inner.client.auth.credential == Credential::Anonymous;
            return Err(match answer.status {
                403 if !anonymous => RegistryError::AccessDenied(answered),
                400 | 401 | 403 => RegistryError::AuthenticationFailed {
                    answer: answered,
                    hint: self.login_hint(),
                },
                _ => self.refusal(&request.operation, answer),
            });
        }
        // serde_json's error could quote the token.
        let read: TokenAnswer = serde_json::from_slice(crate::oci::without_bom(&answer.body))
            .map_err(|_| {
                self.protocol(
                    &request.operation,
                    "the token service's answer is malformed",
                )
            })?;
        let token = read
            .token
            .filter(|token| !token.is_empty())
            .or(read.access_token)
            .filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            self.protocol(
                &request.operation,
                "the token service's answer contains no token",
            )
        })?;
        // Tokens without `expires_in` are valid for 60 s, the minimum of the specification.
        let lifetime = read
            .expires_in
            .and_then(|seconds| seconds.as_f64())
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        Ok(Token {
            secret: token.into(),
            lifetime: Duration::from_secs_f64(lifetime.unwrap_or(60.0).min(86_400.0)),
        })
    }
}

/// Returns the form of an OAuth 2 refresh (distribution, "Docker Registry v2 OAuth2").
fn refresh_form(token: &Secret, service: Option<&str>, scopes: &[String]) -> Bytes {
    let token = Zeroizing::new(String::from_utf8_lossy(token.expose()).into_owned());
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "affix")
        .append_pair("refresh_token", &token);
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    form.append_pair("scope", &scopes.join(" "));
    Bytes::from(form.finish())
}
