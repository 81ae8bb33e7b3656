//! Pull secrets, read by name and only from the namespace of the pod (threat T5). They are cached for a
//! few seconds, so that a Deployment of a hundred pods causes one read.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::admission::review::single_flight::SingleFlightCache;
use crate::identity::Account;
use crate::service::ApiServerError;
use affix_registry::Keychain;

/// Cache lifetime of a Secret.
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Maximum number of Secrets per pod, and of concurrent reads.
const MAX_SECRETS: usize = 256;
const CONCURRENT_READS: usize = 8;
/// Time limit of one read. Reviews wait less; a late answer serves the next review.
const API_TIMEOUT: Duration = Duration::from_secs(10);
const DOCKER_CONFIG: &str = ".dockerconfigjson";
/// The key of a pull secret of the older type kubernetes.io/dockercfg.
const DOCKERCFG: &str = ".dockercfg";

/// The credentials of one Secret. `None` for a missing or malformed Secret, which the kubelet also
/// ignores.
type Answer = Result<Option<Keychain>, Arc<str>>;

/// The logins of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodLogins {
    pub(crate) keychain: Keychain,
    /// The webhook's own identity in a cloud.
    pub(crate) account: Option<Account>,
    /// The cause for which a Secret was left out.
    pub(crate) missing: Option<Arc<str>>,
}

/// Reads and caches pull secrets.
pub(crate) struct PullSecrets {
    client: Client,
    cache: Arc<SingleFlightCache<(String, String), Answer>>,
}

impl PullSecrets {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            cache: SingleFlightCache::new(CACHE_TTL),
        }
    }

    /// Returns the credentials of the Secrets `names`, in their order. A Secret that cannot be read is
    /// left out.
    pub(crate) async fn read(&self, namespace: &str, names: &[String]) -> PodLogins {
        let reads: Vec<_> = names
            .iter()
            .take(MAX_SECRETS)
            .map(|name| self.read_one(namespace, name))
            .collect();
        let answers: Vec<Answer> = stream::iter(reads)
            .buffered(CONCURRENT_READS)
            .collect()
            .await;
        let too_many = (names.len() > MAX_SECRETS)
            .then(|| format!("more than {MAX_SECRETS} pull secrets").into());
        let failed = answers.iter().find_map(|answer| answer.clone().err());
        PodLogins {
            keychain: Keychain::merge(answers.into_iter().flatten().flatten()),
            account: None,
            missing: failed.or(too_many),
        }
    }

    async fn read_one(&self, namespace: &str, name: &str) -> Answer {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let (key, secret) = ((namespace.to_owned(), name.to_owned()), name.to_owned());
        let (answer, _) = self
            .cache
            .get(
                key,
                Result::is_ok,
                || async move { fetch(&api, &secret).await },
            )
            .await;
        answer.unwrap_or_else(|| Err("cannot read the pull secrets".into()))
    }
}

async fn fetch(api: &Api<Secret>, name: &str) -> Answer {
    let Ok(answer) = timeout(API_TIMEOUT, api.get_opt(name)).await else {
        return Err(format!("pull secret {name:?} not read in time").into());
    };
    match answer {
        Ok(secret) => {
            let mut data = secret.and_then(|secret| secret.data).unwrap_or_default();
            let mut config = |key: &str| {
                data.remove(key)
                    .map(|value| zeroize::Zeroizing::new(value.0))
            };
            let keychain = match (config(DOCKER_CONFIG), config(DOCKERCFG)) {
                (Some(json), _) => Keychain::parse(&json).ok(),
                (None, Some(json)) => Keychain::parse_dockercfg(&json).ok(),
                (None, None) => None,
            };
            Ok(keychain)
        }
        Err(error) => {
            let error = ApiServerError::from(error);
            tracing::debug!(%error, "cannot read a pull secret");
            Err(format!("pull secret {name:?} not readable").into())
        }
    }
}
