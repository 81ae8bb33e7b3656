//! One request from its head to its answer: recording, rules, authentication, the protocol, and the changes that faults make.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use hyper::body::{Body, Incoming};

use super::answer::Answer;
use super::auth::Auth;
use super::body::WireBody;
use super::connection::Connection;
use super::fault::{Effect, Fault, Stage};
use super::issuer::Issuer;
use super::op::{Op, Route};
use super::quirk::{Location, Quirks};
use super::record::{Entry, Outcome, Recorder, Request};
use super::rules::{Rules, Work};
use super::store::Store;
use super::{blobs, lock, manifests, referrers, tags};

/// The largest request body that is taken.
const LARGEST: usize = 256 << 20;

/// The state that the requests of one registry share.
pub(super) struct Service {
    pub(super) origin: String,
    pub(super) store: Store,
    pub(super) issuer: Issuer,
    pub(super) recorder: Arc<Recorder>,
    pub(super) rules: Rules,
    pub(super) quirks: std::sync::Mutex<Quirks>,
    pub(super) auth: std::sync::Mutex<Auth>,
}

/// The context of a handler: the content and the traits of the registry at the time of the request.
pub(super) struct Context<'a> {
    pub(super) store: &'a Store,
    pub(super) quirks: &'a Quirks,
    pub(super) origin: &'a str,
}

impl Context<'_> {
    pub(super) fn name_unknown(&self) -> Answer {
        Answer::error(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "repository name not known to registry",
        )
    }

    pub(super) fn digest_header(&self, answer: Answer, digest: &str) -> Answer {
        if self.quirks.digest_header {
            answer.named("docker-content-digest", digest)
        } else {
            answer
        }
    }

    /// Adds the `Location` of `path`, as the registry writes it.
    pub(super) fn location(
        &self,
        form: &Location,
        path: &str,
    ) -> impl FnOnce(Answer) -> Answer + use<> {
        let location = match form {
            Location::Relative => Some(path.to_owned()),
            Location::Absolute => Some(format!("{}{path}", self.origin)),
            Location::Under(base) => Some(format!("{base}{path}")),
            Location::Raw(text) => Some(text.clone()),
            Location::None => None,
        };
        move |answer| match location {
            Some(location) => answer.header(LOCATION, &location),
            None => answer,
        }
    }
}

/// A request that gets no answer.
enum Ending {
    Reset,
    Close,
    Hang,
    /// The client went away by itself.
    Gone,
}

impl Service {
    /// Serves one request. An error closes the connection (of HTTP/2: resets the stream).
    pub(super) async fn serve(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: hyper::Request<Incoming>,
    ) -> io::Result<hyper::Response<WireBody>> {
        let (parts, body) = request.into_parts();
        let mut request = arrival(&connection, parts);
        let entry = self.recorder.open(&mut request);
        match self.answer(&mut request, body, &entry).await {
            Ok(answer) => {
                entry.outcome(Outcome::Answered(answer.status.as_u16()));
                let answer = answer.seal();
                let silent = request.method == Method::HEAD;
                let mut response =
                    hyper::Response::new(WireBody::new(answer.payload, silent, connection, entry));
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                Ok(response)
            }
            Err(ending) => {
                match ending {
                    Ending::Gone => {}
                    Ending::Close => entry.outcome(Outcome::Cut),
                    Ending::Reset => {
                        entry.outcome(Outcome::Cut);
                        connection.kill();
                        std::future::pending::<()>().await;
                    }
                    Ending::Hang => std::future::pending().await,
                }
                Err(io::Error::from(io::ErrorKind::ConnectionAborted))
            }
        }
    }

    async fn answer(
        &self,
        request: &mut Request,
        body: Incoming,
        entry: &Entry,
    ) -> Result<Answer, Ending> {
        let mut faults = Vec::new();
        let mut answer = self.at(Stage::Early, request, &mut faults).await?;
        match read(body).await {
            Ok(body) => {
                entry.body(body.clone());
                request.body = body;
            }
            Err(Unread::TooLarge) => {
                return Ok(Answer::error(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "SIZE_INVALID",
                    "body too large",
                ));
            }
            Err(Unread::Gone) => return Err(Ending::Gone),
        }
        if answer.is_none() {
            answer = self.at(Stage::Before, request, &mut faults).await?;
        }
        let mut answer = answer.unwrap_or_else(|| self.handle(request));
        request.served = answer
            .headers
            .get("docker-content-digest")
            .and_then(|digest| digest.to_str().ok())
            .map(str::to_owned);
        if let Some(instead) = self.at(Stage::After, request, &mut faults).await? {
            answer = instead;
        }
        for fault in &faults {
            fault.change(&mut answer);
        }
        Ok(answer)
    }

