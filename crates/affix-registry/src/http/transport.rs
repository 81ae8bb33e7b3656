//! One attempt of one request: the checks before it is sent, and the limits on its response.
//!
//! Redirects, retries and credentials are decided in `request`. The client certificate of a pass is used toward the registry's
//! own origin only; other origins have an HTTP client without it. A write to another origin has a client and connections of its own,
//! because its rules on addresses are stricter.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::access::address_policy::{AddressPolicy, authority};
use crate::access::upload_policy::UploadPolicy;
use crate::client::options::{Access, Options, TlsOptions};
use crate::error::RegistryError;
use crate::http::body_memory::{
    RegistryMemory, Reservation, ResponseMemoryLimiter, UNRESERVED_BYTES,
};
use crate::http::connector::{Connector, Route, connector};
use crate::http::proxy::{ProxyRules, ProxyServer};
use crate::http::tls::{TlsConfigs, read_system_roots_ahead};
use crate::http::transport_error::{TOO_SLOW, TransportError};
use crate::http::write_gate::{Closed, WriteGate};

type HttpClient = Client<Connector, Full<Bytes>>;

/// Sends requests to one registry and to the hosts that it refers to.
pub(crate) struct Transport {
    policy: Arc<AddressPolicy>,
    base: Url,
    insecure: bool,
    /// For the registry's own origin.
    own: HttpClient,
    /// For every other origin, except for writes.
    foreign: HttpClient,
    /// For services that issue logins. It trusts no authority of the pass, so that its author cannot read the exchange.
    login: HttpClient,
    /// Makes the clients for writes to other origins.
    foreign_dialer: Dialer,
    uploads: UploadPolicy,
    user_agent: HeaderValue,
    proxies: ProxyRules,
    /// The time between two parts of a response.
    idle: Duration,
    error_bytes: u64,
    memory: RegistryMemory,
    /// The time for a response once it holds a reservation.
    reserved: Duration,
    gate: WriteGate,
}

/// One attempt.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether it writes content, for the rules on other origins.
    pub(crate) is_write: bool,
    /// Whether it asks a service for a login.
    pub(crate) is_login: bool,
    /// Bytes of a successful response that are read at most.
    pub(crate) cap: u64,
    /// The time for the request and its response.
    pub(crate) timeout: Duration,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The start of the attempt that brought it.
    pub(crate) sent: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The URL of the response, after redirects.
    pub(crate) url: Url,
    /// Whether all hops were within the registry's own origin.
    pub(crate) own: bool,
    /// Held until the body is parsed.
    pub(crate) reservation: Option<Reservation>,
}

impl Answer {
    /// Returns a header as text. A value that is not ASCII counts as absent.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns all lines of a header.
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
    /// Creates the HTTP clients. It opens no connection.
    ///
    /// # Errors
    /// `InvalidAccess`, `InvalidCertificate` and `HostNotAllowed` for settings of the pass that cannot be used.
    pub(crate) fn new(
        base: Url,
        policy: AddressPolicy,
        options: &Options,
        access: &Access,
        memory: ResponseMemoryLimiter,
    ) -> Result<Self, RegistryError> {
        if !access.insecure {
            read_system_roots_ahead();
        }
        let user_agent = HeaderValue::from_str(&options.user_agent).map_err(|_| {
            RegistryError::InvalidAccess {
                what: "user agent",
                why: "it cannot be a header's value".to_owned(),
            }
        })?;
        let policy = Arc::new(policy);
        let tls = TlsConfigs::new(&access.tls)?;
        let proxies = match &access.proxy {
            Some(proxy) => ProxyRules::Access(ProxyServer::from_access(proxy, &policy)?),
            None => ProxyRules::Environment(options.environment_proxy.clone()),
        };
        let route = Route::new(
            Arc::clone(&policy),
            proxies.clone(),
            tls.proxy,
            user_agent.clone(),
            options.write_gate.clone(),
        );
        let dialer = |tls| Dialer {
            route: route.clone(),
            tls,
            connect: options.timeouts.connect,
            idle: options.timeouts.idle,
            max_idle_connections: options.max_requests_per_registry,
        };
        let own = dialer(tls.registry).client(None);
        let foreign_dialer = dialer(tls.foreign);
        let foreign = match &access.tls.client {
            None => own.clone(),
            Some(_) => foreign_dialer.client(None),
        };
        let login = match &access.tls.ca_pem {
            None => foreign.clone(),
            Some(_) => dialer(TlsConfigs::new(&TlsOptions::default())?.foreign).client(None),
        };
        Ok(Self {
            login,
            uploads: UploadPolicy::new(options),
            foreign_dialer,
            policy,
            base,
            insecure: access.insecure,
            own,
            foreign,
            user_agent,
            proxies,
            idle: options.timeouts.idle,
            error_bytes: options.limits.error_bytes,
            memory: RegistryMemory::new(memory),
            reserved: options.timeouts.request,
            gate: options.write_gate.clone(),
        })
    }

