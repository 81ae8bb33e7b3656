//! A registry put further away: a proxy on loopback that adds a round-trip time and records every request.
//!
//! [`Distance::to`] speaks plain HTTP/1.1: a new connection costs one round trip, as the TCP handshake does, and each
//! request another. [`Distance::over_tls`] ends TLS 1.3 and offers HTTP/2: the delay lies below TLS, so a connection
//! costs two round trips, and requests of one connection share it. The proxy changes nothing that passes: the `Host`
//! header stays, so that the addresses in the answers of the registry lead back to the proxy.

mod delayed;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::body::{Body, to_bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;
use crate::http_client;
use crate::registry::Registry;
use delayed::delayed;

/// Bytes of the longest body that passes.
const MAX_BODY: usize = 64 << 20;

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// `GET`, `HEAD`, `PUT`, …
    pub method: String,
    /// The path and what follows the question mark.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// When the client sent it.
    pub sent: Instant,
    /// When the client had the answer.
    pub answered: Instant,
}

/// The proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Distance {
    address: SocketAddr,
    way: Arc<Way>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Way {
    client: reqwest::Client,
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    registry: String,
    tls: Option<Arc<ServerConfig>>,
    round_trip: AtomicU64,
    passed: Mutex<Vec<Passed>>,
}

