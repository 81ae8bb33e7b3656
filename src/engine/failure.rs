//! What went wrong in a pass: a problem for the user to read, and what the back-off needs to know.

use std::time::Duration;

use crate::api::Reason;
use crate::attachment::Problem;
use affix_registry::{ErrorKind, RegistryError};

/// A problem, and whether time alone can mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For conditions, events and metrics.
    pub problem: Problem,
    /// How long the registry asked to wait, where it did.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of `reason` with a message.
    #[must_use]
    pub fn new(reason: Reason, message: impl std::fmt::Display) -> Self {
        Self {
            problem: Problem::new(reason, message),
            retry_after: None,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            retry_after: None,
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self {
            problem: Problem::new(reason(error.kind()), &error),
            retry_after: error.retry_after(),
        }
    }
}

/// The reason of each kind of registry error.
const fn reason(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::DigestMismatch => Reason::DigestMismatch,
        ErrorKind::UnsupportedMediaType => Reason::UnsupportedMediaType,
        ErrorKind::AuthenticationFailed => Reason::AuthenticationFailed,
        ErrorKind::AccessDenied => Reason::AccessDenied,
        ErrorKind::NotFound => Reason::NotFound,
        ErrorKind::RateLimited => Reason::RateLimited,
        ErrorKind::RegistryUnavailable => Reason::RegistryUnavailable,
        ErrorKind::CertificateInvalid => Reason::CertificateInvalid,
        ErrorKind::InsecureNotAllowed => Reason::InsecureNotAllowed,
        ErrorKind::HostNotAllowed => Reason::HostNotAllowed,
        ErrorKind::LimitExceeded => Reason::LimitExceeded,
        ErrorKind::ImmutableTag => Reason::ImmutableTag,
        ErrorKind::ManifestRejected => Reason::ManifestRejected,
        ErrorKind::FallbackTagConflict => Reason::FallbackTagConflict,
        // What a Secret holds cannot be used: the message says which part, and a corrected Secret mends it.
        ErrorKind::InvalidAccess => Reason::SecretNotFound,
        ErrorKind::ReferrersUnsupported => Reason::InvalidSpec,
        // Whoever may write now does the work; this process cannot even say so in status.
        ErrorKind::GateClosed => Reason::Progressing,
    }
}
