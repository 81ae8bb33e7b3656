//! What can go wrong with a registry: one error for the whole room, with the kind by which the engine finds its reason.
//!
//! Messages are stable: the same fault has the same text each time, without request ids, clocks or secrets, so that a
//! status that repeats it does not change. URLs appear without their query.

use std::fmt;
use std::time::Duration;

use crate::oci::Digest;

/// What was asked of a registry: the beginning of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The HTTP method.
    pub method: &'static str,
    /// What kind of thing it was done to.
    pub object: Object,
    /// What it was done to, such as `manifest v1` or `referrers of sha256:…`.
    pub what: String,
    /// The host (and port) that was asked.
    pub host: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {}", self.method, self.what, self.host)
    }
}

/// The kinds of things that a registry is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "each is the thing of that name in the specification"
)]
pub enum Object {
    Manifest,
    Blob,
    Referrers,
    FallbackTag,
    Tags,
    Token,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrers => "referrers",
            Self::FallbackTag => "fallback tag",
            Self::Tags => "tags",
            Self::Token => "token",
        })
    }
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What was asked.
    pub operation: Operation,
    /// The HTTP status.
    pub status: u16,
    /// The codes of the registry's error body, such as `MANIFEST_UNKNOWN`.
    pub codes: Vec<String>,
    /// The registry's own words, cut and cleaned; may be empty.
    pub text: String,
    /// Digests that the registry's error body names as unknown to it.
    pub unknown: Vec<Digest>,
}

