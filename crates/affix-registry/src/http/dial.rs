//! How a connection is made: to addresses that the policy allows, by the pass's proxy where it has one, with TLS, in time. What is
//! written to it passes the write gate once more, byte for byte.

use std::error::Error;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Uri, header};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{Service as _, service_fn};
use url::Url;

use crate::access::address_policy::{AddressPolicy, PolicyResolver};
use crate::client::options::{Access, Options, Proxy};
use crate::error::RegistryError;
use crate::http::spares::Counted;
use crate::http::tls::Tls;
use crate::http::write_gate::{Closed, WriteGate};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
/// What leads to the registry or to the proxy.
type Hop = MaybeHttpsStream<TokioIo<TcpStream>>;

/// What is needed to connect. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dialer {
    tcp: HttpConnector<PolicyResolver>,
    tls: Tls,
    proxy: Option<Arc<ByProxy>>,
    gate: WriteGate,
    limit: Duration,
}

/// The way through a proxy.
struct ByProxy {
    uri: Uri,
    /// What a tunnel is asked for with.
    headers: HeaderMap,
}

impl Dialer {
    /// Prepares the way; dials nothing.
    pub(crate) fn new(
        policy: &Arc<AddressPolicy>,
        tls: Tls,
        proxy: Option<&ProxyAt>,
        agent: &HeaderValue,
        options: &Options,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(PolicyResolver(Arc::clone(policy)));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(15)));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
        let proxy = proxy.map(|proxy| {
            let login = proxy
                .login
                .clone()
                .map(|login| (header::PROXY_AUTHORIZATION, login));
            let headers = login
                .into_iter()
                .chain([(header::USER_AGENT, agent.clone())])
                .collect();
            Arc::new(ByProxy {
                uri: proxy.uri.clone(),
                headers,
            })
        });
        Self {
            tcp,
            tls,
            proxy,
            gate: options.write_gate.clone(),
            limit: options.timeouts.connect,
        }
    }

    /// Connects to the origin of a URL.
    pub(crate) async fn dial(self, uri: Uri, counted: Option<Counted>) -> Result<Wire, BoxError> {
        let (limit, gate) = (self.limit, self.gate.clone());
        let (stream, whole_urls) = timeout(limit, self.reach(uri))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Wire {
            stream,
            whole_urls,
            gate,
            _counted: counted,
        })
    }

    async fn reach(self, uri: Uri) -> Result<(Stream, bool), BoxError> {
        let Some(proxy) = self.proxy.clone() else {
            return Ok((Stream::Direct(Box::new(self.hop(uri, true).await?)), false));
        };
        // The proxy itself speaks HTTP/1.1, whatever the registry speaks.
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok((
                Stream::Direct(Box::new(self.hop(proxy.uri.clone(), false).await?)),
                true,
            ));
        }
        let tls = TlsConnector::from(self.tls.config()?);
        let to_proxy = service_fn(move |uri| self.clone().hop(uri, false));
        let hop = Tunnel::new(proxy.uri.clone(), to_proxy)
            .with_headers(proxy.headers.clone())
            .call(uri.clone())
            .await?;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let tls = tls
            .connect(ServerName::try_from(host.to_owned())?, TokioIo::new(hop))
            .await?;
        Ok((Stream::Tunnelled(Box::new(TokioIo::new(tls))), false))
    }

    /// To the host of a URL, with TLS where the URL wants it; with `any` in any version of HTTP that it chooses.
    async fn hop(mut self, uri: Uri, any: bool) -> Result<Hop, BoxError> {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok(Hop::Http(self.tcp.call(uri).await?));
        }
        let mut tls = self.tls.config()?;
        if !any {
            Arc::make_mut(&mut tls).alpn_protocols.clear();
        }
        HttpsConnector::from((self.tcp, tls)).call(uri).await
    }
}

/// A proxy whose address may be dialled.
pub(crate) struct ProxyAt {
    uri: Uri,
    /// What plain requests show; a tunnel is asked for with the same.
    pub(crate) login: Option<HeaderValue>,
}

impl ProxyAt {
    /// The proxy, whose address obeys the same rules as the registry's: a name is checked by the resolver when it is dialled.
    pub(crate) fn vetted(
        proxy: &Proxy,
        policy: &AddressPolicy,
        access: &Access,
    ) -> Result<Self, RegistryError> {
        const FORM: &str = "it must be http://host:port or https://host:port";
        let invalid = |why: &str| RegistryError::InvalidAccess {
            what: "proxy address",
            why: why.to_owned(),
        };
        let url = Url::parse(&proxy.address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| invalid(FORM))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "it holds a login: give username and password in keys of their own",
            ));
        }
        if url.scheme() == "https" && access.tls.client.is_some() {
            // The TLS settings are those toward the registry: they would offer its client certificate to the proxy too.
            return Err(invalid(
                "an https proxy cannot be used together with a client certificate: use an http proxy",
            ));
        }
        policy
            .check_url(&url)
            .map_err(|refused| RegistryError::HostNotAllowed {
                host: format!("proxy {}", refused.host),
                why: refused.why,
            })?;
        let uri = url.as_str().parse().map_err(|_| invalid(FORM))?;
        let is_known = proxy.username.is_some() || proxy.password.is_some();
        Ok(Self {
            uri,
            login: is_known.then(|| basic(proxy)).flatten(),
        })
    }
}

