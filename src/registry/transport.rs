//! One try of one request: to whom, with what, and how much of the answer is read.
//!
//! Redirects, retries and credentials are decided above; here is decided what may be dialled, that nothing is written while the
//! process may not write, and that no more is read than asked for. Toward hosts other than the registry a client without the pass's certificate is used.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, header};
use reqwest::Client;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::budget::{Account, Budget, FREE, Share};
use super::error::RegistryError;
use super::guard::{Guard, GuardedResolver, authority};
use super::network_fault::Fault;
use super::options::{Access, Options, Proxy};
use super::tls::{TlsConfigs, system_has_authorities};
use super::write_gate::{Closed, WriteGate};

/// The same words as for an answer that stalls: a user can do the same about both.
const TOO_SLOW: &str = "timed out while waiting for the answer";

/// The way to one registry, and from it to the hosts that it names.
pub(super) struct Transport {
    guard: Arc<Guard>,
    base: Url,
    insecure: bool,
    own: Client,
    foreign: Client,
    error_bytes: u64,
    memory: Account,
    /// How long a large answer may take once it holds a share of the memory for such.
    large_answer: Duration,
    gate: WriteGate,
}

/// One try.
pub(super) struct Outgoing<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Bytes of a good answer that are read at most.
    pub(super) cap: u64,
    /// The whole time for it.
    pub(super) timeout: Duration,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    /// Whether all of its way was within the registry's own origin.
    pub(super) own: bool,
    /// Held until the body is read and made into something smaller.
    pub(super) share: Option<Share>,
}