impl fmt::Display for Answered {
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

/// Why a request to a registry, or the work of several, did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The host or its address may not be asked.
    #[error("{host} is not allowed: {why}")]
    HostNotAllowed {
        /// Host, with port where one was given.
        host: String,
        /// The rule, and the address where it decided.
        why: String,
    },
    /// Plain HTTP was asked for, or a registry led to it, and it is not allowed.
    #[error("{host} would be asked over plain HTTP, which is not allowed here: {why}")]
    InsecureNotAllowed {
        /// Host, with port where one was given.
        host: String,
        /// Who wanted it, and the way out.
        why: String,
    },
    /// What the pass brought along (a proxy) cannot be used.
    #[error("{what} cannot be used: {why}")]
    InvalidAccess {
        /// Which part.
        what: &'static str,
        /// Why, and the way out; never content.
        why: String,
    },
    /// A certificate or key that the pass brought along cannot be used.
    #[error("{what} cannot be used: {why}")]
    InvalidCertificate {
        /// Which part.
        what: &'static str,
        /// Why, and the way out; never content.
        why: String,
    },
    /// The registry, or the token service that it names, does not take the credential, or wants one.
    #[error("{answer} ({hint})")]
    AuthenticationFailed {
        /// The answer.
        answer: Box<Answered>,
        /// What was shown to it, and the way out.
        hint: String,
    },
    /// The credential is known and may not do this.
    #[error("{0} (this takes a login that may pull from and push to the repository)")]
    AccessDenied(Box<Answered>),
    /// There is no such manifest, blob or repository.
    #[error("{0}")]
    NotFound(Box<Answered>),
    /// Too many requests, and waiting does not fit the deadline.
    #[error("{operation}: the registry asks for fewer requests (HTTP 429)")]
    RateLimited {
        /// What was asked.
        operation: Operation,
        /// How long the registry wants to be left alone, from when the error was made; not part of the message.
        retry_after: Duration,
    },
    /// A server's error that stayed through all tries.
    #[error("{answer}")]
    Unavailable {
        /// The last answer.
        answer: Box<Answered>,
        /// How long the registry wants to be left alone, where it said so.
        retry_after: Option<Duration>,
    },
    /// No answer came, through all tries.
    #[error("{operation}: {why}")]
    Unreachable {
        /// What was asked.
        operation: Operation,
        /// The fault of the network, in one of a few phrases.
        why: &'static str,
    },
    /// The registry's certificate is not trusted, or it does not trust ours.
    #[error("{operation}: {why}")]
    CertificateInvalid {
        /// What was asked.
        operation: Operation,
        /// What is wrong with it.
        why: String,
    },
    /// The registry answered in a way that the protocol does not know.
    #[error("{operation}: {what}")]
    Protocol {
        /// What was asked.
        operation: Operation,
        /// What was wrong with the answer.
        what: String,
    },
    /// Bytes, their digest and their size do not agree.
    #[error("{operation}: {what}")]
    DigestMismatch {
        /// What was asked.
        operation: Operation,
        /// What differs from what.
        what: String,
    },
    /// A document that is no manifest of a kind that affix knows.
    #[error("{operation}: {what}")]
    UnsupportedMediaType {
        /// What was asked.
        operation: Operation,
        /// What it is instead.
        what: String,
    },
    /// The registry sent more than is taken.
    #[error("{operation}: {what} (the limit is {limit})")]
    LimitExceeded {
        /// What was asked.
        operation: Operation,
        /// What there was too much of.
        what: String,
        /// The cap.
        limit: u64,
    },
    /// The tag is there and may not be written again.
    #[error(
        "{answer}: the tag {tag} is immutable: exempt tags that begin with sha256- from immutability"
    )]
    ImmutableTag {
        /// The registry's answer.
        answer: Box<Answered>,
        /// The tag.
        tag: String,
    },
    /// The registry refuses the manifest or the blob itself.
    #[error("{0}")]
    Refused(Box<Answered>),
    /// What stands under the fallback tag is not a list of referrers, so writing it would destroy something.
    #[error("{operation}: {what}")]
    FallbackTagConflict {
        /// What was asked.
        operation: Operation,
        /// What stands there.
        what: String,
    },
    /// Others wrote the fallback tag each time that we did.
    #[error("{operation}: others kept overwriting the entry through {attempts} attempts")]
    FallbackTagContended {
        /// What was asked.
        operation: Operation,
        /// Attempts made.
        attempts: u32,
    },
    /// Manifests that were to be listed are gone from the registry: push them again, then list them.
    #[error("{operation}: the manifest {} is gone from the registry", digests.first().map(ToString::to_string).unwrap_or_default())]
    Dangling {
        /// What was asked.
        operation: Operation,
        /// The manifests.
        digests: Vec<Digest>,
    },
    /// It is a write, and the process may not write now; nobody knows whether it was done if it had been sent.
    #[error("{operation}: {}", crate::http::write_gate::Closed)]
    GateClosed {
        /// What was asked.
        operation: Operation,
    },
    /// The referrers API was asked for by mode, and the registry lacks it.
    #[error("{0}: the registry has no referrers API: set referrersMode to Auto or TagSchema")]
    ReferrersUnsupported(Box<Answered>),
}

/// What kind of fault an error is: one for each reason that the registry room can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "each is the variant of RegistryError, or the reason of the design, of the same name"
)]
pub enum ErrorKind {
    HostNotAllowed,
    InsecureNotAllowed,
    InvalidAccess,
    AuthenticationFailed,
    AccessDenied,
    NotFound,
    RateLimited,
    RegistryUnavailable,
    CertificateInvalid,
    DigestMismatch,
    UnsupportedMediaType,
    LimitExceeded,
    ImmutableTag,
    ManifestRejected,
    FallbackTagConflict,
    ReferrersUnsupported,
    GateClosed,
}

impl RegistryError {
    /// The kind, one to one with a reason.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::HostNotAllowed { .. } => ErrorKind::HostNotAllowed,
            Self::InsecureNotAllowed { .. } => ErrorKind::InsecureNotAllowed,
            Self::InvalidAccess { .. } => ErrorKind::InvalidAccess,
            Self::AuthenticationFailed { .. } => ErrorKind::AuthenticationFailed,
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

    /// Whether the same work may succeed soon without anybody's doing.
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

    /// How long the registry wants to be left alone, where it said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The answer that the error stands for, where there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answered> {
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

    /// The HTTP status, where an answer was the cause.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::RateLimited { .. } => Some(429),
            other => other.answer().map(|answer| answer.status),
        }
    }
}
