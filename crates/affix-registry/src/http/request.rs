//! One request with all that belongs to it: the login, its redirects, its tries, its part of the caps.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tokio::time::Instant;
use tracing::Instrument as _;
use url::Url;

use crate::access::address_policy::authority;
use crate::access::tokens::Actions;
use crate::client::observer::Trial;
use crate::client::session::Session;
use crate::error::{Answered, Operation, RegistryError};
use crate::http::rate_limit::PausedFor;
use crate::http::retry::is_transient;
use crate::http::retry_after;
use crate::http::transport::{Answer, Outgoing};
use crate::http::transport_error::Fault;
use crate::oci::{cut, longest_text, most_values};
use crate::protocol::error_body::ErrorBody;

/// Which redirects of a GET or HEAD are followed. Credentials never go along to another origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// None: the redirect is the answer.
    Never,
    /// Within the registry's own origin.
    SameOrigin,
    /// To any host that may be dialled: blobs, whose bytes are checked by their digest.
    Anywhere,
}

/// A request, as often as it takes.
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) actions: Actions,
    pub(crate) redirects: Redirects,
    /// Bytes of a good answer that are read at most.
    pub(crate) cap: u64,
    /// Whether it moves a blob, which may take longer.
    pub(crate) is_blob: bool,
    /// Whether a fault that may pass ends it all the same: for a write that must follow its read at once.
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
            cap: 1 << 20,
            is_blob: false,
            once: false,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }
}

/// A fault that may pass, and how the last try showed it.
struct Passing {
    error: RegistryError,
    /// The registry's wish, on a 5xx.
    retry_after: Option<std::time::Duration>,
    /// Whether the wait is the shared pause.
    paused: bool,
}

