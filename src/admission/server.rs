//! The TLS server: connections, their certificate, and their end.
//!
//! Owns: how many connections there are, how long a caller may take for a handshake and a request's head, and that a call that
//! has begun is answered before the process ends. Built on hyper rather than on a ready-made server, because the number of
//! connections and the certificate of each handshake are decided here.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::options::ServerLimits;
use crate::service::ListenAddress;

/// Requests at once on one connection; the API server keeps few connections with many requests.
const STREAMS: u32 = 250;
/// How long calls under way may take after the order to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// The certificate that handshakes get. It can be another one at any time; connections that stand keep theirs.
#[derive(Default)]
pub(super) struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// From now on handshakes get this one.
    pub(super) fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A server that listens and has not accepted anything yet.
pub(super) struct Server {
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
    pub(super) fn bind(address: ListenAddress, served: Arc<Served>, limits: ServerLimits, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let listener = address.listen()?;
        tracing::info!(address = %listener.local_addr()?, "serving webhooks");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(std::io::Error::other)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(served);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { listener, tls: TlsAcceptor::from(Arc::new(config)), limits, metrics })
    }

    /// Serves until `stop`, then lets what is under way end.
    pub(super) async fn run(self, routes: Router, stop: CancellationToken) {
        let seats = Arc::new(Semaphore::new(self.limits.connections));
        let graceful = GracefulShutdown::new();
        let http = Arc::new(self.http());
        loop {
            let (stream, _) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    // A connection that is gone already, or no file descriptor left: neither is a reason to end.
                    Err(error) => {
                        tracing::debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
                self.metrics.turned_away("connections");
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (tls, patience, metrics) = (self.tls.clone(), self.limits.patience, Arc::clone(&self.metrics));
            let (service, http, watcher) = (TowerToHyperService::new(routes.clone()), Arc::clone(&http), graceful.watcher());
            tokio::spawn(async move {
                let _seat = seat;
                let stream = match timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
                    Err(_) => return metrics.turned_away("slow"),
                };
                metrics.connected();
                let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(error, "a connection ended");
                }
                metrics.disconnected();
            });
        }
        drop(self.listener);
        if timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("affix stopped with reviews under way");
        }
    }

    fn http(&self) -> Builder<TokioExecutor> {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.patience).max_headers(64).max_buf_size(64 << 10);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        http
    }
}
