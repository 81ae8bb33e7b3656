//! Connections: name resolution under the address policy, TCP, an optional proxy, TLS, and one time limit for all of it.
//!
//! The parts are those of hyper-util, hyper-rustls and hyper-timeout. This module decides their order and adds the write gate
//! below TLS, so that the gate sees each byte right before the kernel takes it (docs/decisions/0020).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::TryFutureExt as _;
use futures::future::{self, BoxFuture};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Uri, header};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt as _};

use crate::access::address_policy::{AddressPolicy, PolicyResolver};
use crate::http::proxy::ProxyRules;
use crate::http::write_gate::{Closed, WriteGate};

/// Connects to an origin, directly or through a proxy, with TLS for `https`.
pub(crate) type Connector = TimeoutConnector<HttpsConnector<Route>>;

/// Returns a connector that uses `tls` toward the origin. It fails after `timeout`.
pub(crate) fn connector(route: Route, tls: Arc<ClientConfig>, timeout: Duration) -> Connector {
    let mut connector = TimeoutConnector::new(HttpsConnector::from((route, tls)));
    connector.set_connect_timeout(Some(timeout));
    connector
}

/// Opens the byte stream to an origin: a TCP connection, or a proxy's tunnel.
#[derive(Clone)]
pub(crate) struct Route {
    /// Applies the address policy.
    tcp: HttpConnector<PolicyResolver>,
    /// Connects to the proxies of the environment, which may be on loopback or in a private network.
    trusted_tcp: HttpConnector<PolicyResolver>,
    proxies: ProxyRules,
    /// TLS toward an `https` proxy.
    proxy_tls: Arc<ClientConfig>,
    user_agent: HeaderValue,
    gate: WriteGate,
}

impl Route {
    pub(crate) fn new(
        policy: Arc<AddressPolicy>,
        proxies: ProxyRules,
        proxy_tls: Arc<ClientConfig>,
        user_agent: HeaderValue,
        gate: WriteGate,
    ) -> Self {
        let trusted = AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        };
        Self {
            tcp: tcp_connector(policy),
            trusted_tcp: tcp_connector(Arc::new(trusted)),
            proxies,
            proxy_tls,
            user_agent,
            gate,
        }
    }

    /// Returns the same route under another policy.
    pub(crate) fn with_policy(&self, policy: AddressPolicy) -> Self {
        Self {
            tcp: tcp_connector(Arc::new(policy)),
            ..self.clone()
        }
    }

    /// Adds the write gate to a TCP connector. With `absolute_form`, requests carry the whole URL, as a proxy expects.
    fn gated(
        &self,
        tcp: &HttpConnector<PolicyResolver>,
        absolute_form: bool,
    ) -> impl Service<Uri, Response = GatedStream, Error: Into<BoxError>, Future: Send + 'static> + use<>
    {
        let gate = self.gate.clone();
        tcp.clone().map_response(move |tcp| GatedStream {
            tcp,
            absolute_form,
            gate: gate.clone(),
            refused: false,
        })
    }
}

impl Service<Uri> for Route {
    type Response = MaybeHttpsStream<GatedStream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, origin: Uri) -> Self::Future {
        let proxy = match self.proxies.server_for(&origin) {
            Err(unusable) => return Box::pin(future::err(unusable.into())),
            Ok(None) => {
                let connecting = self.gated(&self.tcp, false).call(origin);
                return Box::pin(connecting.map_ok(MaybeHttpsStream::Http).err_into());
            }
            Ok(Some(proxy)) => proxy,
        };
        let is_tunnel = origin.scheme() == Some(&Scheme::HTTPS);
        let tcp = if proxy.trusted {
            &self.trusted_tcp
        } else {
            &self.tcp
        };
        let tls = Arc::clone(&self.proxy_tls);
        let mut to_proxy = HttpsConnector::from((self.gated(tcp, !is_tunnel), tls));
        if !is_tunnel {
            return to_proxy.call(proxy.uri);
        }
        let mut headers = HeaderMap::from_iter([(header::USER_AGENT, self.user_agent.clone())]);
        headers.extend(
            proxy
                .login
                .map(|login| (header::PROXY_AUTHORIZATION, login)),
        );
        let mut tunnel = Tunnel::new(proxy.uri, to_proxy).with_headers(headers);
        Box::pin(tunnel.call(origin).err_into())
    }
}

fn tcp_connector(policy: Arc<AddressPolicy>) -> HttpConnector<PolicyResolver> {
    let mut tcp = HttpConnector::new_with_resolver(PolicyResolver(policy));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    tcp.set_keepalive_interval(Some(Duration::from_secs(15)));
    tcp.set_keepalive_retries(Some(3));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(Duration::from_secs(30)));
    tcp
}

/// A TCP connection that refuses every write while the write gate is closed.
pub(crate) struct GatedStream {
    tcp: TokioIo<TcpStream>,
    absolute_form: bool,
    gate: WriteGate,
    /// Set by the first refusal. The layers above may hold bytes from before it, so no later write may pass either.
    refused: bool,
}

impl Connection for GatedStream {
    fn connected(&self) -> Connected {
        self.tcp.connected().proxy(self.absolute_form)
    }
}

impl Read for GatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl Write for GatedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.refused |= !self.gate.is_open();
        if self.refused {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, Closed)));
        }
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
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
    use tokio::time::Instant;

    use super::*;
    use crate::client::options::{EnvironmentProxy, TlsOptions};
    use crate::http::tls::TlsConfigs;
    use crate::http::transport_error::TransportError;

    #[tokio::test]
    async fn a_request_handed_to_its_connection_stays_once_the_gate_has_closed() {
        let gate = WriteGate::closed();
        let tls = TlsConfigs::new(&TlsOptions::default()).unwrap();
        let policy = Arc::new(AddressPolicy {
            allow_loopback: true,
            ..AddressPolicy::default()
        });
        let agent = HeaderValue::from_static("test");
        let proxies = ProxyRules::Environment(EnvironmentProxy::new("", "", ""));
        let route = Route::new(policy, proxies, tls.proxy, agent, gate.clone());
        let connector = connector(route, tls.registry, Duration::from_secs(10));
        let client: Client<_, Full<bytes::Bytes>> =
            Client::builder(TokioExecutor::new()).build(connector);

        for scheme in ["http", "https"] {
            gate.close();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let uri = format!("{scheme}://{}/", listener.local_addr().unwrap());
            let put = http::Request::put(uri)
                .body(Full::from("manifest"))
                .unwrap();
            let (sent, (mut stream, _)) = tokio::join!(client.request(put.clone()), async {
                listener.accept().await.unwrap()
            });
            let error = sent.unwrap_err();
            assert!(
                matches!(
                    TransportError::from_request(&error),
                    TransportError::GateClosed
                ),
                "{scheme}: {error:?}"
            );
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"", "{scheme}");

            gate.open_until(Instant::now() + Duration::from_secs(60));
            let sending = tokio::spawn(client.request(put));
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read_u8().await.is_ok(), "{scheme}");
            sending.abort();
        }
    }
}
