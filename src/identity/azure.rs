//! Azure: Entra exchanges the token for an access token by a federated credential, and the registry exchanges that for a
//! refresh token, which is the password of the login.

use std::time::Duration;

use affix_registry::oci::Host;
use affix_registry::{IssuedLogin, RegistryError, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::account::Account;
use super::answer::{SecretText, json, text};
use super::cloud_login::Exchange;

/// The application or the managed identity.
const CLIENT: &str = "azure.workload.identity/client-id";
/// Its tenant.
const TENANT: &str = "azure.workload.identity/tenant-id";
/// The annotations that determine the login.
pub(super) const ANNOTATIONS: &[&str] = &[CLIENT, TENANT];

/// The audience of a federated credential, in all clouds by default.
pub(super) const AUDIENCE: &str = "api://AzureADTokenExchange";
/// The resource of all registries.
const SCOPE: &str = "https://containerregistry.azure.net/.default";
/// The user name of a login by refresh token.
const USERNAME: &str = "00000000-0000-0000-0000-000000000000";
/// The validity of a refresh token that does not state it.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(60);

/// The hosts that this provider logs in to, for messages.
pub(super) const HOSTS: &str = "NAME.azurecr.io, NAME.azurecr.cn or NAME.azurecr.us";

/// The endpoints of one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acr {
    authority: &'static str,
    registry: String,
}

impl Acr {
    /// Returns the endpoints for a registry, or `None` if the host is not of ACR.
    pub(super) fn of(host: &Host) -> Option<Self> {
        let clouds = [
            (".azurecr.io", "https://login.microsoftonline.com"),
            (".azurecr.cn", "https://login.chinacloudapi.cn"),
            (".azurecr.us", "https://login.microsoftonline.us"),
        ];
        let registry = host.as_str();
        let (_, authority) = clouds.into_iter().find(|(suffix, _)| {
            let name = registry.strip_suffix(suffix);
            name.is_some_and(|name| !name.is_empty())
        })?;
        Some(Self {
            authority,
            registry: registry.to_owned(),
        })
    }

    /// Returns the login for the identity of the account.
    pub(super) async fn login(
        &self,
        exchange: &Exchange<'_>,
    ) -> Result<IssuedLogin, RegistryError> {
        let account = exchange.account;
        let tenant = name(account, TENANT)?;
        let client_id = name(account, CLIENT)?;
        let token = exchange.token().await?;
        let access = self
            .access_token(exchange, tenant, client_id, &token)
            .await?;
        self.refresh_token(exchange, tenant, &access).await
    }

    async fn access_token(
        &self,
        exchange: &Exchange<'_>,
        tenant: &str,
        client_id: &str,
        token: &Secret,
    ) -> Result<Secret, RegistryError> {
        let client = exchange.client;
        let authority = exchange.endpoints.azure_authority.as_deref();
        let authority = authority.unwrap_or(self.authority).trim_end_matches('/');
        let url = format!("{authority}/{tenant}/oauth2/v2.0/token");
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("scope", SCOPE),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", text(token)),
        ];
        let answer = client.post_form(&url, &[], &fields).await?;
        let action = format!("refuses the identity {client_id} to {}", exchange.account);
        let access: AccessToken = json(client, &answer, &action)?;
        client.redact(&access.access_token.0);
        Ok(access.access_token.0)
    }

    async fn refresh_token(
        &self,
        exchange: &Exchange<'_>,
        tenant: &str,
        access: &Secret,
    ) -> Result<IssuedLogin, RegistryError> {
        let client = exchange.client;
        let url = format!("https://{}/oauth2/exchange", self.registry);
        let fields = [
            ("grant_type", "access_token"),
            ("service", &self.registry),
            ("tenant", tenant),
            ("access_token", text(access)),
        ];
        let answer = client.post_form(&url, &[], &fields).await?;
        let action = format!("refuses a login to the identity of {}", exchange.account);
        let refresh: RefreshToken = json(client, &answer, &action)?;
        let password = refresh.refresh_token.0;
        Ok(IssuedLogin {
            username: USERNAME.to_owned(),
            lifetime: lifetime(text(&password), Timestamp::now()).unwrap_or(DEFAULT_LIFETIME),
            password,
        })
    }
}

/// Returns the id in an annotation. It becomes part of a URL.
fn name<'a>(account: &'a Account, annotation: &str) -> Result<&'a str, RegistryError> {
    let value = account.required(annotation)?;
    let is_id = value.len() <= 128
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
        && !value.starts_with('.');
    if is_id {
        Ok(value)
    } else {
        Err(account.malformed(
            annotation,
            "an id such as 00000000-0000-0000-0000-000000000000",
        ))
    }
}

#[derive(Deserialize)]
struct AccessToken {
    access_token: SecretText,
}

#[derive(Deserialize)]
struct RefreshToken {
    refresh_token: SecretText,
}

/// Returns the rest of the validity of a JWT, without verifying it: the registry that issued it does.
fn lifetime(jwt: &str, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let left = claims.exp - now.as_duration().as_secs_f64();
    Some(Duration::try_from_secs_f64(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn the_authority_follows_from_the_registry_in_each_cloud() {
        for (host, authority) in [
            ("team.azurecr.io", Some("https://login.microsoftonline.com")),
            ("team.azurecr.cn", Some("https://login.chinacloudapi.cn")),
            ("team.azurecr.us", Some("https://login.microsoftonline.us")),
            ("team.azurecr.io.example.com", None),
            ("team.azurecr.io:8443", None),
            ("xazurecr.io", None),
        ] {
            let acr = Acr::of(&host.parse().unwrap());
            assert_eq!(acr.map(|acr| acr.authority), authority, "{host}");
        }
    }

    #[test]
    fn an_id_cannot_change_the_url() {
        let account = |value: &str| Account {
            annotations: [(TENANT.to_owned(), value.to_owned())].into(),
            ..Account::default()
        };
        for (value, is_id) in [
            ("72f988bf-86f1-41af-91ab-2d7cd011db47", true),
            ("contoso.onmicrosoft.com", true),
            ("a/../b", false),
            ("..", false),
            ("a?b", false),
        ] {
            assert_eq!(name(&account(value), TENANT).is_ok(), is_id, "{value}");
        }
        let error = name(&Account::default(), TENANT).unwrap_err().to_string();
        assert!(error.contains(TENANT), "{error}");
    }

    #[test]
    fn a_refresh_token_states_its_end() {
        let now: Timestamp = "2026-11-29T00:00:00Z".parse().unwrap();
        let jwt = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        let exp = now.as_second() + 10_800;
        let left = lifetime(&jwt(&format!(r#"{{"exp":{exp}}}"#)), now);
        assert_eq!(left, Some(Duration::from_hours(3)));
        assert_eq!(lifetime(&jwt(r#"{"exp":1}"#), now), Some(Duration::ZERO));
        assert_eq!(lifetime(&jwt("{}"), now), None);
        assert_eq!(lifetime("opaque", now), None);
    }
}
