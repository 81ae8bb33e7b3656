//! The pull secrets of a pod, read from the pod's own namespace by name (threat T5), and kept for a few seconds so that a
//! deployment of a hundred pods does not read one a hundred times.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use super::flights::Flights;
use crate::registry::Keychain;

/// How long a Secret is believed. A rotated one is seen after this.
const BELIEVED: Duration = Duration::from_secs(10);
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// A Secret's logins; `None` where there is no such Secret, or it holds none that can be read; the kubelet passes both over.
type Answer = Result<Option<Keychain>, Arc<str>>;

/// Reads pull secrets.
pub(super) struct Credentials {
    client: Client,
    known: Arc<Flights<(String, String), Answer>>,
}

impl Credentials {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Flights::new(BELIEVED) }
    }

    /// The logins of the Secrets `names`, in their order.
    ///
    /// # Errors
    /// When the API server does not let affix read one, or does not answer.
    pub(super) async fn read(&self, namespace: &str, names: &[String]) -> Result<Keychain, Arc<str>> {
        let mut keychains = Vec::new();
        for name in names {
            let key = (namespace.to_owned(), name.clone());
            let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let asked = name.clone();
            let (answer, _) = self.known.get(key, Result::is_ok, || async move { fetch(&api, &asked).await }).await;
            keychains.extend(answer.unwrap_or_else(|| Err("the pull secrets cannot be read".into()))?);
        }
        Ok(Keychain::merge(keychains))
    }
}

async fn fetch(api: &Api<Secret>, name: &str) -> Answer {
    match api.get_opt(name).await {
        Ok(secret) => {
            let config = secret.and_then(|secret| secret.data?.remove(DOCKER_CONFIG));
            Ok(config.and_then(|config| Keychain::parse(&zeroize::Zeroizing::new(config.0)).ok()))
        }
        Err(error) => {
            tracing::debug!(%error, "a pull secret was not read");
            Err(format!("the pull secret {name:?} cannot be read").into())
        }
    }
}
