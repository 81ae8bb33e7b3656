//! Errors of requests to the API server, with messages for users.

use std::time::Duration;

use kube::core::Status;

use super::kubeconfig::with_sources;

/// The field manager of every write to the API server, and the reporting controller of events.
pub(crate) const FIELD_MANAGER: &str = "affix";
/// The time-out of one request. The client has none for reads.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A failed request to the API server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiServerError {
    /// The API server answered with an error.
    #[error("the API server answered {}: {}", .0.code, .0.message)]
    Refused(Box<Status>),
    /// The request was not sent, or its answer was not understood.
    #[error("request to the API server failed: {}", with_sources(.0))]
    Request(kube::Error),
    /// The resource was deleted, or replaced by another one of the same name.
    #[error("the resource is gone")]
    ResourceGone,
    /// Every attempt to write met a concurrent write.
    #[error("concurrent writes to the resource: every attempt to write it was rejected")]
    Conflict,
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl ApiServerError {
    /// Returns the HTTP status of the answer.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(answer) => Some(answer.code),
            _ => None,
        }
    }
}

impl From<kube::Error> for ApiServerError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(answer) => Self::Refused(answer),
            error => Self::Request(error),
        }
    }
}

/// Runs a request with the time-out.
pub(crate) async fn with_timeout<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiServerError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ApiServerError::TimedOut(REQUEST_TIMEOUT)),
    }
}
