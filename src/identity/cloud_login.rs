//! The source of a login: one ServiceAccount at one registry of a cloud.

use std::fmt;
use std::sync::Arc;

use affix_registry::oci::{Algorithm, Digest, Hasher, Host};
use affix_registry::{IssuedLogin, LoginClient, LoginSource, RegistryError, Secret};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::api::Provider;

use super::account::{Account, TokenIssuer};
use super::aws::Ecr;
use super::azure::Acr;
use super::{aws, azure, gcp};

/// Token services that replace those of the clouds, as URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// STS of AWS, such as that of a VPC endpoint.
    pub aws_sts: Option<String>,
    /// The authority of Entra.
    pub azure_authority: Option<String>,
    /// STS of Google.
    pub gcp_sts: Option<String>,
}

/// Makes the logins of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identities {
    tokens: Arc<dyn TokenIssuer>,
    endpoints: Arc<Endpoints>,
}

impl Identities {
    /// Returns the logins by tokens of `tokens`.
    #[must_use]
    pub fn new(tokens: Arc<dyn TokenIssuer>, endpoints: Endpoints) -> Self {
        Self {
            tokens,
            endpoints: Arc::new(endpoints),
        }
    }

    /// Returns the source of tokens.
    #[must_use]
    pub fn tokens(&self) -> &dyn TokenIssuer {
        &*self.tokens
    }

    /// Returns the source of the login of an account. It sends no request.
    ///
    /// # Errors
    /// If the registry does not belong to the provider.
    pub fn login(
        &self,
        provider: Provider,
        registry: &Host,
        account: Account,
    ) -> Result<CloudLogin, WrongRegistry> {
        let cloud = Cloud::of(provider, registry).ok_or_else(|| WrongRegistry {
            provider,
            registry: registry.to_string(),
            hosts: match provider {
                Provider::Aws => aws::HOSTS,
                Provider::Azure => azure::HOSTS,
                Provider::Gcp => gcp::HOSTS,
                Provider::Generic => "none",
            },
        })?;
        Ok(CloudLogin {
            key: key(&cloud, &account, &self.endpoints),
            cloud,
            account,
            identities: self.clone(),
        })
    }
}

/// The registry is not of the provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{provider} does not log in to {registry}: its registries are {hosts}")]
pub struct WrongRegistry {
    provider: Provider,
    registry: String,
    hosts: &'static str,
}

/// The registry of a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cloud {
    Aws(Ecr),
    Azure(Acr),
    Gcp,
}

impl Cloud {
    fn of(provider: Provider, registry: &Host) -> Option<Self> {
        match provider {
            Provider::Generic => None,
            Provider::Aws => Ecr::of(registry).map(Self::Aws),
            Provider::Azure => Acr::of(registry).map(Self::Azure),
            Provider::Gcp => gcp::is_registry(registry).then_some(Self::Gcp),
        }
    }

    const fn annotations(&self) -> &'static [&'static str] {
        match self {
            Self::Aws(_) => aws::ANNOTATIONS,
            Self::Azure(_) => azure::ANNOTATIONS,
            Self::Gcp => gcp::ANNOTATIONS,
        }
    }

    /// Returns the audience of the token. On GKE it is empty, because the cluster's issuer decides.
    fn audience(&self, account: &Account) -> String {
        match self {
            Self::Aws(_) => Ecr::audience(account),
            Self::Azure(_) => azure::AUDIENCE.to_owned(),
            Self::Gcp => gcp::audience(account),
        }
    }
}

/// Returns the key of a login: the cloud, the UID of the account, its annotations, the audience and the endpoints. The registry
/// client adds the registry and the way to it.
fn key(cloud: &Cloud, account: &Account, endpoints: &Endpoints) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let audience = cloud.audience(account);
    let annotations = cloud
        .annotations()
        .iter()
        .map(|name| account.annotation(name));
    let cloud = match cloud {
        Cloud::Aws(_) => "aws",
        Cloud::Azure(_) => "azure",
        Cloud::Gcp => "gcp",
    };
    let endpoints = [
        &endpoints.aws_sts,
        &endpoints.azure_authority,
        &endpoints.gcp_sts,
    ]
    .map(Option::as_deref);
    let parts = [Some(cloud), Some(&account.namespace), Some(&account.name)]
        .into_iter()
        .chain([Some(account.uid.as_str()), Some(&audience)])
        .chain(annotations)
        .chain(endpoints);
    for part in parts {
        // The length keeps two lists apart whose parts are split differently.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hasher.update(&length.to_be_bytes());
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    hasher.finish()
}

