//! The look-up of the marks of an image, with one login after the other.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::engine::{LifecycleReport, LifecycleRules, read_lifecycle};
use affix_registry::oci::Reference;
use affix_registry::{
    Access, ErrorKind, HostPattern, Keychain, Priority, Registries, RegistryError,
};

/// The time limit of the look-up of one image.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The marks of an image, or the cause for which they are unknown.
pub(crate) type Answer = Result<Arc<LifecycleReport>, Arc<str>>;

/// Looks up the marks of images.
pub(crate) struct LookUps {
    /// The registry client.
    pub(crate) registries: Registries,
    /// Registries without TLS.
    pub(crate) insecure: Vec<HostPattern>,
}

impl LookUps {
    /// Returns the marks of an image, a reference with a digest. The logins of `keychain` that match are tried in the order of the
    /// kubelet, and no login at last.
    pub(crate) async fn ask(
        &self,
        rules: &LifecycleRules,
        image: &Reference,
        keychain: &Keychain,
        now: Timestamp,
    ) -> Answer {
        let Some(digest) = &image.digest else {
            return Err("the image has no digest".into());
        };
        let deadline = Instant::now() + TIMEOUT;
        let insecure = self.insecure.iter().any(|host| host.matches(&image.host));
        let mut logins = keychain.candidates(&image.host, &image.repository);
        logins.push(Keychain::anonymous());
        let mut first_refusal: Option<RegistryError> = None;
        for credentials in logins {
            let access = Access {
                credentials,
                insecure,
                ..Access::default()
            };
            let opened = self.registries.open(&image.host, &image.repository, access);
            let read = async {
                let session = opened?.until(deadline).with_priority(Priority::Background);
                read_lifecycle(&session, digest, rules, now).await
            };
            match timeout_at(deadline, read).await {
                Ok(Ok(report)) => return Ok(Arc::new(report)),
                Ok(Err(error)) if is_refusal(&error) => {
                    first_refusal.get_or_insert(error);
                }
                Ok(Err(error)) => return Err(error.to_string().into()),
                Err(_) => {
                    let host = &image.host;
                    return Err(format!("{host} did not answer within {TIMEOUT:?}").into());
                }
            }
        }
        let refusal = first_refusal.map(|error| error.to_string());
        Err(refusal.unwrap_or_else(|| "no login".to_owned()).into())
    }
}

/// Returns whether another login may have an answer.
fn is_refusal(error: &RegistryError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed
            | ErrorKind::AccessDenied
            | ErrorKind::NotFound
            | ErrorKind::InvalidAccess
    )
}
