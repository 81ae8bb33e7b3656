//! The request pipeline: credentials, rate limits, retries, redirects, and the errors of a session.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::Instrument as _;
use url::Url;

use crate::access::address_policy::authority;
use crate::access::auth::Authorization;
use crate::access::tokens::Actions;
use crate::client::observer::Attempt;
use crate::client::session::Session;
use crate::error::{ErrorAnswer, Object, Operation, RegistryError};
use crate::http::rate_limit::RateLimited;
use crate::http::retry::is_transient;
use crate::http::retry_after;
use crate::http::transport::{Answer, Outgoing};
use crate::http::transport_error::TransportError;
use crate::oci::{cut, longest_text, value_bound};
use crate::protocol::error_body::ErrorBody;

/// Redirects that one attempt follows.
const MAX_REDIRECTS: u64 = 5;
/// The default for the bytes of a successful response.
const DEFAULT_CAP: u64 = 1 << 20;

/// The redirects of a GET or HEAD that are followed. Credentials are never sent to another origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// None: the redirect is the response.
    Never,
    /// Redirects within the registry's own origin.
    SameOrigin,
    /// Redirects to any host that the address policy allows. For blobs, whose digests are verified.
    Anywhere,
}

/// A request with its limits. It can take several attempts.
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) actions: Actions,
    pub(crate) redirects: Redirects,
    /// Bytes of a successful response that are read at most.
    pub(crate) cap: u64,
    /// Whether it transfers a blob, which has its own time-out.
    pub(crate) is_blob: bool,
    /// Whether it asks a service for a login, which only the authorities of the system may identify.
    pub(crate) is_login: bool,
    /// Whether there is only one attempt. For a write that must directly follow its read.
    pub(crate) once: bool,
}