    /// Returns the registry's own URL, which ends in `/`.
    pub(crate) const fn base(&self) -> &Url {
        &self.base
    }

    /// Returns whether a URL has the registry's scheme, host and port.
    pub(crate) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Returns whether the pass allows plain HTTP.
    pub(crate) const fn insecure(&self) -> bool {
        self.insecure
    }

    /// Makes one attempt. Of the body of an error, only the first `error_bytes` are read.
    pub(crate) async fn once(&self, outgoing: Outgoing<'_>) -> Result<Answer, TransportError> {
        let uri = self.check_url(outgoing.url)?;
        let Outgoing {
            method,
            url,
            headers,
            body,
            is_write,
            is_login,
            cap,
            timeout,
        } = outgoing;
        let upload_client;
        let client = if is_login {
            &self.login
        } else if self.is_own(url) {
            &self.own
        } else if is_write {
            upload_client = self.upload_client(url, &uri)?;
            upload_client.as_ref().unwrap_or(&self.foreign)
        } else {
            &self.foreign
        };
        let mut request = http::Request::new(Full::new(body.clone()));
        *request.headers_mut() = self.headers(headers, method, &uri, body.len())?;
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        let sent = Instant::now();
        let deadline = sent + timeout;
        let sending = self.send(client, request, deadline);
        let mut response = if method.is_safe() {
            sending.await?
        } else {
            let written = self.gate.write(sending).await;
            written.map_err(|Closed| TransportError::GateClosed)??
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            sent,
            headers: std::mem::take(response.headers_mut()),
            body: Bytes::new(),
            url: url.clone(),
            own: self.is_own(url),
            reservation: None,
        };
        if *method == Method::HEAD {
            return Ok(answer);
        }
        let encoding = answer
            .header(header::CONTENT_ENCODING)
            .filter(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        match encoding {
            Some(encoding) if answer.is_success() => {
                return Err(TransportError::Encoded(encoding.chars().take(32).collect()));
            }
            // The body of an error in another encoding stays unread.
            Some(_) => return Ok(answer),
            None => {}
        }
        let cap = if answer.is_success() {
            cap
        } else {
            self.error_bytes
        };
        self.read(response.body_mut(), &mut answer, cap, deadline)
            .await?;
        Ok(answer)
    }

    /// Checks a URL against the rules of the pass and the address policy.
    fn check_url(&self, url: &Url) -> Result<Uri, TransportError> {
        match url.scheme() {
            "https" => {}
            "http" if self.insecure => {}
            "http" => return Err(TransportError::Insecure(authority(url))),
            _ => return Err(TransportError::InvalidUrl),
        }
        // The HTTP client would send the login of the URL, which no credential of the pass allows.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TransportError::InvalidUrl);
        }
        self.policy
            .check_url(url)
            .map_err(TransportError::NotAllowed)?;
        url.as_str().parse().map_err(|_| TransportError::InvalidUrl)
    }

    /// Checks a write to another origin. Returns a client without connections, so that the address is checked for each write, or
    /// `None` if a proxy makes the connection.
    fn upload_client(&self, url: &Url, uri: &Uri) -> Result<Option<HttpClient>, TransportError> {
        let proxy = self
            .proxies
            .server_for(uri)
            .map_err(TransportError::Network)?;
        let policy = self.uploads.for_url(url, &self.policy, proxy.is_some());
        let policy = policy.map_err(TransportError::NotAllowed)?;
        Ok(proxy
            .is_none()
            .then(|| self.foreign_dialer.client(Some(policy))))
    }

