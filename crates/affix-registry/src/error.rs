//! The error type of the crate and its classification.
//!
//! Messages are stable. The same failure has the same text each time, without request ids, times or
//! secrets, so a status that repeats a message does not change. URLs appear without their query.

use std::fmt;
use std::time::Duration;

use crate::oci::{Digest, Repository};

/// The request that an error is about. Its `Display` form begins every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The HTTP method.
    pub method: &'static str,
    /// The kind of object that the request concerns.
    pub object: Object,
    /// The object, for example `manifest v1` or `referrers of sha256:…`.
    pub what: String,
    /// The host that received the request, with its port if it has one.
    pub host: String,
    /// The repository. `None` for a request to another service.
    pub repository: Option<Repository>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.method, self.what, self.host)?;
        match &self.repository {
            Some(repository) => write!(f, "/{repository}"),
            None => Ok(()),
        }
    }
}

/// The kinds of objects in a registry's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object {
    /// A manifest or an index.
    Manifest,
    /// A blob.
    Blob,
    /// A listing of the referrers API.
    Referrers,
    /// The tag that lists referrers on registries without the referrers API.
    FallbackTag,
    /// The tag that holds signatures of cosign.
    SignatureTag,
    /// A listing of tags.
    Tags,
    /// A token of the registry's token service.
    Token,
    /// A request to a service beside the registry. See [`Service`](crate::Service).
    Service,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::FallbackTag => "fallback tag",
            Self::SignatureTag => "signature tag",
            Self::Tags => "tags",
            Self::Token => "token",
            Self::Service => "service",
        })
    }
}

/// An HTTP answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// The request.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The codes in the registry's error body, for example `MANIFEST_UNKNOWN` (distribution-spec,
    /// "Error Codes"). At most 8.
    pub codes: Vec<String>,
    /// The registry's message: one line of at most 200 characters without control characters. It
    /// may be empty.
    pub text: String,
    /// Digests that the registry's error body reports as unknown. At most 1000.
    pub unknown: Vec<Digest>,
}