impl Request {
    pub(crate) fn new(operation: &Operation, method: Method, url: Url, actions: Actions) -> Self {
        Self {
            operation: operation.clone(),
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            actions,
            redirects: Redirects::SameOrigin,
            cap: DEFAULT_CAP,
            is_blob: false,
            is_login: false,
            once: false,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

/// A transient failure of an attempt.
struct Transient {
    error: RegistryError,
    /// The wait that the registry asks for.
    retry_after: Option<Duration>,
    /// Whether the rate limiter does the waiting.
    is_paused: bool,
}

impl From<RegistryError> for Transient {
    fn from(error: RegistryError) -> Self {
        Self {
            error,
            retry_after: None,
            is_paused: false,
        }
    }
}

impl Session {
    /// Sends a request with the credentials that the registry asks for. Returns a response with any status except 401 of the
    /// registry, 429 and the transient ones.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, RegistryError> {
        let (mut refusals, begun) = (0, Instant::now());
        loop {
            let shown = match self.authorize(request, begun).await {
                // Its token service is that of an earlier 401. The registry may name another one by now, or none.
                Err(_) if refusals == 0 => Authorization::Nothing,
                shown => shown?,
            };
            let answer = self.transmit(request, shown.header()).await?;
            if answer.is_success() && !request.is_blob {
                self.check_document(request, &answer)?;
            }
            if answer.status != 401 || !answer.own {
                return Ok(answer);
            }
            refusals += 1;
            // The first 401 brings the challenge or ends a token. The second can ask for a wider scope.
            if !self.challenged(request, &answer, &shown).await || refusals > 2 {
                return Err(self.unauthorized(request, &answer, &shown));
            }
        }
    }

    /// Refuses a JSON document with too many values or too long a text before it is parsed.
    fn check_document(&self, request: &Request, answer: &Answer) -> Result<(), RegistryError> {
        let limits = &self.options().limits;
        let exceeded = |what: &str, limit: usize| {
            Err(RegistryError::LimitExceeded {
                operation: request.operation.clone(),
                what: what.to_owned(),
                limit: limit as u64,
            })
        };
        if value_bound(&answer.body) > limits.values {
            return exceeded("the document has too many values", limits.values);
        }
        if longest_text(&answer.body) > limits.text_bytes {
            return exceeded(
                "a text in the document is too long, in bytes",
                limits.text_bytes,
            );
        }
        Ok(())
    }

    /// Makes attempts until a response is final, the retry policy ends, or the deadline is too near.
    pub(crate) async fn transmit(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let retry = &self.options().retry;
        let (begun, deadline) = (Instant::now(), self.deadline());
        let mut tries = 0;
        loop {
            let limiter = &self.inner.client.rate_limiter;
            let permit = limiter
                .acquire(self.priority(), deadline, rand::random)
                .await;
            let permit = permit.map_err(|RateLimited(left)| RegistryError::RateLimited {
                operation: request.operation.clone(),
                retry_after: left,
            })?;
            tries += 1;
            let outcome = self.attempt(request, authorization).await;
            drop(permit);
            // The second attempt is for a connection that was lost without notice. Further ones would wait for a registry that
            // is down.
            let min_tries = match outcome {
                Err(TransportError::TimedOut(_)) => 2,
                _ => retry.min_tries,
            };
            let connect_total = match &outcome {
                Err(error) if error.is_connect_failure() => retry.connect_total,
                _ => None,
            };
            let failure = match outcome {
                Ok(answer) if !is_transient(answer.status) => return Ok(answer),
                Ok(answer) => self.transient(request, &answer, tries),
                Err(error @ (TransportError::Network(_) | TransportError::TimedOut(_))) => {
                    self.transport_error(&request.operation, error).into()
                }
                Err(error) => return Err(self.transport_error(&request.operation, error)),
            };
            tracing::debug!(error = %failure.error, tries, "attempt failed");
            if request.once || !retry.goes_on(min_tries, tries, begun.elapsed()) {
                return Err(failure.error);
            }
            if !failure.is_paused {
                let wait = failure
                    .retry_after
                    .unwrap_or_else(|| retry.delay(tries, rand::random()));
                let is_too_late =
                    connect_total.is_some_and(|total| begun.elapsed() + wait >= total);
                if is_too_late || Instant::now() + wait >= deadline {
                    return Err(failure.error);
                }
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Returns the failure for a transient status. A 429 pauses all requests under this credential.
    fn transient(&self, request: &Request, answer: &Answer, tries: u32) -> Transient {
        let options = self.options();
        let retry_after = answer
            .header(header::RETRY_AFTER)
            .and_then(|value| retry_after::parse(value, SystemTime::now()))
            .map(|wait| wait.min(options.max_pause));
        if answer.status != 429 {
            let error = RegistryError::Unavailable {
                answer: self.answered(&request.operation, answer),
                retry_after,
            };
            return Transient {
                error,
                retry_after,
                is_paused: false,
            };
        }
        // A wait of zero, or a date that has passed, still starts a pause.
        let wait = retry_after.map_or_else(
            || options.retry.delay(tries + 2, 1.0),
            |wait| wait.max(options.retry.base),
        );
        let limiter = &self.inner.client.rate_limiter;
        options.observer.paused(limiter.pause(Instant::now(), wait));
        let error = RegistryError::RateLimited {
            operation: request.operation.clone(),
            retry_after: wait,
        };
        Transient {
            error,
            retry_after,
            is_paused: true,
        }
    }

    /// Makes one attempt with its redirects. After the first hop to another origin, no hop carries a credential.
    async fn attempt(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, TransportError> {
        let mut url = request.url.clone();
        let mut is_foreign = false;
        for _ in 0..=MAX_REDIRECTS {
            is_foreign |= !self.inner.client.transport.is_own(&url);
            let mut headers = request.headers.clone();
            if let (Some(authorization), false) = (authorization, is_foreign) {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            let mut answer = self.hop(request, &url, headers).await?;
            answer.own &= !is_foreign;
            match self.redirect_target(request, &answer) {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        Err(TransportError::TooManyRedirects(MAX_REDIRECTS))
    }

    /// Requests one URL within the limits of the session.
    async fn hop(
        &self,
        request: &Request,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<Answer, TransportError> {
        let options = self.options();
        let max_bytes = options.limits.session_bytes;
        let rest = if self.is_counted() {
            max_bytes.saturating_sub(self.inner.received())
        } else {
            u64::MAX
        };
        self.inner.count_request();
        let outgoing = Outgoing {
            method: &request.method,
            url,
            headers,
            body: request.body.clone(),
            is_write: !request.method.is_safe() && request.operation.object != Object::Token,
            is_login: request.is_login,
            cap: request.cap.min(rest),
            timeout: if request.is_blob {
                options.timeouts.blob
            } else {
                options.timeouts.request
            },
        };
        let mut attempt = Attempt::begin(&*options.observer, &request.operation);
        let span = tracing::debug_span!("request", operation = %request.operation);
        let sending = self.inner.client.transport.once(outgoing);
        let answer = sending.instrument(span).await?;
        attempt.answered(answer.status);
        drop(attempt);
        tracing::debug!(operation = %request.operation, status = answer.status, "received response");
        // Concurrent responses were each read within the same rest of the limit.
        if self.is_counted() && self.inner.count_bytes(answer.body.len()) > max_bytes {
            return Err(TransportError::TooLarge(max_bytes));
        }
        Ok(answer)
    }

    /// Returns the URL to follow if the response is a redirect that the request follows.
    fn redirect_target(&self, request: &Request, answer: &Answer) -> Option<Url> {
        let follows = matches!(request.method, Method::GET | Method::HEAD)
            && matches!(answer.status, 301 | 302 | 307 | 308);
        if !follows || request.redirects == Redirects::Never {
            return None;
        }
        let next = answer.url.join(answer.header(header::LOCATION)?).ok()?;
        let own = self.inner.client.transport.is_own(&next);
        (own || request.redirects == Redirects::Anywhere).then_some(next)
    }

    fn transport_error(&self, operation: &Operation, error: TransportError) -> RegistryError {
        let operation = operation.clone();
        match error {
            TransportError::NotAllowed(refused) => {
                let is_own = refused.host == authority(self.inner.client.transport.base());
                RegistryError::HostNotAllowed {
                    host: refused.host,
                    why: if is_own {
                        refused.why
                    } else {
                        format!("{} ({} leads there)", refused.why, self.host())
                    },
                }
            }
            TransportError::Insecure(host) => {
                let why = format!(
                    "{} leads there; set insecure: true only where the whole registry speaks plain HTTP",
                    operation.host
                );
                RegistryError::InsecureNotAllowed { host, why }
            }
            TransportError::ProxyLogin => proxy_login(Box::new(ErrorAnswer {
                operation,
                status: 407,
                codes: Vec::new(),
                text: String::new(),
                unknown: Vec::new(),
            })),
            TransportError::Certificate(why) => {
                RegistryError::CertificateInvalid { operation, why }
            }
            TransportError::Network(why) | TransportError::TimedOut(why) => {
                RegistryError::Unreachable { operation, why }
            }
            TransportError::TooLarge(limit) => self.too_large(operation, limit),
            TransportError::TooManyRedirects(limit) => RegistryError::LimitExceeded {
                operation,
                what: "too many redirects".to_owned(),
                limit,
            },
            TransportError::Encoded(encoding) => self.protocol(
                &operation,
                &format!("the answer has the encoding {encoding:?}, which was not asked for"),
            ),
            TransportError::GateClosed => RegistryError::GateClosed { operation },
            TransportError::InvalidUrl => self.protocol(
                &operation,
                "the registry leads to a URL that cannot be asked",
            ),
        }
    }

    /// Returns the error for a body above `limit`, which is that of the request or the rest of the session's.
    fn too_large(&self, operation: Operation, limit: u64) -> RegistryError {
        let of_session = self.options().limits.session_bytes;
        let rest = of_session.saturating_sub(self.inner.received());
        let (what, limit) = if self.is_counted() && limit >= rest {
            let what = "all answers of this pass together are too large, in bytes";
            (what, of_session)
        } else {
            ("the answer is too large, in bytes", limit)
        };
        RegistryError::LimitExceeded {
            operation,
            what: what.to_owned(),
            limit,
        }
    }

    /// Returns the error for a final response that is no success, if the caller has no better one.
    pub(crate) fn refusal(&self, operation: &Operation, answer: &Answer) -> RegistryError {
        let answered = self.answered(operation, answer);
        match answer.status {
            401 | 403 => RegistryError::AccessDenied(answered),
            404 => RegistryError::NotFound(answered),
            407 => proxy_login(answered),
            300..=399 => {
                let target = answer
                    .header(header::LOCATION)
                    .and_then(|to| answer.url.join(to).ok())
                    .map(|url| authority(&url));
                let to = target.map(|host| format!(" to {host}")).unwrap_or_default();
                self.protocol(
                    operation,
                    &format!(
                        "HTTP {}, a redirect{to} that is not followed",
                        answer.status
                    ),
                )
            }
            400..=499 => RegistryError::Refused(answered),
            500..=599 => RegistryError::Unavailable {
                answer: answered,
                retry_after: None,
            },
            status => self.protocol(operation, &format!("unexpected status HTTP {status}")),
        }
    }

    /// Returns a response as messages show it: truncated, without control characters, and without the secrets of the session.
    pub(crate) fn answered(&self, operation: &Operation, answer: &Answer) -> Box<ErrorAnswer> {
        let ErrorBody {
            codes,
            mut text,
            unknown,
        } = ErrorBody::parse(&answer.body, &self.inner.secrets());
        // The text of another host is shown only in the form of a registry's error. Otherwise a registry could use affix to read
        // hosts inside the network.
        if !answer.own && codes.is_empty() {
            text.clear();
        }
        Box::new(ErrorAnswer {
            operation: operation.clone(),
            status: answer.status,
            codes,
            text,
            unknown,
        })
    }

    /// Returns the error for a response that violates the protocol.
    pub(crate) fn protocol(&self, operation: &Operation, what: &str) -> RegistryError {
        RegistryError::Protocol {
            operation: operation.clone(),
            what: self.redact(what),
        }
    }

    /// Redacts the secrets of the session in a text that may quote a registry, and truncates it.
    pub(crate) fn redact(&self, text: &str) -> String {
        cut(
            &crate::protocol::error_body::redact(text, &self.inner.secrets())
                .replace(char::is_control, " "),
        )
    }
}

/// Returns the error for a 407 of the proxy.
fn proxy_login(answer: Box<ErrorAnswer>) -> RegistryError {
    RegistryError::AuthenticationFailed {
        answer,
        hint: "the proxy refuses its login: correct username and password in the Secret of proxySecretRef, or in HTTPS_PROXY"
            .to_owned(),
    }
}