    /// Adds the headers that every request has.
    fn headers(
        &self,
        mut headers: HeaderMap,
        method: &Method,
        uri: &Uri,
        length: usize,
    ) -> Result<HeaderMap, TransportError> {
        const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
        headers.insert(header::ACCEPT_ENCODING, IDENTITY);
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        headers
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("*/*"));
        if length > 0 || matches!(*method, Method::POST | Method::PUT) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let proxy = self
            .proxies
            .server_for(uri)
            .map_err(TransportError::Network)?;
        // An https request goes through a tunnel, whose CONNECT carries the login.
        if let Some(login) = proxy.and_then(|proxy| proxy.login)
            && uri.scheme_str() == Some("http")
        {
            headers.insert(header::PROXY_AUTHORIZATION, login);
        }
        Ok(headers)
    }

    /// Sends a request and waits for the head of its response. A server that ends an HTTP/2 connection reports the requests that it
    /// did not process; these are sent again at once.
    async fn send(
        &self,
        client: &HttpClient,
        request: http::Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, TransportError> {
        let deadline = deadline.min(Instant::now() + self.idle);
        let mut unprocessed = 0;
        loop {
            let sent = timeout_at(deadline, client.request(request.clone()))
                .await
                .map_err(|_| TransportError::TimedOut(TOO_SLOW))?;
            match sent {
                Err(error) if unprocessed < 2 && TransportError::is_unprocessed(&error) => {
                    unprocessed += 1;
                }
                Ok(response) => return Ok(response),
                Err(error) => {
                    let is_proxied = matches!(self.proxies.server_for(request.uri()), Ok(Some(_)));
                    let error = TransportError::from_request(&error);
                    return Err(if is_proxied {
                        error.through_proxy()
                    } else {
                        error
                    });
                }
            }
        }
    }

    /// Reads at most `cap` bytes of a body: the first part freely, a larger body with a reservation.
    async fn read(
        &self,
        body: &mut Incoming,
        answer: &mut Answer,
        cap: u64,
        deadline: Instant,
    ) -> Result<(), TransportError> {
        let is_success = answer.is_success();
        let length = body.size_hint().exact();
        if is_success && length.is_some_and(|length| length > cap) {
            return Err(TransportError::TooLarge(cap));
        }
        let expected = length.unwrap_or(cap).min(cap);
        let max_bytes = usize::try_from(cap).unwrap_or(usize::MAX);
        let reserve = async || {
            let reservation = self.memory.reserve(expected).await;
            (reservation, deadline.min(Instant::now() + self.reserved))
        };
        // A body of known length stays on the wire until there is memory for it.
        let is_large = length.is_some() && expected > UNRESERVED_BYTES as u64;
        let mut large = if is_large {
            Some(reserve().await)
        } else {
            None
        };
        let mut small = BytesMut::new();
        loop {
            let deadline = large.as_ref().map_or(deadline, |(_, deadline)| *deadline);
            let deadline = deadline.min(Instant::now() + self.idle);
            let part = match timeout_at(deadline, body.frame()).await {
                Ok(None) => break,
                // Trailers are ignored.
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) if is_success => {
                    return Err(TransportError::from_body(&error));
                }
                Err(_) if is_success => return Err(TransportError::TimedOut(TOO_SLOW)),
                Ok(Some(Err(_))) | Err(_) => break,
            };
            if large.is_none() && small.len() + part.len() > UNRESERVED_BYTES {
                let mut reserved = reserve().await;
                reserved.0.buffer.extend_from_slice(&small);
                large = Some(reserved);
            }
            let read = large
                .as_mut()
                .map_or(&mut small, |(reservation, _)| &mut reservation.buffer);
            let room = max_bytes.saturating_sub(read.len());
            read.extend_from_slice(part.get(..room).unwrap_or(&part));
            if part.len() > room {
                if is_success {
                    return Err(TransportError::TooLarge(cap));
                }
                break;
            }
        }
        answer.body = large.as_mut().map_or_else(
            || small.freeze(),
            |(reservation, _)| reservation.buffer.split().freeze(),
        );
        answer.reservation = large.map(|(reservation, _)| reservation);
        Ok(())
    }
}

/// Makes HTTP clients.
struct Dialer {
    route: Route,
    tls: Arc<ClientConfig>,
    connect: Duration,
    idle: Duration,
    max_idle_connections: usize,
}

impl Dialer {
    /// Returns an HTTP client, which pools the connections, under the policy of the route or another one. It follows no redirect
    /// and decodes no body.
    fn client(&self, policy: Option<AddressPolicy>) -> HttpClient {
        let route = policy.map_or_else(
            || self.route.clone(),
            |policy| self.route.with_policy(policy),
        );
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            // HTTP/1.1 needs a connection for each request in flight.
            .pool_max_idle_per_host(self.max_idle_connections)
            // An idle connection keeps this buffer. It also limits the head of a response.
            .http1_max_buf_size(64 << 10)
            .pool_idle_timeout(Duration::from_secs(90))
            .http2_max_header_list_size(64 << 10)
            // Bytes that the server can send before they are read.
            .http2_initial_stream_window_size(256 << 10)
            .http2_initial_connection_window_size(1 << 20)
            // A request that times out leaves its HTTP/2 connection in the pool, so a dead connection must be detected by itself.
            .http2_keep_alive_interval(self.idle / 2)
            .http2_keep_alive_timeout(self.idle / 2)
            .build(connector(route, Arc::clone(&self.tls), self.connect))
    }
}
