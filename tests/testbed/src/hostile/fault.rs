//! Faults of single requests. A fault applies to the requests that its matcher selects. Several may
//! apply to one request.

use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};

use super::answer::{Answer, Length, Source};
use super::record::Request;
use super::reply::Reply;

/// When a fault, a hook or a hold comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The head is read, the body is not.
    Early,
    /// The whole request is read; it has had no effect.
    Before,
    /// The request has had its effect; the answer is not sent.
    After,
}

/// The end of a connection in the middle of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Closed.
    Close,
    /// Reset.
    Reset,
    /// Left open, and nothing more comes.
    Stall,
}

/// A fault. Those marked *(instead)* replace the registry's own answer: the request has its effect
/// only if they apply at [`Stage::After`]. The others change the answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// *(instead)* Answers with this.
    Reply(Reply),
    /// *(instead)* Resets the connection without an answer.
    Reset,
    /// *(instead)* Closes the connection (of HTTP/2: resets the stream) without an answer.
    Close,
    /// *(instead)* Never answers, and keeps the connection.
    Hang,
    /// *(instead)* Redirects with this status to the same path and query under this base, such as `http://other:5000`.
    RedirectToHost(u16, String),
    /// *(instead)* Redirects with this status to this URL, whole or relative.
    RedirectTo(u16, String),
    /// *(instead)* Redirects with this status to the same place again, with a query that changes.
    RedirectLoop(u16),
    /// Waits first.
    Delay(Duration),
    /// Answers with this status, all else unchanged.
    Status(u16),
    /// Sets a header of the answer, or takes it away. `digest_header`, `location` and `link` are short for some.
    Header(HeaderName, Option<String>),
    /// Sends these bytes as the body with the head of the true answer, so the digest does not
    /// match.
    Body(Bytes),
    /// Flips one bit in the middle of the body.
    Corrupt,
    /// Puts these bytes after the body.
    Append(Bytes),
    /// Claims this `Content-Length`.
    ContentLength(u64),
    /// Leaves `Content-Length` out.
    Chunked,
    /// Ends the connection after so many bytes of the body, with the true `Content-Length` in the head.
    CutAfter(u64, Cut),
    /// Sends the body in pieces of so many bytes, each after a pause.
    Slow(usize, Duration),
    /// Sends a body of so many bytes, chunked, that starts like a JSON object and goes on with one endless string.
    Endless(u64),
    /// Sends a gzip stream that unpacks to so many bytes, with `Content-Encoding: gzip`.
    GzipBomb(u64),
}

/// The effect of a fault on a request.
pub(super) enum Effect {
    Answer(Box<Answer>),
    Reset,
    Close,
    Hang,
}

impl Fault {
    /// An error with this status, in the form of the specification.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Reply(Reply::status(status))
    }

    /// A body that ends after `bytes` bytes, although the head promises more.
    #[must_use]
    pub fn truncated(bytes: u64) -> Self {
        Self::CutAfter(bytes, Cut::Close)
    }

    /// Another `Docker-Content-Digest` (`None`: no such header).
    #[must_use]
    pub fn digest_header(value: Option<&str>) -> Self {
        Self::Header(
            HeaderName::from_static("docker-content-digest"),
            value.map(str::to_owned),
        )
    }

    /// Another `OCI-Subject` (`None`: no such header).
    #[must_use]
    pub fn oci_subject(value: Option<&str>) -> Self {
        Self::Header(
            HeaderName::from_static("oci-subject"),
            value.map(str::to_owned),
        )
    }

    /// Another `Location` (`None`: no such header).
    #[must_use]
    pub fn location(value: Option<&str>) -> Self {
        Self::Header(LOCATION, value.map(str::to_owned))
    }

    /// Another `Link`, whole (`None`: no such header).
    #[must_use]
    pub fn link(value: Option<&str>) -> Self {
        Self::Header(http::header::LINK, value.map(str::to_owned))
    }

    /// Returns the replacement of the registry's own answer, if the fault replaces it.
    pub(super) fn instead(&self, request: &Request) -> Option<Effect> {
        let answer = match self {
            Self::Reply(reply) => reply.answer(request),
            Self::Reset => return Some(Effect::Reset),
            Self::Close => return Some(Effect::Close),
            Self::Hang => return Some(Effect::Hang),
            Self::RedirectToHost(status, base) => {
                redirect(*status, &format!("{base}{}", request.target()))
            }
            Self::RedirectTo(status, url) => redirect(*status, url),
            Self::RedirectLoop(status) => {
                redirect(*status, &format!("{}?turn={}", request.path, request.id))
            }
            _ => return None,
        };
        Some(Effect::Answer(Box::new(answer)))
    }

    /// Returns true if [`instead`](Self::instead) returns a replacement.
    pub(super) fn replaces(&self) -> bool {
        matches!(
            self,
            Self::Reply(_)
                | Self::Reset
                | Self::Close
                | Self::Hang
                | Self::RedirectToHost(..)
                | Self::RedirectTo(..)
                | Self::RedirectLoop(_)
        )
    }

    /// Changes an answer, where this fault does.
    pub(super) fn change(&self, answer: &mut Answer) {
        match self {
            Self::Status(status) => {
                answer.status = StatusCode::from_u16(*status).unwrap_or(answer.status);
            }
            Self::Header(name, value) => {
                answer.headers.remove(name);
                if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
                    answer.headers.insert(name, value);
                }
            }
            Self::ContentLength(length) => answer.payload.length = Length::Claimed(*length),
            Self::Chunked => answer.payload.length = Length::Unsaid,
            Self::CutAfter(bytes, how) => answer.payload.cut = Some((*bytes, *how)),
            Self::Slow(bytes, pause) => answer.payload.pace = Some((*bytes, *pause)),
            Self::Endless(total) => {
                let prefix = Bytes::from_static(br#"{"schemaVersion":2,"annotations":{"filler":""#);
                answer.payload.source = Source::Filler {
                    prefix,
                    total: *total,
                };
            }
            Self::GzipBomb(unpacked) => {
                answer.payload.source = Source::Bomb {
                    unpacked: *unpacked,
                }
            }
            Self::Body(bytes) => answer.payload.source = Source::Bytes(bytes.clone()),
            Self::Corrupt | Self::Append(_) => {
                if let Source::Bytes(bytes) = &answer.payload.source {
                    answer.payload.source = Source::Bytes(self.spoil(bytes.to_vec()));
                }
            }
            _ => {}
        }
    }

    fn spoil(&self, mut bytes: Vec<u8>) -> Bytes {
        let middle = bytes.len() / 2;
        match (self, bytes.get_mut(middle)) {
            (Self::Append(more), _) => bytes.extend_from_slice(more),
            (_, Some(byte)) => *byte ^= 1,
            (_, None) => {}
        }
        Bytes::from(bytes)
    }
}

impl From<Reply> for Fault {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

fn redirect(status: u16, to: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
    Answer::new(status).header(LOCATION, to)
}
