//! Connections: accepting them, serving them, and ending them rudely.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::lock;
use super::service::Service;

/// The treatment of a connection after it is accepted and before anything is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is reset.
    Reset,
    /// It is closed.
    Close,
    /// It stays open, and nothing is read or written.
    Hang,
    /// These bytes are sent and it is closed.
    Garbage(Bytes),
}

/// A connection that requests come on.
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) client_certificate: bool,
    killed: Arc<AtomicBool>,
    end: Notify,
}

impl Connection {
    /// Resets the connection and all of its requests.
    pub(super) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.end.notify_one();
    }
}

/// Accepts connections and applies the arrivals that a test asked for.
pub(super) struct Acceptor {
    pub(super) service: Arc<Service>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) http2: bool,
    pub(super) accepted: AtomicU64,
    pub(super) arrivals: Mutex<Vec<(Arrival, u64)>>,
}

impl Acceptor {
    /// Accepts connections until it is dropped. Accepted connections end with it.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(Arc::clone(&self).welcome(stream, peer));
                    }
                    // Out of file descriptors, mostly: others may end meanwhile.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// The next arrival that a test has asked for.
    fn arrival(&self) -> Option<Arrival> {
        let mut arrivals = lock(&self.arrivals);
        let (arrival, left) = arrivals.iter_mut().find(|(_, left)| *left > 0)?;
        *left -= 1;
        Some(arrival.clone())
    }

    async fn welcome(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let id = self.accepted.fetch_add(1, Ordering::SeqCst);
        // Small answers should not wait for each other's acknowledgement; where the option fails, they do.
        let _ = stream.set_nodelay(true);
        let killed = Arc::new(AtomicBool::new(false));
        let mut wire = Wire {
            stream,
            killed: Arc::clone(&killed),
        };
        match self.arrival() {
            None => {}
            Some(Arrival::Close) => return,
            Some(Arrival::Reset) => {
                killed.store(true, Ordering::SeqCst);
                return;
            }
            Some(Arrival::Hang) => {
                let _wire = wire;
                return std::future::pending().await;
            }
            Some(Arrival::Garbage(bytes)) => {
                // The peer may be gone already.
                let _ = wire.write_all(&bytes).await;
                let _ = wire.shutdown().await;
                return;
            }
        }
        let connection = |client_certificate| Connection {
            id,
            peer,
            client_certificate,
            killed,
            end: Notify::new(),
        };
        match &self.tls {
            None => self.serve(wire, connection(false)).await,
            Some(tls) => {
                // A handshake that fails is the client's refusal of our certificate: there is nothing to record.
                if let Ok(stream) = tls.accept(wire).await {
                    let shown = stream.get_ref().1.peer_certificates().is_some();
                    self.serve(stream, connection(shown)).await;
                }
            }
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        connection: Connection,
    ) {
        let connection = Arc::new(connection);
        let on_request =
            service_fn(|request| Arc::clone(&self.service).serve(Arc::clone(&connection), request));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        if !self.http2 {
            builder = builder.http1_only();
        }
        tokio::select! {
            // An error here is a client that went away, or a fault that did its work.
            _ = builder.serve_connection(TokioIo::new(stream), on_request) => {}
            () = connection.end.notified() => {}
        }
    }
}

/// A TCP stream that can be reset.
struct Wire {
    stream: TcpStream,
    killed: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.killed.load(Ordering::SeqCst) {
            // Closing with no time to linger sends a reset; where the option fails, the close is an orderly one.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