impl Session {
    /// Sends a request with what the registry wants to see. An answer is any status but 401, 429 and those that may pass.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, RegistryError> {
        let mut refusals = 0;
        loop {
            let shown = self.authorize(request).await?;
            let answer = self.transmit(request, shown.header()).await?;
            if answer.is_success() && !request.is_blob {
                self.bound(request, &answer)?;
            }
            if answer.status != 401 || !answer.own {
                return Ok(answer);
            }
            refusals += 1;
            // Once to learn what is wanted or that a token has ended, once more where that was not all.
            if !self.challenged(request, &answer, &shown).await || refusals > 2 {
                return Err(self.unauthorized(request, &answer, &shown));
            }
        }
    }

    /// Refuses a document with more values, or a longer text, than would be worth their memory, before anything is made of them.
    fn bound(&self, request: &Request, answer: &Answer) -> Result<(), RegistryError> {
        let limits = &self.options().limits;
        let exceeded = |what: &str, limit: usize| {
            Err(RegistryError::LimitExceeded {
                operation: request.operation.clone(),
                what: what.to_owned(),
                limit: limit as u64,
            })
        };
        if most_values(&answer.body) > limits.values {
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

    /// Tries until there is an answer that stays, the deadline, or the end of patience.
    pub(crate) async fn transmit(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let (options, throttle) = (self.options(), &self.inner.upstream.throttle);
        let (begun, deadline) = (Instant::now(), self.deadline());
        let mut tries = 0;
        loop {
            let permit = throttle
                .enter(self.is_routine(), deadline, rand::random)
                .await;
            let permit = permit.map_err(|PausedFor(left)| RegistryError::RateLimited {
                operation: request.operation.clone(),
                retry_after: left,
            })?;
            tries += 1;
            let outcome = self.attempt(request, authorization).await;
            drop(permit);
            // A second try is for a connection that had died in silence; more would only wait for a registry that is down.
            let min_tries = if matches!(outcome, Err(Fault::TimedOut(_))) {
                2
            } else {
                options.retry.min_tries
            };
            let passing = match outcome {
                Ok(answer) if !is_transient(answer.status) => return Ok(answer),
                Ok(answer) => self.passing(request, &answer, tries),
                Err(Fault::Network(why) | Fault::TimedOut(why)) => {
                    let error = RegistryError::Unreachable {
                        operation: request.operation.clone(),
                        why,
                    };
                    Passing {
                        error,
                        retry_after: None,
                        paused: false,
                    }
                }
                Err(fault) => return Err(self.fault(&request.operation, fault)),
            };
            tracing::debug!(error = %passing.error, tries, "a try failed");
            if request.once || !options.retry.goes_on(min_tries, tries, begun.elapsed()) {
                return Err(passing.error);
            }
            if !passing.paused {
                let wait = passing
                    .retry_after
                    .unwrap_or_else(|| options.retry.delay(tries, rand::random()));
                if Instant::now() + wait >= deadline {
                    return Err(passing.error);
                }
                tokio::time::sleep(wait).await;
            }
        }
    }

    fn passing(&self, request: &Request, answer: &Answer, tries: u32) -> Passing {
        let wish = answer
            .header(header::RETRY_AFTER)
            .and_then(|value| retry_after::parse(value, std::time::SystemTime::now()));
        let options = self.options();
        let wish = wish.map(|wish| wish.min(options.max_pause));
        if answer.status == 429 {
            // "Come back at once", or at a time that has passed, is no leave to do so without a pause.
            let wait = wish.map_or_else(
                || options.retry.delay(tries + 2, 1.0),
                |wish| wish.max(options.retry.base),
            );
            options
                .observer
                .paused(self.inner.upstream.throttle.pause(Instant::now(), wait));
            let error = RegistryError::RateLimited {
                operation: request.operation.clone(),
                retry_after: wait,
            };
            return Passing {
                error,
                retry_after: wish,
                paused: true,
            };
        }
        let error = RegistryError::Unavailable {
            answer: self.answered(&request.operation, answer),
            retry_after: wish,
        };
        Passing {
            error,
            retry_after: wish,
            paused: false,
        }
    }

    /// One try with its redirects. Once it has left the registry's origin it carries no credential, wherever it goes.
    async fn attempt(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Fault> {
        const HOPS: u64 = 5;
        let (options, transport) = (self.options(), &self.inner.upstream.transport);
        let mut url = request.url.clone();
        let mut strayed = false;
        for _ in 0..=HOPS {
            strayed |= !transport.is_own(&url);
            let mut headers = request.headers.clone();
            if let (Some(authorization), false) = (authorization, strayed) {
                headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            let left = options
                .limits
                .session_bytes
                .saturating_sub(self.inner.received());
            let timeout = if request.is_blob {
                options.timeouts.blob
            } else {
                options.timeouts.request
            };
            self.inner.count_request();
            let (method, body, cap) =
                (&request.method, request.body.clone(), request.cap.min(left));
            let span = tracing::debug_span!("request", operation = %request.operation);
            let mut trial = Trial::begin(&*options.observer, &request.operation);
            let mut answer = transport
                .once(Outgoing {
                    method,
                    url: &url,
                    headers,
                    body,
                    cap,
                    timeout,
                })
                .instrument(span)
                .await?;
            trial.answered(answer.status);
            drop(trial);
            tracing::debug!(operation = %request.operation, status = answer.status, "answered");
            answer.own &= !strayed;
            // Of several answers at once each was read with what was left before.
            if self.inner.count_bytes(answer.body.len()) > options.limits.session_bytes {
                return Err(Fault::TooLarge(options.limits.session_bytes));
            }
            match self.next_hop(request, &answer) {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        Err(Fault::TooManyRedirects(HOPS))
    }

    fn next_hop(&self, request: &Request, answer: &Answer) -> Option<Url> {
        let follows = matches!(request.method, Method::GET | Method::HEAD)
            && matches!(answer.status, 301 | 302 | 307 | 308);
        if !follows || request.redirects == Redirects::Never {
            return None;
        }
        let next = answer.url.join(answer.header(header::LOCATION)?).ok()?;
        let own = self.inner.upstream.transport.is_own(&next);
        (own || request.redirects == Redirects::Anywhere).then_some(next)
    }

    /// The error for a fault that does not pass.
    fn fault(&self, operation: &Operation, fault: Fault) -> RegistryError {
        let operation = operation.clone();
        match fault {
            Fault::NotAllowed(refused) => RegistryError::HostNotAllowed {
                host: refused.host,
                why: refused.why,
            },
            Fault::Insecure(host) => {
                let why = format!(
                    "{} leads there; set insecure: true only where the whole registry speaks plain HTTP",
                    operation.host
                );
                RegistryError::InsecureNotAllowed { host, why }
            }
            Fault::ProxyLogin => proxy_login(Box::new(Answered {
                operation,
                status: 407,
                codes: Vec::new(),
                text: String::new(),
                unknown: Vec::new(),
            })),
            Fault::Certificate(why) => RegistryError::CertificateInvalid { operation, why },
            Fault::Network(why) | Fault::TimedOut(why) => {
                RegistryError::Unreachable { operation, why }
            }
            Fault::TooLarge(limit) => {
                let whole = self.options().limits.session_bytes;
                let is_whole = limit >= whole.saturating_sub(self.inner.received());
                let what = if is_whole {
                    "all answers of this pass together are too large"
                } else {
                    "the answer is too large"
                };
                let limit = if is_whole { whole } else { limit };
                RegistryError::LimitExceeded {
                    operation,
                    what: format!("{what}, in bytes"),
                    limit,
                }
            }
            Fault::TooManyRedirects(limit) => RegistryError::LimitExceeded {
                operation,
                what: "too many redirects".to_owned(),
                limit,
            },
            Fault::Encoded(encoding) => self.protocol(
                &operation,
                &format!("the answer has the encoding {encoding:?}, which was not asked for"),
            ),
            Fault::GateClosed => RegistryError::GateClosed { operation },
            Fault::Unsendable => self.protocol(
                &operation,
                "the registry leads to a URL that cannot be asked",
            ),
        }
    }

    /// The error for a final answer that is no success, where the caller knows no better.
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
            status => self.protocol(
                operation,
                &format!("HTTP {status}, which is no answer to it"),
            ),
        }
    }

    /// An answer as messages show it: cut, cleaned, without anything that we have shown.
    pub(crate) fn answered(&self, operation: &Operation, answer: &Answer) -> Box<Answered> {
        let ErrorBody {
            codes,
            mut text,
            unknown,
        } = ErrorBody::parse(&answer.body, &self.inner.secrets());
        // What another host says in any words but a registry's is not shown: a registry could have us read it out from inside.
        if !answer.own && codes.is_empty() {
            text.clear();
        }
        Box::new(Answered {
            operation: operation.clone(),
            status: answer.status,
            codes,
            text,
            unknown,
        })
    }

    /// An answer that the protocol does not know.
    pub(crate) fn protocol(&self, operation: &Operation, what: &str) -> RegistryError {
        RegistryError::Protocol {
            operation: operation.clone(),
            what: self.hide(what),
        }
    }

    /// Text that may quote a registry, fit for a message.
    pub(crate) fn hide(&self, text: &str) -> String {
        cut(
            &crate::protocol::error_body::redact(text, &self.inner.secrets())
                .replace(char::is_control, " "),
        )
    }
}

/// The error for a proxy that wants another login; `answer` is its 407.
fn proxy_login(answer: Box<Answered>) -> RegistryError {
    let hint = "the proxy does not accept its login: correct username and password in the Secret of proxySecretRef, or in HTTPS_PROXY";
    RegistryError::AuthenticationFailed {
        answer,
        hint: hint.to_owned(),
    }
}
