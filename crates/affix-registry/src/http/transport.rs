//! One try of one request: to whom, with what, and how much of the answer is read.
//!
//! Redirects, retries and credentials are decided above; here is decided what may be dialled, that nothing is written while the
//! process may not write, and that no more is read than asked for. Toward hosts other than the registry a client without the pass's certificate is used.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::access::address_policy::{AddressPolicy, authority};
use crate::client::options::{Access, Options};
use crate::error::RegistryError;
use crate::http::body_memory::{Account, Budget, FREE, Share};
use crate::http::connector::{Connector, Route, connector};
use crate::http::proxy::{ProxyRules, ProxyServer};
use crate::http::tls::{TlsConfigs, system_has_authorities};
use crate::http::transport_error::{Fault, TOO_SLOW};
use crate::http::write_gate::{Closed, WriteGate};

/// The way to one registry, and from it to the hosts that it names.
pub(crate) struct Transport {
    guard: Arc<AddressPolicy>,
    base: Url,
    insecure: bool,
    own: Client<Connector, Full<Bytes>>,
    foreign: Client<Connector, Full<Bytes>>,
    agent: HeaderValue,
    proxies: ProxyRules,
    /// Between two pieces of an answer.
    idle: Duration,
    error_bytes: u64,
    memory: Account,
    /// How long a large answer may take once it holds a share of the memory for such.
    large_answer: Duration,
    gate: WriteGate,
}

/// One try.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Bytes of a good answer that are read at most.
    pub(crate) cap: u64,
    /// The whole time for it.
    pub(crate) timeout: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When the try that brought it was begun.
    pub(crate) sent: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Where it came from, after redirects.
    pub(crate) url: Url,
    /// Whether all of its way was within the registry's own origin.
    pub(crate) own: bool,
    /// Held until the body is read and made into something smaller.
    pub(crate) share: Option<Share>,
}

