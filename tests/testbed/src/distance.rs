//! A registry put further away: a proxy on the loopback address that adds a round-trip time and writes down every request.
//!
//! Owns the delay and the record. A new connection takes one round trip, as TCP's handshake does, and a request another; a connection
//! that was opened before it was needed has had its own by then. Refuses to
//! change what passes through: the `Host` header stays, so that the addresses in the registry's answers lead back here.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::body::{Body, to_bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::http_client;

/// Bytes of a body that is passed on at most.
const MOST: usize = 64 << 20;

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
    registry: String,
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = Arc::new(Way {
            client: http_client::client(None)?,
            registry: host.to_owned(),
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
            let service = service_fn(move |request| {
                let way = Arc::clone(&way);
                async move { way.pass(request, opened).await }
            });
            // A client that goes in the middle of a request is no failure of the proxy.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Way {
    async fn pass(
        &self,
        request: Request<Incoming>,
        opened: Instant,
    ) -> Result<Response<Body>, Infallible> {
        let round_trip = Duration::from_micros(self.round_trip.load(Ordering::Relaxed));
        let half = round_trip / 2;
        // Before the handshake has been there and back the client could not have sent anything.
        let shaking = (opened + round_trip).saturating_duration_since(Instant::now());
        let sent = Instant::now() + shaking;
        let method = request.method().to_string();
        let target = request
            .uri()
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string);
        wait(shaking + half).await;
        let answer = self
            .forward(request, &target)
            .await
            .unwrap_or_else(|error| {
                let mut answer = Response::new(Body::from(format!("{error:#}")));
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            });
        wait(half).await;
        let passed = Passed {
            method,
            target,
            status: answer.status().as_u16(),
            sent,
            answered: Instant::now(),
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
        let body = to_bytes(Body::new(body), MOST)
            .await
            .context("the request's body")?;
        let url = format!("http://{}{target}", self.registry);
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