impl Distance {
    /// Puts the plain HTTP registry at `host` (`HOST:PORT`) so far away.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub async fn to(host: &str, round_trip: Duration) -> anyhow::Result<Self> {
        let client = http_client::client(None)?;
        Self::start(format!("http://{host}"), client, None, round_trip).await
    }

    /// Puts a registry that speaks TLS so far away. The proxy presents a certificate of `authority`, for TLS 1.3 only, and
    /// offers HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    ///
    /// Where the registry speaks plain HTTP, or no port or certificate can be had.
    pub async fn over_tls(
        registry: &Registry,
        authority: &Authority,
        round_trip: Duration,
    ) -> anyhow::Result<Self> {
        let ca_pem = registry
            .ca_pem()
            .context("the registry speaks plain HTTP")?;
        // HTTP/1.1, since its `Host` header is what the registry builds URLs from.
        let client = http_client::client(Some(ca_pem))?;
        let tls = server_config(authority)?;
        Self::start(registry.url(), client, Some(tls), round_trip).await
    }

    async fn start(
        registry: String,
        client: reqwest::Client,
        tls: Option<Arc<ServerConfig>>,
        round_trip: Duration,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = Arc::new(Way {
            client,
            registry,
            tls,
            round_trip: AtomicU64::default(),
            passed: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&way))).abort_handle();
        let distance = Self {
            address,
            way,
            accepting,
        };
        distance.set(round_trip);
        Ok(distance)
    }

    /// `127.0.0.1:PORT`, as references begin.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Changes the round-trip time, for requests to come.
    pub fn set(&self, round_trip: Duration) {
        self.way.round_trip.store(
            u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// Takes what has passed since it was asked last, in the order in which it was sent.
    pub fn take(&self) -> Vec<Passed> {
        let mut passed = std::mem::take(
            &mut *self
                .way
                .passed
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        passed.sort_by_key(|request| request.sent);
        passed
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The length of the longest chain of requests of which each was sent after the one before had been answered: round trips that
/// could not be had at the same time. Requests must be in the order in which they were sent.
#[must_use]
pub fn round_trips(passed: &[Passed]) -> usize {
    let mut chains: Vec<(Instant, usize)> = Vec::new();
    for request in passed {
        let before = chains
            .iter()
            .filter(|(answered, _)| *answered <= request.sent)
            .map(|(_, length)| *length)
            .max();
        chains.push((request.answered, before.unwrap_or(0) + 1));
    }
    chains
        .into_iter()
        .map(|(_, length)| length)
        .max()
        .unwrap_or(0)
}

async fn accept(listener: TcpListener, way: Arc<Way>) {
    // Ends its connections with itself.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let way = Arc::clone(&way);
        connections.spawn(async move {
            let opened = Instant::now();
            let acceptor = way.tls.clone().map(TlsAcceptor::from);
            let round_trip = way.round_trip();
            let service = service_fn(move |request| {
                let way = Arc::clone(&way);
                async move { way.pass(request, opened).await }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            // A client that closes its connection in the middle of a request is no failure of the proxy.
            if let Some(acceptor) = acceptor {
                if let Ok(stream) = acceptor.accept(delayed(stream, round_trip)).await {
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                }
            } else {
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// TLS 1.3 with a certificate of `authority` for loopback.
fn server_config(authority: &Authority) -> anyhow::Result<Arc<ServerConfig>> {
    let (certificate, key) = authority.server_key()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])?
    .with_no_client_auth()
    .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Way {
    fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        opened: Instant,
    ) -> Result<Response<Body>, Infallible> {
        let half = self.round_trip() / 2;
        let is_delayed_below = self.tls.is_some();
        // Before the handshake has been there and back the client could not have sent anything.
        let handshake = if is_delayed_below {
            Duration::ZERO
        } else {
            (opened + 2 * half).saturating_duration_since(Instant::now())
        };
        let arrived = Instant::now();
        let sent = if is_delayed_below {
            arrived.checked_sub(half).unwrap_or(arrived)
        } else {
            arrived + handshake
        };
        let method = request.method().to_string();
        let target = request
            .uri()
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string);
        if !is_delayed_below {
            wait(handshake + half).await;
        }
        let answer = self
            .forward(request, &target)
            .await
            .unwrap_or_else(|error| {
                let mut answer = Response::new(Body::from(format!("{error:#}")));
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            });
        let answered = if is_delayed_below {
            Instant::now() + half
        } else {
            wait(half).await;
            Instant::now()
        };
        let passed = Passed {
            method,
            target,
            status: answer.status().as_u16(),
            sent,
            answered,
        };
        self.passed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(passed);
        Ok(answer)
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
        target: &str,
    ) -> anyhow::Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        let is_head = head.method == http::Method::HEAD;
        for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
            head.headers.remove(name);
        }
        // HTTP/2 has the host in the request's target; the registry builds its absolute URLs from this header.
        if let Some(authority) = head.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.insert(HOST, host);
        }
        let body = to_bytes(Body::new(body), MAX_BODY)
            .await
            .context("the request's body")?;
        let url = format!("{}{target}", self.registry);
        let answer = self
            .client
            .request(head.method, url)
            .headers(head.headers)
            .body(body)
            .send()
            .await?;
        let mut passed = Response::new(());
        *passed.status_mut() = answer.status();
        *passed.headers_mut() = answer.headers().clone();
        for name in [CONNECTION, TRANSFER_ENCODING] {
            passed.headers_mut().remove(name);
        }
        let body = answer.bytes().await.context("the answer's body")?;
        if !is_head {
            passed
                .headers_mut()
                .insert(CONTENT_LENGTH, body.len().into());
        }
        Ok(passed.map(|()| Body::from(body)))
    }
}

/// No distance is no wait: the timer's grain is a millisecond.
async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test's failure is its message")]
mod tests {
    use super::*;
    use crate::hostile::HostileRegistry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn passed(sent: u64, answered: u64, start: Instant) -> Passed {
        let at = |ms| start + Duration::from_millis(ms);
        Passed {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            status: 200,
            sent: at(sent),
            answered: at(answered),
        }
    }

    #[test]
    fn requests_at_the_same_time_are_one_round_trip_and_those_after_another_are_more() {
        let start = Instant::now();
        let of = |times: &[(u64, u64)]| {
            round_trips(
                &times
                    .iter()
                    .map(|(sent, answered)| passed(*sent, *answered, start))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[(0, 20), (1, 22), (2, 21)]), 1);
        assert_eq!(of(&[(0, 20), (1, 22), (21, 40), (23, 44)]), 2);
        assert_eq!(of(&[(0, 20), (20, 40), (30, 50), (50, 60)]), 3);
    }

    #[tokio::test]
    async fn a_request_pays_one_round_trip_and_its_connection_another() {
        const ROUND_TRIP: Duration = Duration::from_millis(100);
        let registry = HostileRegistry::start().await.unwrap();
        let distance = Distance::to(&registry.host(), ROUND_TRIP).await.unwrap();
        let client = http_client::client(None).unwrap();
        let url = format!("http://{}/v2/", distance.host());
        for least in [ROUND_TRIP * 2, ROUND_TRIP] {
            let began = Instant::now();
            assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
            assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        }
        let passed = distance.take();
        assert_eq!(
            passed
                .iter()
                .map(|request| (request.target.as_str(), request.status))
                .collect::<Vec<_>>(),
            [("/v2/", 200); 2]
        );
        assert_eq!(round_trips(&passed), 2);
        assert!(distance.take().is_empty());
        assert_eq!(registry.requests().len(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_was_opened_ahead_costs_its_first_request_nothing() {
        const ROUND_TRIP: Duration = Duration::from_secs(2);
        let registry = HostileRegistry::start().await.unwrap();
        let distance = Distance::to(&registry.host(), ROUND_TRIP).await.unwrap();
        let mut ahead = tokio::net::TcpStream::connect(distance.address)
            .await
            .unwrap();
        sleep(ROUND_TRIP).await;
        let began = Instant::now();
        ahead
            .write_all(b"GET /v2/ HTTP/1.1\r\nHost: far\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        ahead.read_to_end(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let [passed] = distance.take().try_into().unwrap();
        let took = passed.answered - began;
        assert!(
            took >= ROUND_TRIP && passed.sent - began < ROUND_TRIP,
            "{took:?}, sent after {:?}",
            passed.sent - began
        );
    }

    #[tokio::test]
    async fn over_tls_a_connection_costs_two_round_trips_and_a_request_one_more() {
        const ROUND_TRIP: Duration = Duration::from_millis(100);
        let tools = crate::tools::Tools::all().await.unwrap();
        let authority = Arc::new(Authority::new().unwrap());
        let registry = Registry::ociregistry(&tools)
            .tls(&authority)
            .start()
            .await
            .unwrap();
        let distance = Distance::over_tls(&registry, &authority, ROUND_TRIP)
            .await
            .unwrap();
        let client = http_client::multiplexing(authority.pem()).unwrap();
        let url = format!("https://{}/v2/", distance.host());
        for least in [ROUND_TRIP * 3, ROUND_TRIP] {
            let began = Instant::now();
            let answer = client.get(&url).send().await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.version()),
                (200, http::Version::HTTP_2)
            );
            assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        }
        assert_eq!(round_trips(&distance.take()), 2);
    }

    #[tokio::test]
    async fn what_passes_stays_as_it_is() {
        let registry = HostileRegistry::start().await.unwrap();
        let distance = Distance::to(&registry.host(), Duration::ZERO)
            .await
            .unwrap();
        let near = crate::registry::RawClient::new(&registry.url(), None, None).unwrap();
        let far =
            crate::registry::RawClient::new(&format!("http://{}", distance.host()), None, None)
                .unwrap();
        let image = crate::images::Image::new("linux/amd64", "b1b1");
        let pushed = image.push(&far, "team/app", "v1").await.unwrap();
        assert_eq!(pushed.digest(), image.digest());
        let (near, far) = (
            near.manifest("team/app", "v1").await.unwrap(),
            far.manifest("team/app", "v1").await.unwrap(),
        );
        assert_eq!(
            (near.status, &near.body, near.header("content-type")),
            (far.status, &far.body, far.header("content-type"))
        );
    }
}