/// The login of one ServiceAccount at one registry.
pub struct CloudLogin {
    key: Digest,
    cloud: Cloud,
    account: Account,
    identities: Identities,
}

impl fmt::Debug for CloudLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudLogin({})", self.account)
    }
}

/// One exchange of a token for a login.
pub(super) struct Exchange<'a> {
    pub(super) account: &'a Account,
    pub(super) tokens: &'a dyn TokenIssuer,
    pub(super) endpoints: &'a Endpoints,
    pub(super) client: LoginClient<'a>,
    audience: String,
}

impl Exchange<'_> {
    /// Requests a token for the audience of the cloud.
    pub(super) async fn token(&self) -> Result<Secret, RegistryError> {
        self.token_for(&self.audience).await
    }

    /// Requests a token for an audience. Messages do not contain it.
    pub(super) async fn token_for(&self, audience: &str) -> Result<Secret, RegistryError> {
        let token = self.tokens.token(self.account, audience).await?;
        self.client.redact(&token);
        Ok(token)
    }
}

impl LoginSource for CloudLogin {
    fn key(&self) -> &Digest {
        &self.key
    }

    fn describe(&self) -> String {
        format!("the login of {}", self.account)
    }

    fn issue<'a>(
        &'a self,
        client: LoginClient<'a>,
    ) -> BoxFuture<'a, Result<IssuedLogin, RegistryError>> {
        let exchange = Exchange {
            account: &self.account,
            tokens: &*self.identities.tokens,
            endpoints: &self.identities.endpoints,
            client,
            audience: self.cloud.audience(&self.account),
        };
        async move {
            let issued = match &self.cloud {
                Cloud::Aws(ecr) => ecr.login(&exchange).await,
                Cloud::Azure(acr) => acr.login(&exchange).await,
                Cloud::Gcp => gcp::login(&exchange).await,
            };
            tracing::debug!(
                namespace = self.account.namespace,
                service_account = self.account.name,
                registry = client.registry(),
                issued = issued.is_ok(),
                "asked the cloud for a login"
            );
            issued
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn account(change: impl FnOnce(&mut Account)) -> Account {
        let mut account = Account {
            namespace: "team-a".to_owned(),
            name: "builder".to_owned(),
            uid: "1".to_owned(),
            annotations: [(
                "eks.amazonaws.com/role-arn".to_owned(),
                "arn:aws:iam::123456789012:role/affix".to_owned(),
            )]
            .into(),
        };
        change(&mut account);
        account
    }

    #[test]
    fn a_login_is_shared_by_one_account_with_the_same_annotations_only() {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
            .parse()
            .unwrap();
        let cloud = Cloud::of(Provider::Aws, &host).unwrap();
        let key = |change: fn(&mut Account)| key(&cloud, &account(change), &Endpoints::default());
        let same = key(|_| {});
        // An annotation of another tool does not end the login.
        assert_eq!(
            key(|account| {
                account
                    .annotations
                    .insert("tool".to_owned(), "x".to_owned());
            }),
            same
        );
        for other in [
            key(|account| account.uid = "2".to_owned()),
            key(|account| account.namespace = "team-b".to_owned()),
            key(|account| account.annotations.clear()),
            key(|account| {
                account
                    .annotations
                    .insert("eks.amazonaws.com/audience".to_owned(), "x".to_owned());
            }),
        ] {
            assert_ne!(other, same);
        }
    }

    #[test]
    fn a_provider_logs_in_to_its_own_registries_only() {
        for (provider, host) in [
            (Provider::Aws, "team.azurecr.io"),
            (Provider::Azure, "gcr.io"),
            (Provider::Gcp, "public.ecr.aws"),
            (Provider::Generic, "public.ecr.aws"),
        ] {
            assert_eq!(Cloud::of(provider, &host.parse().unwrap()), None);
        }
    }
}