impl Answer {
    /// A header as text; one that is not ASCII counts as absent.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All lines of a header.
    pub(crate) fn header_lines(
        &self,
        name: impl header::AsHeaderName,
    ) -> impl Iterator<Item = &str> {
        self.headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
    }

    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl Transport {
    /// Prepares the way; dials nothing.
    pub(crate) fn new(
        base: Url,
        guard: AddressPolicy,
        options: &Options,
        access: &Access,
        budget: Budget,
    ) -> Result<Self, RegistryError> {
        if !access.insecure && access.tls.ca_pem.is_none() && !system_has_authorities() {
            let why =
                "there is none on this system: set SSL_CERT_FILE, or name one in ca.crt".to_owned();
            return Err(RegistryError::InvalidCertificate {
                what: "certificate authority",
                why,
            });
        }
        let guard = Arc::new(guard);
        let agent = HeaderValue::from_str(&options.user_agent).map_err(|_| {
            RegistryError::InvalidAccess {
                what: "user agent",
                why: "it cannot be a header's value".to_owned(),
            }
        })?;
        let tls = TlsConfigs::new(&access.tls)?;
        let proxies = match &access.proxy {
            Some(proxy) => ProxyRules::Access(ProxyServer::from_access(proxy, &guard)?),
            None => ProxyRules::Environment(options.environment_proxy.clone()),
        };
        let gate = options.write_gate.clone();
        let policy = Arc::clone(&guard);
        let route = Route::new(policy, proxies.clone(), tls.proxy, agent.clone(), gate);
        let own = client(connector(route.clone(), tls.registry, options), options);
        let foreign = match &access.tls.client {
            None => own.clone(),
            Some(_) => client(connector(route, tls.foreign, options), options),
        };
        Ok(Self {
            guard,
            base,
            insecure: access.insecure,
            own,
            foreign,
            agent,
            proxies,
            idle: options.timeouts.idle,
            error_bytes: options.limits.error_bytes,
            memory: Account::new(budget),
            large_answer: options.timeouts.request,
            gate: options.write_gate.clone(),
        })
    }

    /// The registry's own URL, ending in `/`.
    pub(crate) const fn base(&self) -> &Url {
        &self.base
    }

    /// Whether a URL is of the registry itself: same scheme, host and port.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Whether the pass speaks plain HTTP.
    pub(crate) const fn insecure(&self) -> bool {
        self.insecure
    }

    /// Makes one try. Of an error's body only the beginning is read, whatever its size.
    pub(crate) async fn once(&self, outgoing: Outgoing<'_>) -> Result<Answer, Fault> {
        let Outgoing {
            method,
            url,
            mut headers,
            body,
            cap,
            timeout,
        } = outgoing;
        match url.scheme() {
            "https" => {}
            "http" if self.insecure => {}
            "http" => return Err(Fault::Insecure(authority(url))),
            _ => return Err(Fault::Unsendable),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Fault::Unsendable); // the HTTP client would make a login of it, and it is not ours
        }
        self.guard.check_url(url).map_err(Fault::NotAllowed)?;
        let uri: Uri = url.as_str().parse().map_err(|_| Fault::Unsendable)?;
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        headers.insert(header::USER_AGENT, self.agent.clone());
        headers
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        let proxy = self.proxies.server_for(&uri).map_err(Fault::Network)?;
        if let Some(login) = proxy.and_then(|proxy| proxy.login)
            && url.scheme() == "http"
        {
            headers.insert(header::PROXY_AUTHORIZATION, login);
        }
        if !body.is_empty() || matches!(*method, Method::POST | Method::PUT) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut request = http::Request::new(Full::new(body));
        (
            *request.method_mut(),
            *request.uri_mut(),
            *request.headers_mut(),
        ) = (method.clone(), uri, headers);
        let sent = Instant::now();
        let until = sent + timeout;
        let sending = self.send(request, self.is_own(url), until);
        let mut response = if method.is_safe() {
            sending.await?
        } else {
            self.gate
                .write(sending)
                .await
                .map_err(|Closed| Fault::GateClosed)??
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut answer = Answer {
            status,
            sent,
            headers,
            body: Bytes::new(),
            url: url.clone(),
            own: self.is_own(url),
            share: None,
        };
        if *method == Method::HEAD {
            return Ok(answer);
        }
        let good = answer.is_success();
        if let Some(encoding) = answer
            .header(header::CONTENT_ENCODING)
            .filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
        {
            if good {
                return Err(Fault::Encoded(encoding.chars().take(32).collect()));
            }
            return Ok(answer); // what an error says in an encoding that was not asked for is left unread
        }
        let cap = if good { cap } else { self.error_bytes };
        if good
            && response
                .body()
                .size_hint()
                .exact()
                .is_some_and(|length| length > cap)
        {
            return Err(Fault::TooLarge(cap));
        }
        self.read(response.body_mut(), &mut answer, cap, until)
            .await?;
        Ok(answer)
    }

    /// Sends one request and waits for the head of its answer. A server that ends an HTTP/2 connection says which requests it has not
    /// looked at: those go out again at once.
    async fn send(
        &self,
        request: http::Request<Full<Bytes>>,
        own: bool,
        until: Instant,
    ) -> Result<Response<Incoming>, Fault> {
        let client = if own { &self.own } else { &self.foreign };
        let patience = until.min(Instant::now() + self.idle);
        let mut refusals = 0;
        loop {
            let sent = timeout_at(patience, client.request(request.clone()))
                .await
                .map_err(|_| Fault::TimedOut(TOO_SLOW))?;
            match sent {
                Err(error) if refusals < 2 && Fault::is_unprocessed(&error) => refusals += 1,
                sent => return sent.map_err(|error| Fault::of_request(&error)),
            }
        }
    }

    /// Reads the body: the first part freely, what is larger with a share of the memory for large answers.
    async fn read(
        &self,
        body: &mut Incoming,
        answer: &mut Answer,
        cap: u64,
        until: Instant,
    ) -> Result<(), Fault> {
        let said = body.size_hint().exact();
        let (good, expected) = (answer.is_success(), said.unwrap_or(cap).min(cap));
        let most = usize::try_from(cap).unwrap_or(usize::MAX);
        let share = async || {
            (
                self.memory.share(expected).await,
                until.min(Instant::now() + self.large_answer),
            )
        };
        // Where the length is said, nothing is taken off the wire before there is room for it.
        let is_large = said.is_some() && expected > FREE as u64;
        let (mut small, mut large) = (
            BytesMut::new(),
            if is_large { Some(share().await) } else { None },
        );
        loop {
            let until = large
                .as_ref()
                .map_or(until, |(_, until)| *until)
                .min(Instant::now() + self.idle);
            let piece = match timeout_at(until, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(), // trailers say nothing to us
                Ok(Some(Err(error))) if good => return Err(Fault::of_answer(&error)),
                Err(_) if good => return Err(Fault::TimedOut(TOO_SLOW)),
                Ok(Some(Err(_))) | Err(_) => break,
            };
            if large.is_none() && small.len() + piece.len() > FREE {
                let mut taken = share().await;
                taken.0.buffer.extend_from_slice(&small);
                large = Some(taken);
            }
            let read = large
                .as_mut()
                .map_or(&mut small, |(share, _)| &mut share.buffer);
            let room = most.saturating_sub(read.len());
            read.extend_from_slice(piece.get(..room).unwrap_or(&piece));
            if piece.len() > room {
                if good {
                    return Err(Fault::TooLarge(cap));
                }
                break;
            }
        }
        answer.body = large.as_mut().map_or_else(
            || small.freeze(),
            |(share, _)| share.buffer.split().freeze(),
        );
        answer.share = large.map(|(share, _)| share);
        Ok(())
    }
}

/// What keeps and shares the connections. It follows no redirect, unpacks nothing and reads nothing of the environment.
fn client(connector: Connector, options: &Options) -> Client<Connector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        // HTTP/1.1 needs a connection for each request in flight.
        .pool_max_idle_per_host(options.max_requests_per_registry)
        // Each keeps what its largest answer took for a buffer; no head of an answer may be larger either.
        .http1_max_buf_size(64 << 10)
        .pool_idle_timeout(Duration::from_secs(90))
        .http2_max_header_list_size(64 << 10)
        // What may be on its way to us before we have asked to read it.
        .http2_initial_stream_window_size(256 << 10)
        .http2_initial_connection_window_size(1 << 20)
        // A timed-out HTTP/2 request leaves its connection in the pool, so a dead one must be found out by itself.
        .http2_keep_alive_interval(options.timeouts.idle / 2)
        .http2_keep_alive_timeout(options.timeouts.idle / 2)
        .build(connector)
}
