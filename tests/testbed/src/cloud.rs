//! The hosts of a cloud, behind a proxy: each name that a client connects to leads to a server of the test, over TLS with a
//! certificate of a private authority. So the client uses the real names and derives them as it does in a cloud.
//!
//! A name leads to a server on loopback that speaks plain HTTP ([`Cloud::route`]), or is answered by a function
//! ([`Cloud::service`]). Every other name is refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;

/// The largest body of a request to a service.
const MAX_BODY: usize = 1 << 20;

/// A running cloud. Dropping it stops it.
pub struct Cloud {
    inner: Arc<Inner>,
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

struct Inner {
    authority: Authority,
    routes: Mutex<BTreeMap<String, SocketAddr>>,
    services: Mutex<BTreeMap<String, Service>>,
    calls: Mutex<Vec<Call>>,
    /// The names that clients connected to, with their ports.
    connections: Mutex<Vec<String>>,
    /// The server of all services.
    own: SocketAddr,
}

type Service = Arc<dyn Fn(&Call) -> Answer + Send + Sync>;

/// A request to a service.
#[derive(Debug, Clone)]
pub struct Call {
    /// The host that the request names.
    pub host: String,
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

/// The answer of a service.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// The `Location` header.
    pub location: Option<String>,
}

impl Answer {
    /// Returns an answer without headers.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            location: None,
        }
    }
}

impl Call {
    /// Returns a field of a form.
    #[must_use]
    pub fn form(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// Returns a header. One that is not text counts as absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Cloud {
    /// Starts a cloud without hosts.
    ///
    /// # Errors
    ///
    /// Where no port can be opened.
    pub async fn start() -> Result<Self> {
        let services = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = TcpListener::bind("127.0.0.1:0").await?;
        let address = proxy.local_addr()?;
        let inner = Arc::new(Inner {
            authority: Authority::new()?,
            routes: Mutex::default(),
            services: Mutex::default(),
            calls: Mutex::default(),
            connections: Mutex::default(),
            own: services.local_addr()?,
        });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let serving = tokio::spawn(async move {
            // The client reports a broken connection.
            drop(axum::serve(services, router).await);
        });
        let shared = Arc::clone(&inner);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = proxy.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { drop(connect(client, &shared).await) });
            }
        });
        Ok(Self {
            inner,
            address,
            tasks: [serving, accepting],
        })
    }

    /// Returns the URL of the proxy.
    #[must_use]
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the certificate of the authority, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.inner.authority.pem()
    }

    /// Leads a host to a server on loopback that speaks plain HTTP.
    pub fn route(&self, host: &str, server: SocketAddr) {
        lock(&self.inner.routes).insert(host.to_owned(), server);
    }

    /// Answers the requests to a host by a function, in place of an earlier one.
    pub fn service(&self, host: &str, answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) {
        lock(&self.inner.services).insert(host.to_owned(), Arc::new(answer));
        self.route(host, self.inner.own);
    }

    /// Returns the requests to a service so far.
    #[must_use]
    pub fn calls(&self, host: &str) -> Vec<Call> {
        let calls = lock(&self.inner.calls);
        calls
            .iter()
            .filter(|call| call.host == host)
            .cloned()
            .collect()
    }

    /// Returns all requests to services so far.
    #[must_use]
    pub fn all_calls(&self) -> Vec<Call> {
        lock(&self.inner.calls).clone()
    }

    /// Returns the names that clients connected to so far, each once.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts = lock(&self.inner.connections).clone();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection to the proxy.
async fn connect(mut client: TcpStream, inner: &Inner) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .context("only CONNECT is served")?;
    lock(&inner.connections).push(target.to_owned());
    let host = target.strip_suffix(":443").unwrap_or(target);
    let Some(server) = lock(&inner.routes).get(host).copied() else {
        client
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            .await?;
        return Ok(());
    };
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    let (certificate, key) = inner.authority.server_key_for(&[host])?;
    let config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(vec![certificate], key)?;
    let mut client = TlsAcceptor::from(Arc::new(config)).accept(client).await?;
    let mut server = TcpStream::connect(server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Answers one request to a service.
async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY)
        .await
        .unwrap_or_default();
    let host = parts
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let call = Call {
        host: host.unwrap_or_default().to_owned(),
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    lock(&inner.calls).push(call.clone());
    let service = lock(&inner.services).get(&call.host).cloned();
    let answer = service.map_or_else(|| Answer::new(502, ""), |service| service(&call));
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Some(location) = answer.location.and_then(|location| location.parse().ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
