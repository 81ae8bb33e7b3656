//! Errors of a key that a service holds.

use affix_registry::{ErrorKind, LoginAnswer, RegistryError, Service};

use crate::identity::TokenError;
use crate::signing::KeyError;

/// The reason for which a service does not sign. Messages are stable and have no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key cannot be used. The user has to change it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The service refuses the ServiceAccount.
    #[error("{0}")]
    IdentityRefused(String),
    /// The service failed, did not answer in time, or gave a wrong answer.
    #[error("{0}")]
    Unavailable(String),
    /// A signature is not logged or timestamped.
    #[error("{0}")]
    NotPublished(Box<SigningError>),
    /// The way to the service is not allowed or not trusted.
    #[error("{0}")]
    Unreachable(RegistryError),
}

impl From<TokenError> for SigningError {
    fn from(error: TokenError) -> Self {
        Self::IdentityRefused(error.0)
    }
}

impl From<RegistryError> for SigningError {
    fn from(error: RegistryError) -> Self {
        match (error.kind(), &error) {
            (
                ErrorKind::HostNotAllowed
                | ErrorKind::InsecureNotAllowed
                | ErrorKind::CertificateInvalid
                | ErrorKind::InvalidAccess
                | ErrorKind::GateClosed,
                _,
            ) => Self::Unreachable(error),
            (ErrorKind::LoginRefused, _) => Self::IdentityRefused(error.to_string()),
            (_, RegistryError::RateLimited { operation, .. }) => Self::Unavailable(format!(
                "{operation}: the service limits the request rate (HTTP 429)"
            )),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl SigningError {
    /// Returns the error for an answer that is no success. `action` is what the service did not do, and `text` its untrusted message.
    pub(super) fn refused(
        service: &Service,
        answer: &LoginAnswer,
        action: &str,
        text: &str,
    ) -> Self {
        let text = service.clean(text);
        let colon = if text.is_empty() { "" } else { ": " };
        let message = format!(
            "{} {action}: HTTP {}{colon}{text}",
            answer.host, answer.status
        );
        match answer.status {
            401 | 403 => Self::IdentityRefused(message),
            _ => Self::Unavailable(message),
        }
    }
}
