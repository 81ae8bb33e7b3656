//! The TLS server: connections, their certificate, and their end.
//!
//! Owns: how many connections there are, how long a caller may take for a handshake and a request's head, and that a call that
//! has begun is answered before the process ends. Built on hyper rather than on a ready-made server, because the number of
//! connections and the certificate of each handshake are decided here.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::certificates::resolver::Served;
use crate::admission::metrics::Metrics;
use crate::admission::options::ServerLimits;
use crate::admission::server::body;
use crate::admission::server::connections::{Seat, Seats};
use crate::service::ListenAddress;

/// Requests at once on one connection; the API server keeps few connections with many requests.
const STREAMS: u32 = 250;
/// What one request may send ahead of its being read.
const STREAM_WINDOW: u32 = 64 << 10;
/// What all requests of one connection may.
const CONNECTION_WINDOW: u32 = 1 << 20;
// Bodies that wait for memory keep what they sent ahead: on one connection they must leave enough for all the others.
const _: () = assert!(body::WAITING * STREAM_WINDOW as usize <= CONNECTION_WINDOW as usize / 2);
/// How long calls under way may take after the order to stop.
const DRAIN: Duration = Duration::from_secs(15);
/// How long an idle connection that has to leave may take to notice: a review may have been sent in that moment.
const FAREWELL: Duration = Duration::from_secs(3);

/// A server that listens and has not accepted anything yet.
pub(crate) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub(crate) fn bind(
        address: ListenAddress,
        served: Arc<Served>,
        limits: ServerLimits,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let listener = address.listen()?;
        tracing::info!(address = %listener.local_addr()?, "serving webhooks");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(served);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            listener,
            tls: TlsAcceptor::from(Arc::new(config)),
            limits,
            metrics,
        })
    }

    /// Serves until `stop`, then lets what is under way end.
    pub(crate) async fn run(self, routes: Router, stop: CancellationToken) {
        let seats = Seats::new(self.limits.connections);
        let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
        let host = Arc::new(Host {
            tls: self.tls,
            http: http(&self.limits),
            routes,
            patience: self.limits.patience,
            metrics: self.metrics,
            closing: closing.clone(),
        });
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // A connection that is gone already, or no file descriptor left: neither is a reason to end.
                    Err(error) => {
                        tracing::debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            match seats.take() {
                Some(seat) => drop(connections.spawn(Arc::clone(&host).serve(stream, seat))),
                None => host.metrics.turned_away("connections"),
            }
        }
        drop(self.listener);
        closing.cancel();
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("affix stopped with reviews under way");
        }
    }
}

/// What every connection is served with.
struct Host {
    tls: TlsAcceptor,
    http: Builder<TokioExecutor>,
    routes: Router,
    patience: Duration,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
}

impl Host {
    /// Serves one connection until it ends, or has to leave.
    async fn serve(self: Arc<Self>, stream: TcpStream, seat: Arc<Seat>) {
        let _ = stream.set_nodelay(true);
        let accepted = tokio::select! {
            accepted = timeout(self.patience, self.tls.accept(stream)) => accepted,
            () = seat.needed() => return self.metrics.turned_away("idle"),
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
            Err(_) => return self.metrics.turned_away("slow"),
        };
        self.metrics.connected();
        let routes = self.routes.clone().layer(middleware::from_fn_with_state(
            Arc::clone(&seat),
            with_a_seat,
        ));
        let mut connection = pin!(
            self.http
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = seat.needed() => {
                self.metrics.turned_away("idle");
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended");
        }
        self.metrics.disconnected();
    }
}

async fn with_a_seat(State(seat): State<Arc<Seat>>, request: Request, next: Next) -> Response {
    let _under_way = seat.review();
    next.run(request).await
}

fn http(limits: &ServerLimits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_headers(64)
        .max_buf_size(64 << 10);
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    http
}
