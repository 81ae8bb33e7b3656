//! The pull secrets of a pod, read from the pod's own namespace by name (threat T5), and kept for a few seconds so that a
//! deployment of a hundred pods does not read one a hundred times.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::admission::review::single_flight::Flights;
use affix_registry::Keychain;

/// How long a Secret is believed. A rotated one is seen after this.
const BELIEVED: Duration = Duration::from_secs(10);
/// Secrets of one pod that are read, and how many of them at once.
const MOST: usize = 32;
const AT_ONCE: usize = 4;
/// How long the API server may take for an answer, which others may wait for longer than whoever asked.
const LONGEST: Duration = Duration::from_secs(10);
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// A Secret's logins; `None` where there is no such Secret, or it holds none that can be read; the kubelet passes both over.
type Answer = Result<Option<Keychain>, Arc<str>>;

/// Reads pull secrets.
pub(crate) struct Credentials {
    client: Client,
    known: Arc<Flights<(String, String), Answer>>,
}

impl Credentials {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            known: Flights::new(BELIEVED),
        }
    }

    /// The logins of the Secrets `names`, in their order.
    ///
    /// # Errors
    /// When the API server does not let affix read one, or does not answer.
    pub(crate) async fn read(
        &self,
        namespace: &str,
        names: &[String],
    ) -> Result<Keychain, Arc<str>> {
        let reads: Vec<_> = names
            .iter()
            .take(MOST)
            .map(|name| self.read_one(namespace, name))
            .collect();
        let keychains: Vec<Option<Keychain>> =
            stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
        Ok(Keychain::merge(keychains.into_iter().flatten()))
    }

    async fn read_one(&self, namespace: &str, name: &str) -> Answer {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let (key, asked) = ((namespace.to_owned(), name.to_owned()), name.to_owned());
        let (answer, _) = self
            .known
            .get(
                key,
                Result::is_ok,
                || async move { fetch(&api, &asked).await },
            )
            .await;
        answer.unwrap_or_else(|| Err("the pull secrets cannot be read".into()))
    }
}

async fn fetch(api: &Api<Secret>, name: &str) -> Answer {
    let Ok(answer) = timeout(LONGEST, api.get_opt(name)).await else {
        return Err(format!("the pull secret {name:?} was not read in time").into());
    };
    match answer {
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
