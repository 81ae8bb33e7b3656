//! The cause of a failed look-up, in the length of a warning and in full for the log.

use std::sync::Arc;

use affix_registry::{ErrorKind, RegistryError};

/// The cause of a failed look-up. It names no tag, because other images of the repository share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookupFailure {
    /// The cause in a few words.
    pub(crate) cause: Arc<str>,
    /// The way out in a few words.
    pub(crate) way_out: &'static str,
    /// The cause in full, for the log.
    pub(crate) detail: Arc<str>,
    /// Another login may have an answer.
    pub(crate) is_refusal: bool,
}

impl LookupFailure {
    /// Returns a failure of affix itself or of the request.
    pub(crate) fn new(cause: impl Into<Arc<str>>, way_out: &'static str) -> Self {
        let cause = cause.into();
        Self {
            detail: Arc::clone(&cause),
            cause,
            way_out,
            is_refusal: false,
        }
    }

    /// Returns the failure for an error of the registry client. `has_login`: a login was sent.
    pub(crate) fn of(error: &RegistryError, has_login: bool) -> Self {
        let kind = error.kind();
        let status = match error {
            RegistryError::AuthenticationFailed { answer, .. }
            | RegistryError::Unavailable { answer, .. }
            | RegistryError::AccessDenied(answer)
            | RegistryError::NotFound(answer)
            | RegistryError::Refused(answer) => Some(answer.status),
            RegistryError::RateLimited { .. } => Some(429),
            _ => None,
        };
        let (cause, way_out): (Arc<str>, _) = match (error, kind) {
            (RegistryError::Unreachable { why, .. }, _) => ((*why).into(), "check the registry"),
            (_, ErrorKind::AuthenticationFailed | ErrorKind::AccessDenied) => {
                let cause = status.map_or("login refused".into(), |status| {
                    format!("HTTP {status}").into()
                });
                let way_out = if has_login {
                    "fix the pull secret"
                } else {
                    "add a pull secret"
                };
                (cause, way_out)
            }
            (_, ErrorKind::LoginRefused) => ("login refused".into(), "see the webhook's log"),
            (_, ErrorKind::NotFound) => ("not found".into(), "check the name"),
            (_, ErrorKind::HostNotAllowed) => ("host not allowed".into(), "see the webhook's log"),
            (_, ErrorKind::InsecureNotAllowed) => {
                ("plain HTTP".into(), "add it to --insecure-registries")
            }
            (_, ErrorKind::CertificateInvalid) => ("certificate not trusted".into(), "add its CA"),
            (_, ErrorKind::InvalidAccess) => ("malformed login".into(), "fix the pull secret"),
            (_, ErrorKind::LimitExceeded) => ("answer too large".into(), "see the webhook's log"),
            _ => match status {
                Some(status) => (format!("HTTP {status}").into(), "try again later"),
                None => ("invalid answer".into(), "see the webhook's log"),
            },
        };
        Self {
            cause,
            way_out,
            detail: error.to_string().into(),
            is_refusal: matches!(
                kind,
                ErrorKind::AuthenticationFailed
                    | ErrorKind::LoginRefused
                    | ErrorKind::AccessDenied
                    | ErrorKind::NotFound
                    | ErrorKind::InvalidAccess
            ),
        }
    }

    /// Returns cause and way out.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.cause, self.way_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use affix_registry::{ErrorAnswer, Object, Operation};

    #[test]
    fn a_failure_has_a_short_cause_without_the_tag_and_a_way_out() {
        let operation = Operation {
            method: "HEAD",
            object: Object::Manifest,
            what: "manifest v1".to_owned(),
            host: "registry.example.com".to_owned(),
            repository: None,
        };
        let answer = |status| {
            Box::new(ErrorAnswer {
                operation: operation.clone(),
                status,
                codes: Vec::new(),
                text: "x".repeat(200),
                unknown: Vec::new(),
            })
        };
        let refused = RegistryError::AccessDenied(answer(403));
        for (error, has_login, text) in [
            (refused.clone(), false, "HTTP 403: add a pull secret"),
            (refused, true, "HTTP 403: fix the pull secret"),
            (
                RegistryError::NotFound(answer(404)),
                false,
                "not found: check the name",
            ),
            (
                RegistryError::Unavailable {
                    answer: answer(503),
                    retry_after: None,
                },
                false,
                "HTTP 503: try again later",
            ),
            (
                RegistryError::Unreachable {
                    operation,
                    why: "connection refused",
                },
                false,
                "connection refused: check the registry",
            ),
        ] {
            let failure = LookupFailure::of(&error, has_login);
            assert_eq!(failure.text(), text);
            assert!(failure.detail.contains("manifest v1"), "{failure:?}");
        }
    }
}
