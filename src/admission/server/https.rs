//! The HTTPS server: TLS handshakes, HTTP/1.1 and HTTP/2 limits, idle connection eviction and graceful
//! shutdown.
//!
//! It uses hyper-util directly. A server crate that owns the accept loop cannot send GOAWAY to one
//! evicted connection, so a review in transit would fail.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::metrics::Metrics;
use crate::admission::options::ServerLimits;
use crate::admission::server::body;
use crate::admission::server::connections::{ConnectionLimiter, ConnectionSlot};
use crate::admission::server::tls::TlsSettings;
use crate::service::ListenAddress;

/// Concurrent requests per connection. The API server multiplexes many requests over few connections.
const MAX_STREAMS: u32 = 250;
/// HTTP/2 flow-control window of a request.
const STREAM_WINDOW: u32 = 64 << 10;
/// HTTP/2 flow-control window of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
// Bodies that wait for memory occupy their windows. Together they use at most half of the window of a
// connection.
const _: () =
    assert!(body::MAX_WAITING_BODIES * STREAM_WINDOW as usize <= CONNECTION_WINDOW as usize / 2);
/// Time limit for reviews in flight during shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for a review that is on its way to an idle HTTP/1.1 connection at the shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// Time for an evicted connection to complete a review that arrives at that moment.
const EVICTION_GRACE: Duration = Duration::from_secs(3);

/// A server that is bound to its address and does not accept connections yet.
pub(crate) struct Server {
    listener: TcpListener,
    tls: Arc<TlsSettings>,
    limits: ServerLimits,
    metrics: Arc<Metrics>,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is in use or not local.
    pub(crate) fn bind(
        address: ListenAddress,
        tls: Arc<TlsSettings>,
        limits: ServerLimits,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let listener = address.listen()?;
        tracing::info!(address = %listener.local_addr()?, "serving webhooks");
        Ok(Self {
            listener,
            tls,
            limits,
            metrics,
        })
    }

    /// Accepts connections until `stop`, then completes the reviews in flight.
    pub(crate) async fn run(self, routes: Router, stop: CancellationToken) {
        let limiter = ConnectionLimiter::new(self.limits.connections);
        let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
        let server = Arc::new(ConnectionServer {
            tls: self.tls,
            http: http(&self.limits),
            routes,
            handshake_timeout: self.limits.patience,
            metrics: self.metrics,
            closing: closing.clone(),
        });
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // The client has gone, or the process has no file descriptor left. Both are
                    // transient.
                    Err(error) => {
                        tracing::debug!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            match limiter.acquire() {
                Some(slot) => drop(connections.spawn(Arc::clone(&server).serve(stream, slot))),
                None => server.metrics.rejected("connections"),
            }
        }
        drop(self.listener);
        closing.cancel();
        connections.close();
        if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!("shutdown time limit reached with reviews in flight");
        }
    }
}

/// The shared state of all connections.
struct ConnectionServer {
    tls: Arc<TlsSettings>,
    http: Builder<TokioExecutor>,
    routes: Router,
    handshake_timeout: Duration,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
}

impl ConnectionServer {
    /// Serves a connection until it ends or is evicted.
    async fn serve(self: Arc<Self>, stream: TcpStream, slot: Arc<ConnectionSlot>) {
        let _ = stream.set_nodelay(true);
        let accepted = tokio::select! {
            accepted = timeout(self.handshake_timeout, self.tls.acceptor().accept(stream)) => accepted,
            () = slot.evicted() => return self.metrics.rejected("idle"),
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return self.metrics.rejected("slow"),
        };
        self.metrics.connected();
        let routes = self.routes.clone().layer(middleware::from_fn_with_state(
            Arc::clone(&slot),
            track_review,
        ));
        // Chosen by ALPN and not by the first bytes. While hyper-util waits for those, a graceful
        // shutdown closes the connection, and the first review of it fails.
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let http = if is_http2 {
            self.http.clone().http2_only()
        } else {
            self.http.clone().http1_only()
        };
        let mut connection =
            pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing.cancelled() => {
                // HTTP/1.1 has no GOAWAY: a review may be on its way on an idle connection.
                let grace = if is_http2 { Duration::ZERO } else { SHUTDOWN_GRACE };
                if let Ok(ended) = timeout(grace, connection.as_mut()).await {
                    ended
                } else {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
            () = slot.evicted() => {
                self.metrics.rejected("idle");
                connection.as_mut().graceful_shutdown();
                timeout(EVICTION_GRACE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "connection failed");
        }
        self.metrics.disconnected();
    }
}

async fn track_review(
    State(slot): State<Arc<ConnectionSlot>>,
    request: Request,
    next: Next,
) -> Response {
    let _guard = slot.start_review();
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
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    http
}
