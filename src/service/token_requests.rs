//! Tokens of ServiceAccounts, by the TokenRequest API.
//!
//! A token has one audience and a life of 10 minutes, the least that the API server accepts (threat T27). It is not cached.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;
use tokio::sync::OnceCell;

use affix_registry::Secret;

use super::api_error::{ApiServerError, with_timeout};
use crate::identity::{Account, TokenError, TokenIssuer};

/// The life of a token in seconds.
const LIFETIME: i64 = 600;
/// The discovery document of the cluster's issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Requests tokens at the API server.
pub(crate) struct TokenRequests {
    client: Client,
    issuer: OnceCell<String>,
}

impl std::fmt::Debug for TokenRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenRequests")
    }
}

impl TokenRequests {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            issuer: OnceCell::new(),
        }
    }

    async fn request(&self, account: &Account, audience: &str) -> Result<Secret, TokenError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.to_owned()]),
                expiration_seconds: Some(LIFETIME),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let answer =
            with_timeout(api.create_subresource("token", &account.name, &params, &request));
        let answer: TokenRequest = answer.await.map_err(|error| refused(account, &error))?;
        let token = answer.status.and_then(|status| status.token);
        token
            .map(Secret::from)
            .ok_or_else(|| TokenError(format!("the API server issued no token for {account}")))
    }

    async fn discover(&self) -> Result<String, TokenError> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
        }
        let request = http::Request::get(DISCOVERY).body(Vec::new());
        let request = request.map_err(|error| TokenError(error.to_string()))?;
        let document: Document = with_timeout(self.client.request(request))
            .await
            .map_err(|error| {
                TokenError(format!(
                    "the issuer of the cluster's tokens is unknown: {error}: affix needs get on {DISCOVERY}, which the ClusterRole \
                     system:service-account-issuer-discovery grants"
                ))
            })?;
        Ok(document.issuer)
    }
}

impl TokenIssuer for TokenRequests {
    fn token<'a>(
        &'a self,
        account: &'a Account,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Secret, TokenError>> {
        self.request(account, audience).boxed()
    }

    fn issuer(&self) -> BoxFuture<'_, Result<String, TokenError>> {
        async {
            self.issuer
                .get_or_try_init(|| self.discover())
                .await
                .cloned()
        }
        .boxed()
    }
}

/// Returns the error for a request that the API server did not serve. It names a right that affix lacks.
fn refused(account: &Account, error: &ApiServerError) -> TokenError {
    TokenError(match error.code() {
        Some(403) => format!(
            "affix may not create tokens of {account}: it needs the right create on serviceaccounts/token in the namespace {} (chart \
             value rbac.serviceAccountTokens): {error}",
            account.namespace
        ),
        Some(404) => format!("{account} is not there: create it"),
        _ => format!("the API server issued no token for {account}: {error}"),
    })
}

/// Returns the identity of a ServiceAccount.
pub(crate) fn identity(namespace: &str, account: ServiceAccount) -> Account {
    Account {
        namespace: namespace.to_owned(),
        name: account.name_any(),
        uid: account.metadata.uid.unwrap_or_default(),
        annotations: account.metadata.annotations.unwrap_or_default(),
    }
}