impl fmt::Display for ErrorAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: HTTP {}", self.operation, self.status)?;
        if let Some(code) = self.codes.first() {
            write!(f, " {code}")?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

/// The reason for which a request, or an operation of several requests, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The policy does not allow requests to the host or to its address.
    #[error("{host} is not allowed: {why}")]
    HostNotAllowed {
        /// The host, with its port if it has one.
        host: String,
        /// The rule, and the address if the rule concerns one.
        why: String,
    },
    /// The request would use plain HTTP, and plain HTTP is not allowed.
    #[error("plain HTTP to {host} is not allowed: {why}")]
    InsecureNotAllowed {
        /// The host, with its port if it has one.
        host: String,
        /// The origin of the plain HTTP request, and the way out.
        why: String,
    },
    /// A part of [`Access`](crate::Access), for example the proxy, is invalid.
    #[error("{what} cannot be used: {why}")]
    InvalidAccess {
        /// The invalid part.
        what: &'static str,
        /// The cause and the way out, without any content of the part.
        why: String,
    },
    /// A certificate or a key of [`Access`](crate::Access) is invalid.
    #[error("{what} cannot be used: {why}")]
    InvalidCertificate {
        /// The invalid part.
        what: &'static str,
        /// The cause and the way out, without any content of the part.
        why: String,
    },
    /// The registry or its token service rejected the credential, or requires one.
    #[error("{answer} ({hint})")]
    AuthenticationFailed {
        /// The answer.
        answer: Box<ErrorAnswer>,
        /// The credential that was sent, and the way out.
        hint: String,
    },
    /// The service that issues the login refuses to. See [`LoginSource`](crate::LoginSource).
    #[error("{why}")]
    LoginRefused {
        /// The service with its answer, and the way out.
        why: String,
    },
    /// The registry accepted the credential and denies this operation.
    #[error("{0} (use a login that may pull from and push to the repository)")]
    AccessDenied(Box<ErrorAnswer>),
    /// The manifest, blob or repository does not exist.
    #[error("{0}")]
    NotFound(Box<ErrorAnswer>),
    /// The registry limits the request rate, and the requested wait exceeds the deadline.
    #[error("{operation}: the registry limits the request rate (HTTP 429)")]
    RateLimited {
        /// The request.
        operation: Operation,
        /// The wait that the registry asked for, counted from the creation of the error. It is not
        /// part of the message.
        retry_after: Duration,
    },
    /// All tries ended with a server error (HTTP 5xx).
    #[error("{answer}")]
    Unavailable {
        /// The last answer.
        answer: Box<ErrorAnswer>,
        /// The wait that the registry asked for, if it sent `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// All tries ended without an answer.
    #[error("{operation}: {why}")]
    Unreachable {
        /// The request.
        operation: Operation,
        /// The network failure, from a fixed set of phrases.
        why: &'static str,
    },
    /// TLS failed: the registry's certificate is not trusted, or the registry rejected the client
    /// certificate.
    #[error("{operation}: {why}")]
    CertificateInvalid {
        /// The request.
        operation: Operation,
        /// The cause.
        why: String,
    },
    /// The answer violates the protocol.
    #[error("{operation}: {what}")]
    Protocol {
        /// The request.
        operation: Operation,
        /// The violation.
        what: String,
    },
    /// The bytes, the digest and the size of an object do not agree.
    #[error("{operation}: {what}")]
    DigestMismatch {
        /// The request.
        operation: Operation,
        /// The difference.
        what: String,
    },
    /// The document is not a manifest of a supported kind.
    #[error("{operation}: {what}")]
    UnsupportedMediaType {
        /// The request.
        operation: Operation,
        /// The media type or the defect that was found.
        what: String,
    },
    /// An answer, or a sum of answers, exceeds one of [`Limits`](crate::Limits).
    #[error("{operation}: {what} (the limit is {limit})")]
    LimitExceeded {
        /// The request.
        operation: Operation,
        /// The quantity that exceeds the limit.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The tag exists and the registry does not allow overwriting it.
    #[error(
        "{answer}: the tag {tag} is immutable: exempt tags that begin with sha256- from immutability"
    )]
    ImmutableTag {
        /// The answer.
        answer: Box<ErrorAnswer>,
        /// The tag.
        tag: String,
    },
    /// The registry rejected the manifest or the blob.
    #[error("{0}")]
    Refused(Box<ErrorAnswer>),
    /// The fallback tag does not hold a list of referrers, or the signature tag no signatures. Writing
    /// it would destroy other content.
    #[error("{operation}: {what}")]
    FallbackTagConflict {
        /// The request.
        operation: Operation,
        /// The content that was found.
        what: String,
    },
    /// Other clients overwrote the tag after each write.
    #[error("{operation}: other writers overwrote the entry after each of {attempts} attempts")]
    FallbackTagContended {
        /// The request.
        operation: Operation,
        /// The number of writes.
        attempts: u32,
    },
    /// Manifests that were to be listed, or the texts of signatures, no longer exist. Push them again
    /// before listing them.
    #[error("{operation}: the content {} no longer exists in the registry", digests.first().map(ToString::to_string).unwrap_or_default())]
    Dangling {
        /// The request.
        operation: Operation,
        /// The missing manifests.
        digests: Vec<Digest>,
    },
    /// The [`WriteGate`](crate::WriteGate) is closed. A write that was in flight may have
    /// succeeded.
    #[error("{operation}: {}", crate::http::write_gate::Closed)]
    GateClosed {
        /// The request.
        operation: Operation,
    },
    /// [`ReferrersMode::Api`](crate::ReferrersMode::Api) is set and the registry has no referrers
    /// API.
    #[error("{0}: the registry has no referrers API: set referrersMode to Auto or TagSchema")]
    ReferrersUnsupported(Box<ErrorAnswer>),
}

