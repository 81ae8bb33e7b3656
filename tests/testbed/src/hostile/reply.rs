//! Answers that a test writes by hand: statuses, `Retry-After`, and bodies from the form of the specification to the absurd.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::answer::Answer;
use super::record::Request;

/// One answer, given in place of the registry's own.
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: ReplyBody,
}

#[derive(Clone, Debug)]
enum ReplyBody {
    Errors {
        code: String,
        message: String,
        detail: Value,
    },
    Bytes {
        media_type: String,
        bytes: Bytes,
    },
    Huge {
        bytes: usize,
    },
    Echo,
}

/// The wait that an answer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// An HTTP date, this long from the time of the answer.
    DateIn(Duration),
    /// An HTTP date that has passed.
    DatePast,
    /// Any text.
    Raw(String),
}

impl Reply {
    /// `status` with an error body as the specification has it, with the code that goes with that status.
    pub fn status(status: u16) -> Self {
        let code = match status {
            400 => "UNSUPPORTED",
            401 => "UNAUTHORIZED",
            403 => "DENIED",
            404 => "NAME_UNKNOWN",
            405 => "UNSUPPORTED",
            429 => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        Self::error(status, code, "as the test asked")
    }

    /// `status` with an error body of this code and message.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = ReplyBody::Errors {
            code: code.to_owned(),
            message: message.to_owned(),
            detail: Value::Null,
        };
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// `status` with a body of this media type.
    pub fn body(status: u16, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let body = ReplyBody::Bytes {
            media_type: media_type.to_owned(),
            bytes: bytes.into(),
        };
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// `status` with no body at all.
    pub fn empty(status: u16) -> Self {
        Self::body(status, "", Bytes::new())
    }

    /// `status` with a page of a proxy or a web site.
    pub fn html(status: u16) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>nginx</body></html>\n"
        );
        Self::body(status, "text/html; charset=utf-8", page)
    }

    /// `status` with an error body of about `bytes` bytes in one message.
    pub fn huge(status: u16, bytes: usize) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: ReplyBody::Huge { bytes },
        }
    }

    /// `status` with an error body that repeats the request's secrets (`Authorization`, query, body) among control characters, terminal
    /// escapes, line breaks and text that runs from right to left.
    pub fn echo(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: ReplyBody::Echo,
        }
    }

    /// The error's `detail`, where the body has the form of the specification.
    pub fn detail(mut self, value: impl Into<Value>) -> Self {
        if let ReplyBody::Errors { detail, .. } = &mut self.body {
            *detail = value.into();
        }
        self
    }

    /// With this header too. A name or value that HTTP cannot carry is left out.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With `Retry-After`.
    pub fn retry_after(self, after: RetryAfter) -> Self {
        let value = match after {
            RetryAfter::Seconds(seconds) => seconds.to_string(),
            RetryAfter::DateIn(span) => {
                // Dates have whole seconds: rounded up, so that waiting until then is waiting long enough.
                let date = SystemTime::now().checked_add(span + Duration::from_millis(999));
                date.map(httpdate::fmt_http_date).unwrap_or_default()
            }
            RetryAfter::DatePast => "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
            RetryAfter::Raw(text) => text,
        };
        self.header(RETRY_AFTER.as_str(), value)
    }

    /// The answer to `request`.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (media_type, bytes) = self.render(request);
        let mut answer = Answer::new(status).bytes(bytes);
        if !media_type.is_empty() {
            answer = answer.header(CONTENT_TYPE, &media_type);
        }
        for (name, value) in &self.headers {
            append(&mut answer.headers, name, value);
        }
        answer
    }

    fn render(&self, request: &Request) -> (String, Bytes) {
        let json = "application/json".to_owned();
        match &self.body {
            ReplyBody::Errors {
                code,
                message,
                detail,
            } => (json, error_body(code, message, detail)),
            ReplyBody::Bytes { media_type, bytes } => (media_type.clone(), bytes.clone()),
            ReplyBody::Huge { bytes } => (
                json,
                error_body("UNKNOWN", &"x".repeat(*bytes), &Value::Null),
            ),
            ReplyBody::Echo => {
                let secret = request
                    .header("authorization")
                    .unwrap_or("no authorization");
                let body = String::from_utf8_lossy(&request.body);
                let message = format!(
                    "\u{1b}[31mdenied\u{1b}[0m\r\nAuthorization: {secret}\n\tquery: {}\0\u{202e}{body}\u{7}\u{2028}",
                    request.query
                );
                (
                    json,
                    error_body(
                        &format!("DENIED\n{secret}"),
                        &message,
                        &json!({"authorization": secret}),
                    ),
                )
            }
        }
    }
}

/// An error body in the form of the specification ("Error Codes").
pub(super) fn error_body(code: &str, message: &str, detail: &Value) -> Bytes {
    let mut error = json!({"code": code, "message": message});
    if let (Some(fields), false) = (error.as_object_mut(), detail.is_null()) {
        fields.insert("detail".to_owned(), detail.clone());
    }
    Bytes::from(json!({"errors": [error]}).to_string())
}

/// Adds a header, where HTTP can carry it.
pub(super) fn append(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (
        HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_str(value),
    ) {
        headers.append(name, value);
    }
}
