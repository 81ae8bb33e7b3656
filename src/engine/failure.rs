//! A failure of a pass: the problem that users read, and the delay that the registry asked for.

use std::time::Duration;

use crate::api::Reason;
use crate::attachment::Problem;
use affix_registry::{ErrorKind, RegistryError};

/// A problem, and the delay until a retry where the registry gave one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The problem for conditions, events and metrics.
    pub problem: Problem,
    /// The delay that the registry asked for.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Returns a failure with a reason and a message.
    #[must_use]
    pub fn new(reason: Reason, message: impl std::fmt::Display) -> Self {
        Problem::new(reason, message).into()
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

/// Returns the reason for a kind of registry error.
pub(in crate::engine) const fn reason(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::DigestMismatch => Reason::DigestMismatch,
        ErrorKind::UnsupportedMediaType => Reason::UnsupportedMediaType,
        ErrorKind::AuthenticationFailed => Reason::AuthenticationFailed,
        ErrorKind::LoginRefused => Reason::IdentityRefused,
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
        // The contents of a Secret are unusable. The message names the part, and a corrected Secret resolves it.
        ErrorKind::InvalidAccess => Reason::SecretNotFound,
        ErrorKind::ReferrersUnsupported => Reason::InvalidSpec,
        // Another process holds the lease and continues the work. This process cannot write status either.
        ErrorKind::GateClosed => Reason::Progressing,
    }
}