/// The classes of errors. Each corresponds to one condition reason of affix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The host or its address is not allowed.
    HostNotAllowed,
    /// Plain HTTP is not allowed.
    InsecureNotAllowed,
    /// A part of [`Access`](crate::Access) other than a certificate is invalid.
    InvalidAccess,
    /// The credential was rejected or is missing.
    AuthenticationFailed,
    /// The service that issues the login refuses to.
    LoginRefused,
    /// The credential lacks a right.
    AccessDenied,
    /// A manifest, a blob or the repository does not exist.
    NotFound,
    /// The registry limits the request rate.
    RateLimited,
    /// The registry does not answer, answers with an error, or violates the protocol.
    RegistryUnavailable,
    /// A certificate or key is invalid or not trusted.
    CertificateInvalid,
    /// Bytes, digest and size do not agree.
    DigestMismatch,
    /// The document is not a supported manifest.
    UnsupportedMediaType,
    /// One of [`Limits`](crate::Limits) is exceeded.
    LimitExceeded,
    /// The tag cannot be overwritten.
    ImmutableTag,
    /// The registry rejected the content.
    ManifestRejected,
    /// The fallback tag holds other content.
    FallbackTagConflict,
    /// The registry has no referrers API, which the mode requires.
    ReferrersUnsupported,
    /// The process may not write.
    GateClosed,
}

impl RegistryError {
    /// Returns the class of the error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::HostNotAllowed { .. } => ErrorKind::HostNotAllowed,
            Self::InsecureNotAllowed { .. } => ErrorKind::InsecureNotAllowed,
            Self::InvalidAccess { .. } => ErrorKind::InvalidAccess,
            Self::AuthenticationFailed { .. } => ErrorKind::AuthenticationFailed,
            Self::LoginRefused { .. } => ErrorKind::LoginRefused,
            Self::AccessDenied(_) => ErrorKind::AccessDenied,
            Self::NotFound(_) | Self::Dangling { .. } => ErrorKind::NotFound,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Unavailable { .. }
            | Self::Unreachable { .. }
            | Self::Protocol { .. }
            | Self::FallbackTagContended { .. } => ErrorKind::RegistryUnavailable,
            Self::CertificateInvalid { .. } | Self::InvalidCertificate { .. } => {
                ErrorKind::CertificateInvalid
            }
            Self::DigestMismatch { .. } => ErrorKind::DigestMismatch,
            Self::UnsupportedMediaType { .. } => ErrorKind::UnsupportedMediaType,
            Self::LimitExceeded { .. } => ErrorKind::LimitExceeded,
            Self::ImmutableTag { .. } => ErrorKind::ImmutableTag,
            Self::Refused(_) => ErrorKind::ManifestRejected,
            Self::FallbackTagConflict { .. } => ErrorKind::FallbackTagConflict,
            Self::ReferrersUnsupported(_) => ErrorKind::ReferrersUnsupported,
            Self::GateClosed { .. } => ErrorKind::GateClosed,
        }
    }

    /// Returns true if a repetition of the operation may succeed soon without a change of
    /// configuration.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Unavailable { .. }
                | Self::Unreachable { .. }
                | Self::FallbackTagContended { .. }
                | Self::Dangling { .. }
        )
    }

    /// Returns the wait that the registry asked for, if it asked for one.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the HTTP answer that caused the error, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&ErrorAnswer> {
        match self {
            Self::AuthenticationFailed { answer, .. }
            | Self::Unavailable { answer, .. }
            | Self::ImmutableTag { answer, .. } => Some(answer),
            Self::AccessDenied(answer)
            | Self::NotFound(answer)
            | Self::Refused(answer)
            | Self::ReferrersUnsupported(answer) => Some(answer),
            _ => None,
        }
    }

    /// Returns the HTTP status of the answer that caused the error, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::RateLimited { .. } => Some(429),
            other => other.answer().map(|answer| answer.status),
        }
    }
}
