//! The record of all requests with their headers and outcomes, including those that were refused,
//! reset or never answered.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::sync::watch;

use super::lock;
use super::op::Op;
use super::query::Query;

/// One request as it arrived, and its outcome so far.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts from 0 in the order of arrival, also across [`clear`](super::HostileRegistry::clear).
    pub id: u64,
    /// The connection; counts from 0.
    pub connection: u64,
    /// Whose address it came from.
    pub peer: SocketAddr,
    /// True if the peer sent a client certificate on this connection.
    pub client_certificate: bool,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// When it arrived, counted from the start of the registry.
    pub at: Duration,
    /// The method.
    pub method: Method,
    /// The path, as sent.
    pub path: String,
    /// The text after `?`, as sent; empty if there was none.
    pub query: String,
    /// All headers, secrets included. HTTP/2's `:authority` stands as `host`.
    pub headers: HeaderMap,
    /// The body; empty until it has been read.
    pub body: Bytes,
    /// The operation.
    pub op: Op,
    /// The repository in its path.
    pub repository: Option<String>,
    /// The tag, digest or upload in its path.
    pub reference: Option<String>,
    /// The digest of the content that the registry's own answer names, from [`Stage::After`](super::Stage::After) on and only for hooks there.
    pub served: Option<String>,
    /// The outcome so far.
    pub outcome: Outcome,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Open,
    /// A head with this status was sent.
    Answered(u16),
    /// The connection was reset or closed on purpose, without an answer.
    Cut,
    /// The client went away before it had an answer.
    Abandoned,
}

impl Request {
    /// The value of a header, where it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns true if the request has a credential: an `Authorization`, a cookie, a proxy
    /// authorization, or a password or refresh token in a form.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        let header = ["authorization", "proxy-authorization", "cookie"]
            .iter()
            .any(|name| self.headers.contains_key(*name));
        header
            || self.client_certificate
            || ["password", "refresh_token"]
                .iter()
                .any(|name| self.form(name).is_some())
    }

    /// The value of a parameter of the query.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        Query::parse(&self.query).get(name).map(str::to_owned)
    }

    /// The value of a field of a form in the body.
    #[must_use]
    pub fn form(&self, name: &str) -> Option<String> {
        let form = self
            .header("content-type")?
            .starts_with("application/x-www-form-urlencoded");
        let text = std::str::from_utf8(&self.body).ok().filter(|_| form)?;
        Query::parse(text).get(name).map(str::to_owned)
    }

    /// The status it was answered with.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Answered(status) => Some(status),
            _ => None,
        }
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }
}

#[derive(Default)]
struct Log {
    next: u64,
    requests: Vec<Request>,
    running: usize,
    most: usize,
}

/// Keeps the requests, in the order of their arrival.
pub(super) struct Recorder {
    started: Instant,
    log: Mutex<Log>,
    arrivals: watch::Sender<u64>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            log: Mutex::default(),
            arrivals: watch::Sender::new(0),
        }
    }

    /// Notes `request` and gives it its number and time.
    pub(super) fn open(self: &Arc<Self>, request: &mut Request) -> Entry {
        let mut log = lock(&self.log);
        request.id = log.next;
        request.at = self.started.elapsed();
        log.next += 1;
        log.running += 1;
        log.most = log.most.max(log.running);
        log.requests.push(request.clone());
        drop(log);
        self.arrivals.send_modify(|count| *count += 1);
        Entry {
            id: request.id,
            recorder: Arc::clone(self),
        }
    }

    pub(super) fn snapshot(&self) -> Vec<Request> {
        lock(&self.log).requests.clone()
    }

    pub(super) fn clear(&self) {
        let mut log = lock(&self.log);
        log.requests.clear();
        log.most = log.running;
    }

    pub(super) fn most_at_once(&self) -> usize {
        lock(&self.log).most
    }

    /// Changes with each arrival and each outcome.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    fn update(&self, id: u64, change: impl FnOnce(&mut Request)) {
        if let Some(request) = lock(&self.log)
            .requests
            .iter_mut()
            .rev()
            .find(|request| request.id == id)
        {
            change(request);
        }
        self.arrivals.send_modify(|count| *count += 1);
    }
}

/// A request under way. Dropped when its answer is sent in full, or never will be.
pub(super) struct Entry {
    id: u64,
    recorder: Arc<Recorder>,
}

impl Entry {
    pub(super) fn body(&self, body: Bytes) {
        self.recorder.update(self.id, |request| request.body = body);
    }

    pub(super) fn outcome(&self, outcome: Outcome) {
        self.recorder
            .update(self.id, |request| request.outcome = outcome);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.recorder.log).running -= 1;
        self.recorder.update(self.id, |request| {
            if request.outcome == Outcome::Open {
                request.outcome = Outcome::Abandoned;
            }
        });
    }
}

/// Returns the requests for people, one per line, with their distinguishing parts.
pub(super) fn transcript(requests: &[Request]) -> String {
    let mut text = String::new();
    for request in requests {
        let outcome = match request.outcome {
            Outcome::Answered(status) => status.to_string(),
            other => format!("{other:?}").to_lowercase(),
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "#{:<3} {:>6} ms  c{:<3} {outcome:<9} {} {}",
            request.id,
            request.at.as_millis(),
            request.connection,
            request.method,
            request.target()
        );
        for name in ["authorization", "if-match", "content-type"] {
            if let Some(value) = request.header(name) {
                let _ = write!(text, "  {name}: {value}");
            }
        }
        if !request.body.is_empty() {
            let _ = write!(text, "  [{} bytes]", request.body.len());
        }
        text.push('\n');
    }
    text
}