    /// Applies the rules for this stage. Returns the answer that replaces the registry's own, if
    /// there is one, and adds faults that change an answer to `faults`.
    async fn at(
        &self,
        stage: Stage,
        request: &Request,
        faults: &mut Vec<Fault>,
    ) -> Result<Option<Answer>, Ending> {
        let mut answer = None;
        for work in self.rules.take(stage, request) {
            match work {
                Work::Hook(hook) => hook(request.clone()).await,
                Work::Fault(Fault::Delay(span)) => tokio::time::sleep(span).await,
                Work::Fault(fault) => match fault.instead(request) {
                    Some(Effect::Answer(instead)) => answer = Some(*instead),
                    Some(Effect::Reset) => return Err(Ending::Reset),
                    Some(Effect::Close) => return Err(Ending::Close),
                    Some(Effect::Hang) => return Err(Ending::Hang),
                    None => faults.push(fault),
                },
            }
        }
        Ok(answer)
    }

    fn handle(&self, request: &Request) -> Answer {
        if request.op == Op::Token {
            return self.issuer.exchange(request);
        }
        if request.op == Op::Other {
            return super::Reply::html(404).answer(request);
        }
        let auth = lock(&self.auth).clone();
        if let Err(refusal) = auth.check(request, &self.origin) {
            return *refusal;
        }
        let quirks = lock(&self.quirks).clone();
        let context = Context {
            store: &self.store,
            quirks: &quirks,
            origin: &self.origin,
        };
        let name = request.repository.as_deref().unwrap_or_default();
        let reference = request.reference.as_deref().unwrap_or_default();
        let answer = match request.op {
            Op::Ping => Answer::new(StatusCode::OK)
                .header(http::header::CONTENT_TYPE, "application/json")
                .bytes("{}"),
            Op::ManifestGet | Op::ManifestHead => {
                manifests::read(&context, request, name, reference)
            }
            Op::ManifestPut => manifests::put(&context, request, name, reference),
            Op::ManifestDelete => manifests::delete(&context, name, reference),
            Op::BlobGet | Op::BlobHead => blobs::read(&context, name, reference),
            Op::BlobDelete => blobs::delete(&context, name, reference),
            Op::UploadStart => blobs::start(&context, request, name),
            Op::UploadStatus | Op::UploadPatch | Op::UploadPut | Op::UploadCancel => {
                blobs::upload(&context, request, name, reference)
            }
            Op::ReferrersList => referrers::list(&context, request, name, reference),
            Op::TagList => tags::list(&context, request, name),
            Op::Token | Op::Other => Answer::new(StatusCode::NOT_FOUND),
        };
        debug_assert!(
            !answer.headers.contains_key(WWW_AUTHENTICATE),
            "only the authentication challenges"
        );
        answer.named("docker-distribution-api-version", "registry/2.0")
    }
}

/// Returns the record of a request from its head.
fn arrival(connection: &Connection, parts: http::request::Parts) -> Request {
    let path = parts.uri.path().to_owned();
    let Route {
        op,
        repository,
        reference,
    } = Route::parse(&parts.method, &path);
    let mut headers = parts.headers;
    // HTTP/2 has `:authority` in place of `Host`.
    let authority = parts
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority.filter(|_| !headers.contains_key(HOST)) {
        headers.insert(HOST, authority);
    }
    Request {
        id: 0,
        connection: connection.id,
        peer: connection.peer,
        client_certificate: connection.client_certificate,
        version: parts.version,
        at: std::time::Duration::ZERO,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        method: parts.method,
        path,
        headers,
        body: Bytes::new(),
        op,
        repository,
        reference,
        served: None,
        outcome: Outcome::Open,
    }
}

/// Why a body could not be read.
enum Unread {
    TooLarge,
    Gone,
}

async fn read(mut body: Incoming) -> Result<Bytes, Unread> {
    let mut bytes = BytesMut::new();
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        let Ok(Ok(chunk)) = frame.map(hyper::body::Frame::into_data) else {
            return Err(Unread::Gone);
        };
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST {
            return Err(Unread::TooLarge);
        }
    }
    Ok(bytes.freeze())
}
