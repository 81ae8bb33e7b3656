//! The webhook's own identity in a cloud: one ServiceAccount of the webhook's namespace, for the images of all pods.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::admission::options::LookupIdentity;
use crate::admission::review::single_flight::SingleFlightCache;
use crate::api::Provider;
use crate::identity::{Account, Identities};
use crate::service::{ApiServerError, TokenRequests, identity};
use affix_registry::Keychain;
use affix_registry::oci::Host;

/// Cache lifetime of the ServiceAccount. Its annotations may change.
const CACHE_TTL: Duration = Duration::from_mins(1);
/// Time limit of one read.
const API_TIMEOUT: Duration = Duration::from_secs(10);

type Answer = Result<Account, Arc<str>>;

/// Logs in to the registries of one cloud.
pub(crate) struct CloudIdentity {
    provider: Provider,
    service_account: String,
    api: Api<ServiceAccount>,
    namespace: String,
    identities: Identities,
    cache: Arc<SingleFlightCache<(), Answer>>,
}

impl CloudIdentity {
    pub(crate) fn new(client: &Client, namespace: &str, options: LookupIdentity) -> Self {
        let tokens = Arc::new(TokenRequests::new(client.clone()));
        Self {
            provider: options.provider,
            service_account: options.service_account,
            api: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            identities: Identities::new(tokens, options.endpoints),
            cache: SingleFlightCache::new(CACHE_TTL),
        }
    }

    /// Returns the ServiceAccount.
    ///
    /// # Errors
    /// A short cause. The log has the whole one.
    pub(crate) async fn account(&self) -> Answer {
        let (api, name) = (self.api.clone(), self.service_account.clone());
        let namespace = self.namespace.clone();
        let read = || async move { read(&api, &namespace, &name).await };
        let (answer, _) = self.cache.get((), Result::is_ok, read).await;
        answer.unwrap_or_else(|| Err("cannot read the service account".into()))
    }

    /// Returns the login for a registry, or `None` if it is not of this cloud. It sends no request.
    pub(crate) fn login(&self, registry: &Host, account: &Account) -> Option<Keychain> {
        let login = self
            .identities
            .login(self.provider, registry, account.clone());
        Some(Keychain::issued(registry, Arc::new(login.ok()?)))
    }
}

async fn read(api: &Api<ServiceAccount>, namespace: &str, name: &str) -> Answer {
    let Ok(answer) = timeout(API_TIMEOUT, api.get(name)).await else {
        return Err(format!("service account {name:?} not read in time").into());
    };
    answer
        .map(|account| identity(namespace, account))
        .map_err(|error| {
            let error = ApiServerError::from(error);
            tracing::warn!(namespace, service_account = name, %error, "cannot read the service account");
            format!("service account {name:?} not readable").into()
        })
}