impl Answer {
    /// A header as text; one that is not ASCII counts as absent.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// All lines of a header.
    pub(super) fn header_lines(&self, name: impl header::AsHeaderName) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    pub(super) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl Transport {
    /// Prepares the way; dials nothing.
    pub(super) fn new(base: Url, guard: Guard, options: &Options, access: &Access, budget: Budget) -> Result<Self, RegistryError> {
        if !access.insecure && access.tls.ca_pem.is_none() && !system_has_authorities() {
            let why = "there is none on this system: set SSL_CERT_FILE, or name one in ca.crt".to_owned();
            return Err(RegistryError::InvalidCertificate { what: "certificate authority", why });
        }
        let guard = Arc::new(guard);
        let tls = TlsConfigs::new(&access.tls)?;
        let proxy = access.proxy.as_ref().map(|proxy| vetted_proxy(proxy, &guard, access)).transpose()?;
        let client = |config: rustls::ClientConfig| {
            let mut builder = Client::builder()
                .no_proxy() // what the environment says is for the controller's own traffic
                .tls_backend_preconfigured(config)
                .dns_resolver(GuardedResolver(Arc::clone(&guard)))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .user_agent(&options.user_agent)
                .connect_timeout(options.timeouts.connect)
                .read_timeout(options.timeouts.idle)
                // Every connection of HTTP/1.1 keeps what its largest answer took for a buffer, up to 400 KiB.
                .pool_max_idle_per_host(options.max_requests_per_registry.min(4))
                .pool_idle_timeout(Duration::from_secs(90))
                .http2_max_header_list_size(64 << 10)
                // What may be on its way to us before we have asked to read it.
                .http2_initial_stream_window_size(256 << 10)
                .http2_initial_connection_window_size(1 << 20)
                // A timed-out HTTP/2 request leaves its connection in the pool, so a dead one must be found out by itself.
                .http2_keep_alive_interval(options.timeouts.idle / 2)
                .http2_keep_alive_timeout(options.timeouts.idle / 2)
                .tcp_keepalive(Duration::from_secs(30));
            if let Some(proxy) = proxy.clone() {
                builder = builder.proxy(proxy);
            }
            builder.build().map_err(|_| RegistryError::InvalidAccess {
                what: "the combination of proxy and certificates",
                why: "no HTTP client can be built from it".to_owned(),
            })
        };
        let own = client(tls.own)?;
        let foreign = if access.tls.client.is_some() { client(tls.foreign)? } else { own.clone() };
        Ok(Self {
            guard,
            base,
            insecure: access.insecure,
            own,
            foreign,
            error_bytes: options.limits.error_bytes,
            memory: Account::new(budget),
            large_answer: options.timeouts.request,
            gate: options.write_gate.clone(),
        })
    }

    /// The registry's own URL, ending in `/`.
    pub(super) const fn base(&self) -> &Url {
        &self.base
    }

    /// Whether a URL is of the registry itself: same scheme, host and port.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Whether the pass speaks plain HTTP.
    pub(super) const fn insecure(&self) -> bool {
        self.insecure
    }

    /// Makes one try. Of an error's body only the beginning is read, whatever its size.
    pub(super) async fn once(&self, outgoing: Outgoing<'_>) -> Result<Answer, Fault> {
        let Outgoing { method, url, mut headers, body, cap, timeout } = outgoing;
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
        headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let client = if self.is_own(url) { &self.own } else { &self.foreign };
        let mut request = client.request(method.clone(), url.clone()).headers(headers).timeout(timeout);
        if !body.is_empty() || matches!(*method, Method::POST | Method::PUT) {
            request = request.header(header::CONTENT_LENGTH, body.len()).body(body);
        }
        let sent = if method.is_safe() {
            request.send().await
        } else {
            self.gate.write(request.send()).await.map_err(|Closed| Fault::GateClosed)?
        };
        let mut response = sent.map_err(|error| Fault::of(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut answer = Answer { status, headers, body: Bytes::new(), url: url.clone(), own: self.is_own(url), share: None };
        if *method == Method::HEAD {
            return Ok(answer);
        }
        let good = answer.is_success();
        if let Some(encoding) = answer.header(header::CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            if good {
                return Err(Fault::Encoded(encoding.chars().take(32).collect()));
            }
            return Ok(answer); // what an error says in an encoding that was not asked for is left unread
        }
        let cap = if good { cap } else { self.error_bytes };
        if good && response.content_length().is_some_and(|length| length > cap) {
            return Err(Fault::TooLarge(cap));
        }
        self.read(&mut response, &mut answer, cap).await?;
        Ok(answer)
    }

    /// Reads the body: the first part freely, what is larger with a share of the memory for large answers.
    async fn read(&self, response: &mut reqwest::Response, answer: &mut Answer, cap: u64) -> Result<(), Fault> {
        let (good, expected) = (answer.is_success(), response.content_length().unwrap_or(cap).min(cap));
        let most = usize::try_from(cap).unwrap_or(usize::MAX);
        let share = async || (self.memory.share(expected).await, Instant::now() + self.large_answer);
        // Where the length is said, nothing is taken off the wire before there is room for it.
        let is_large = response.content_length().is_some() && expected > FREE as u64;
        let (mut small, mut large) = (BytesMut::new(), if is_large { Some(share().await) } else { None });
        loop {
            let piece = match &large {
                Some((_, until)) => timeout_at(*until, response.chunk()).await.map_err(|_| Fault::TimedOut(TOO_SLOW))?,
                None => response.chunk().await,
            };
            let piece = match piece {
                Ok(None) => break,
                Ok(Some(piece)) => piece,
                Err(error) if good => return Err(Fault::of(&error)),
                Err(_) => break,
            };
            if large.is_none() && small.len() + piece.len() > FREE {
                let mut taken = share().await;
                taken.0.buffer.extend_from_slice(&small);
                large = Some(taken);
            }
            let read = large.as_mut().map_or(&mut small, |(share, _)| &mut share.buffer);
            let room = most.saturating_sub(read.len());
            read.extend_from_slice(piece.get(..room).unwrap_or(&piece));
            if piece.len() > room {
                if good {
                    return Err(Fault::TooLarge(cap));
                }
                break;
            }
        }
        answer.body = large.as_mut().map_or_else(|| small.freeze(), |(share, _)| share.buffer.split().freeze());
        answer.share = large.map(|(share, _)| share);
        Ok(())
    }
}

/// The proxy, whose address obeys the same rules as the registry's: a name is checked by the resolver when it is dialled.
fn vetted_proxy(proxy: &Proxy, guard: &Guard, access: &Access) -> Result<reqwest::Proxy, RegistryError> {
    let invalid = |why: &str| RegistryError::InvalidAccess { what: "proxy address", why: why.to_owned() };
    let url = Url::parse(&proxy.address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| invalid("it must be http://host:port or https://host:port"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it holds a login: give username and password in keys of their own"));
    }
    if url.scheme() == "https" && access.tls.client.is_some() {
        // The HTTP client would offer the registry's client certificate to the proxy too.
        return Err(invalid("an https proxy cannot be used together with a client certificate: use an http proxy"));
    }
    guard.check_url(&url).map_err(|refused| RegistryError::HostNotAllowed { host: format!("proxy {}", refused.host), why: refused.why })?;
    let built = reqwest::Proxy::all(url.as_str()).map_err(|_| invalid("it must be http://host:port or https://host:port"))?;
    Ok(match (&proxy.username, &proxy.password) {
        (None, None) => built,
        (username, password) => {
            let password = password.as_ref().map(|password| String::from_utf8_lossy(password.expose()));
            built.basic_auth(username.as_deref().unwrap_or_default(), password.as_deref().unwrap_or_default())
        }
    })
}