/// The login as a header (RFC 7617).
fn basic(proxy: &Proxy) -> Option<HeaderValue> {
    let mut login = proxy.username.clone().unwrap_or_default().into_bytes();
    login.push(b':');
    login.extend_from_slice(
        proxy
            .password
            .as_ref()
            .map(crate::access::secret::Secret::expose)
            .unwrap_or_default(),
    );
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(login))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A connection that stands.
pub(crate) struct Wire {
    stream: Stream,
    /// Whether it leads to a proxy that is asked by whole URLs.
    whole_urls: bool,
    gate: WriteGate,
    _counted: Option<Counted>,
}

enum Stream {
    Direct(Box<Hop>),
    Tunnelled(Box<TokioIo<TlsStream<TokioIo<Hop>>>>),
}

impl Wire {
    /// Whether the peer chose HTTP/2, where one connection is enough for everything.
    pub(crate) fn is_shared(&self) -> bool {
        self.connected().is_negotiated_h2()
    }

    /// Whether the peer has neither closed it nor spoken before it was asked.
    pub(crate) fn is_usable(&self) -> bool {
        let (tcp, is_tls) = match &self.stream {
            Stream::Direct(hop) => tcp_of(hop),
            Stream::Tunnelled(tls) => (tcp_of(tls.inner().get_ref().0.inner()).0, true),
        };
        match tcp.peek(&mut [0]).now_or_never() {
            None => true,
            // Tickets for the next TLS session come unasked.
            Some(Ok(read)) => is_tls && read > 0,
            Some(Err(_)) => false,
        }
    }

    /// A request is handed to the task of its connection, and a process may be paused in between: this is the last moment that is
    /// ours. A read is refused by it too, which costs nothing: it is work of a process that may not finish it.
    fn pass_gate(&self) -> io::Result<()> {
        if self.gate.is_open() {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, Closed))
        }
    }

    fn io(self: Pin<&mut Self>) -> Pin<&mut dyn Io> {
        match &mut self.get_mut().stream {
            Stream::Direct(hop) => Pin::new(hop.as_mut()),
            Stream::Tunnelled(tls) => Pin::new(tls.as_mut()),
        }
    }
}

fn tcp_of(hop: &Hop) -> (&TcpStream, bool) {
    match hop {
        Hop::Http(tcp) => (tcp.inner(), false),
        Hop::Https(tls) => (tls.inner().get_ref().0.inner().inner(), true),
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.whole_urls);
        let protocol = match &self.stream {
            Stream::Direct(hop) => match hop.as_ref() {
                Hop::Http(_) => None,
                Hop::Https(tls) => tls.inner().get_ref().1.alpn_protocol(),
            },
            Stream::Tunnelled(tls) => tls.inner().get_ref().1.alpn_protocol(),
        };
        if protocol == Some(b"h2") {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

/// What the HTTP client reads and writes.
trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pass_gate()?;
        self.io().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Direct(hop) => hop.is_write_vectored(),
            Stream::Tunnelled(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pass_gate()?;
        self.io().poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::options::TlsOptions;
    use crate::http::spares::Connector;
    use crate::http::tls::TlsConfigs;
    use crate::http::transport_error::Fault;

    #[tokio::test]
    async fn what_was_handed_to_its_connection_does_not_leave_once_the_gate_has_closed() {
        let (gate, listener) = (
            WriteGate::closed(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let options = Options {
            write_gate: gate.clone(),
            ..Options::default()
        };
        let policy = Arc::new(AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        });
        let tls = TlsConfigs::new(&TlsOptions::default()).unwrap().own;
        let dialer = Dialer::new(
            &policy,
            tls,
            None,
            &HeaderValue::from_static("test"),
            &options,
        );
        let client: Client<_, Full<bytes::Bytes>> =
            Client::builder(TokioExecutor::new()).build(Connector::new(dialer, uri.clone(), 1));
        let put = http::Request::put(uri)
            .body(Full::from("manifest"))
            .unwrap();

        let (sent, (mut stream, _)) = tokio::join!(client.request(put.clone()), async {
            listener.accept().await.unwrap()
        });
        let error = sent.unwrap_err();
        assert!(
            matches!(Fault::of_request(&error), Fault::GateClosed),
            "{error:?}"
        );
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"");

        gate.open_until(tokio::time::Instant::now() + Duration::from_secs(60));
        let sending = tokio::spawn(client.request(put));
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read_u8().await.is_ok());
        sending.abort();
    }
}
