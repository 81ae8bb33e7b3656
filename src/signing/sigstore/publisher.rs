//! Has signatures logged and timestamped.

use std::sync::Arc;

use affix_registry::{LoginAnswer, Registries, Service, ServiceAccess};
use futures::future::try_join;
use http::header::{ACCEPT, CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use sigstore_verify::types::TransparencyLogEntry;
use tokio::time::{Instant, timeout_at};

use super::evidence::Evidence;
use super::instance::{InstanceError, Selection, SigstoreInstance};
use super::requests::{self, LoggedKey};
use crate::signing::timestamps::{Hash, request as timestamp_request};
use crate::signing::{KeyError, SigningError};

/// The path of new entries, below the URL of a log.
const ENTRIES: &str = "/api/v2/log/entries";

/// Sends signatures to the services of one instance, for one pass.
pub struct Publisher {
    registries: Registries,
    tenant: String,
    instance: Arc<SigstoreInstance>,
    now: Timestamp,
    deadline: Instant,
}

/// The reason for which a signature is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::signing) enum PublishError {
    /// The log has this signature already, and does not prove that again.
    AlreadyLogged,
    /// A service failed.
    Failed(SigningError),
}

impl<E: Into<SigningError>> From<E> for PublishError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Publisher {
    /// Returns a publisher that uses the services which are valid at `now`. No wait for a service goes beyond `deadline`.
    #[must_use]
    pub const fn new(
        registries: Registries,
        tenant: String,
        instance: Arc<SigstoreInstance>,
        now: Timestamp,
        deadline: Instant,
    ) -> Self {
        Self {
            registries,
            tenant,
            instance,
            now,
            deadline,
        }
    }

    pub(in crate::signing) fn instance(&self) -> &SigstoreInstance {
        &self.instance
    }

    /// Opens the certificate authority, and returns the path of its URL.
    pub(super) fn certificate_authority(&self) -> Result<(Service, &str), SigningError> {
        let url = self.instance.certificate_authority(self.now);
        self.open(url.map_err(|error| unusable(&error))?)
    }

    /// Has a signature over `message` logged and timestamped at the same time.
    pub(in crate::signing) async fn publish(
        &self,
        message: &[u8],
        signature: &[u8],
        key: &LoggedKey,
    ) -> Result<Evidence, PublishError> {
        let logs = self
            .instance
            .logs(self.now)
            .map_err(|error| unusable(&error))?;
        let authorities = self
            .instance
            .timestamp_authorities(self.now)
            .map_err(|error| unusable(&error))?;
        let entry = requests::log_entry(message, signature, key);
        let timestamp = timestamp_request(Hash::Sha256, signature, false);
        let entries = self.ask(&logs, |url| self.log(url, &entry));
        let timestamps = self.ask(&authorities, |url| self.timestamp(url, &timestamp));
        let (entries, timestamps) = try_join(entries, timestamps).await?;
        Ok(Evidence::new(entries, timestamps))
    }

    /// Asks services in their order until enough have answered.
    async fn ask<'u, T, F: Future<Output = Result<T, PublishError>>>(
        &self,
        services: &Selection<'u>,
        request: impl Fn(&'u str) -> F,
    ) -> Result<Vec<T>, PublishError> {
        let mut answers = Vec::new();
        let mut failure = None;
        for (nth, url) in services.urls.iter().enumerate() {
            if answers.len() == services.needed {
                break;
            }
            let asked = timeout_at(self.deadline, request(url)).await;
            match asked.unwrap_or_else(|_| Err(late(url).into())) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    let left = services.urls.len() - nth - 1;
                    if answers.len() + left < services.needed {
                        return Err(failure.unwrap_or(error));
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        Ok(answers)
    }

    async fn log(&self, url: &str, entry: &[u8]) -> Result<TransparencyLogEntry, PublishError> {
        let (service, path) = self.open(url)?;
        let headers = [
            (CONTENT_TYPE, "application/json"),
            (ACCEPT, "application/json"),
        ];
        let answer = service
            .post(&format!("{path}{ENTRIES}"), &headers, entry.to_vec())
            .await?;
        if answer.status == 409 {
            return Err(PublishError::AlreadyLogged);
        }
        success(&service, &answer, "does not log the signature")?;
        serde_json::from_slice(answer.body()).map_err(|_| {
            let message = format!(
                "{} answers with something that is no log entry",
                answer.host
            );
            SigningError::Unavailable(message).into()
        })
    }

    async fn timestamp(&self, url: &str, request: &[u8]) -> Result<Vec<u8>, PublishError> {
        let (service, path) = self.open(url)?;
        let headers = [(CONTENT_TYPE, "application/timestamp-query")];
        let answer = service.post(path, &headers, request.to_vec()).await?;
        success(&service, &answer, "does not timestamp the signature")?;
        Ok(answer.body().to_vec())
    }

    /// Opens the service at a URL, and returns the path of the URL without a slash at its end.
    fn open<'a>(&self, url: &'a str) -> Result<(Service, &'a str), SigningError> {
        let access = ServiceAccess {
            tenant: self.tenant.clone(),
            ..ServiceAccess::default()
        };
        let (service, path) = self.registries.open_service_at(url, access)?;
        Ok((service.until(self.deadline), path.trim_end_matches('/')))
    }
}

fn unusable(error: &InstanceError) -> SigningError {
    KeyError::Instance(error.to_string()).into()
}

fn late(url: &str) -> SigningError {
    SigningError::Unavailable(format!("{url} did not answer within the time of the pass"))
}

/// Returns the error for an answer that is no success.
fn success(service: &Service, answer: &LoginAnswer, action: &str) -> Result<(), SigningError> {
    if answer.is_success() {
        return Ok(());
    }
    Err(SigningError::Unavailable(refused(service, answer, action)))
}

/// Returns the message for an answer that is no success. `action` is what the service did not do.
pub(super) fn refused(service: &Service, answer: &LoginAnswer, action: &str) -> String {
    let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let text = body.get("message").and_then(|message| message.as_str());
    let text = service.clean(text.unwrap_or_default());
    let colon = if text.is_empty() { "" } else { ": " };
    format!(
        "{} {action}: HTTP {}{colon}{text}",
        answer.host, answer.status
    )
}
