//! An answer before it is sent: status, headers, body, and the transmission of the body. Faults
//! change it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::fault::Cut;
use super::reply::error_body;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
}

/// A body and the way it is sent.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) source: Source,
    pub(super) length: Length,
    /// So many bytes, each time after this pause.
    pub(super) pace: Option<(usize, Duration)>,
    /// The end of the body after a number of bytes.
    pub(super) cut: Option<(u64, Cut)>,
}

/// The source of the bytes.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Bytes(Bytes),
    /// `prefix`, then the letter `a` until there are `total` bytes.
    Filler {
        prefix: Bytes,
        total: u64,
    },
    /// A gzip stream that unpacks to this many bytes.
    Bomb {
        unpacked: u64,
    },
}

/// The length of the body according to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Exact,
    Claimed(u64),
    Unsaid,
}

impl Answer {
    pub(super) fn new(status: StatusCode) -> Self {
        let payload = Payload {
            source: Source::Bytes(Bytes::new()),
            length: Length::Exact,
            pace: None,
            cut: None,
        };
        Self {
            status,
            headers: HeaderMap::new(),
            payload,
        }
    }

    /// An error in the form of the specification.
    pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::error_with(status, code, message, &Value::Null)
    }

    /// An error in the form of the specification, with a detail.
    pub(super) fn error_with(
        status: StatusCode,
        code: &str,
        message: &str,
        detail: &Value,
    ) -> Self {
        Self::new(status)
            .header(CONTENT_TYPE, "application/json")
            .bytes(error_body(code, message, detail))
    }

    pub(super) fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.payload.source = Source::Bytes(bytes.into());
        self
    }

    /// Sets a header. A value that HTTP cannot carry is left out.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Sets a header by a name in lower case.
    pub(super) fn named(self, name: &'static str, value: &str) -> Self {
        self.header(HeaderName::from_static(name), value)
    }

    /// Puts `Content-Length` and `Content-Encoding` in order with the payload.
    pub(super) fn seal(mut self) -> Self {
        let length = match (self.payload.length, &self.payload.source) {
            (Length::Claimed(length), _) => Some(length),
            (Length::Exact, Source::Bytes(bytes)) => Some(bytes.len() as u64),
            _ => None,
        };
        self.headers.remove(CONTENT_LENGTH);
        let bodiless = matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        if let (Some(length), false) = (length, bodiless) {
            self.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if matches!(self.payload.source, Source::Bomb { .. }) {
            self.headers
                .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self
    }
}
