//! Google: STS exchanges the token for a federated access token, which may impersonate a service account of Google. The access
//! token is the password of the login.

use std::sync::LazyLock;
use std::time::Duration;

use affix_registry::oci::Host;
use affix_registry::{IssuedLogin, RegistryError, Secret};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use super::account::Account;
use super::answer::{SecretText, json as parse, text};
use super::cloud_login::Exchange;

/// The service account of Google to impersonate. Absent: the federated identity has the rights itself.
const EMAIL: &str = "iam.gke.io/gcp-service-account";
/// The provider of a workload identity pool, for clusters outside of GKE.
const PROVIDER: &str = "gcp.auth.fluxcd.io/workload-identity-provider";
/// The annotations that determine the login.
pub(super) const ANNOTATIONS: &[&str] = &[EMAIL, PROVIDER];

const STS: &str = "https://sts.googleapis.com";
const CREDENTIALS: &str = "https://iamcredentials.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const USERNAME: &str = "oauth2accesstoken";
/// The validity of an access token that does not state it.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(10);

/// The hosts that this provider logs in to, for messages.
pub(super) const HOSTS: &str = "LOCATION-docker.pkg.dev, or gcr.io and its subdomains";

#[allow(clippy::expect_used, reason = "a test compiles the pattern")]
static EMAIL_FORM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[a-zA-Z0-9-]{1,100}@[a-zA-Z0-9.-]{1,100}\.iam\.gserviceaccount\.com$")
        .expect("a valid pattern")
});
#[allow(clippy::expect_used, reason = "a test compiles the pattern")]
static PROVIDER_FORM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^projects/[0-9]{1,30}/locations/global/workloadIdentityPools/[a-z0-9-]{1,100}/providers/[a-z0-9-]{1,100}$")
        .expect("a valid pattern")
});
/// The issuer of the tokens of a cluster of GKE.
#[allow(clippy::expect_used, reason = "a test compiles the pattern")]
static GKE_ISSUER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^https://container\.googleapis\.com/v1/projects/([a-z0-9:.-]+)/(?:locations|zones)/[a-z0-9-]+/clusters/[a-z0-9-]+$",
    )
    .expect("a valid pattern")
});

/// The audiences of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Audiences {
    /// That of the ServiceAccount's token.
    token: String,
    /// That of the request to STS.
    exchange: String,
}

/// Returns whether a registry is of Google.
pub(super) fn is_registry(host: &Host) -> bool {
    let name = host.as_str();
    let has_prefix = |suffix| {
        name.strip_suffix(suffix)
            .is_some_and(|rest| !rest.is_empty())
    };
    name == "gcr.io" || has_prefix(".gcr.io") || has_prefix("-docker.pkg.dev")
}

/// Returns the login for the identity of the account.
pub(super) async fn login(exchange: &Exchange<'_>) -> Result<IssuedLogin, RegistryError> {
    let (account, client) = (exchange.account, exchange.client);
    let email = account.annotation(EMAIL);
    if email.is_some_and(|email| !EMAIL_FORM.is_match(email)) {
        return Err(account.malformed(EMAIL, "NAME@PROJECT.iam.gserviceaccount.com"));
    }
    let audiences = audiences(exchange).await?;
    let token = exchange.token_for(&audiences.token).await?;
    let federated = federated_token(exchange, &audiences.exchange, &token).await?;
    let access = match email {
        None => federated,
        Some(email) => {
            client.redact(&federated.secret);
            impersonate(exchange, email, &federated.secret).await?
        }
    };
    Ok(IssuedLogin {
        username: USERNAME.to_owned(),
        password: access.secret,
        lifetime: access.lifetime,
    })
}

/// Returns the audiences by the annotation, or by the issuer of a cluster of GKE.
async fn audiences(exchange: &Exchange<'_>) -> Result<Audiences, RegistryError> {
    let account = exchange.account;
    if let Some(provider) = account.annotation(PROVIDER) {
        if !PROVIDER_FORM.is_match(provider) {
            let form =
                "projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER";
            return Err(account.malformed(PROVIDER, form));
        }
        let audience = format!("//iam.googleapis.com/{provider}");
        return Ok(Audiences {
            token: audience.clone(),
            exchange: audience,
        });
    }
    let issuer = exchange.tokens.issuer().await?;
    gke_audiences(&issuer).ok_or_else(|| RegistryError::LoginRefused {
        why: format!(
            "the annotation {PROVIDER} is missing on {account}: outside of GKE it names the provider of the workload identity pool \
             (the cluster's issuer is {issuer})"
        ),
    })
}

fn gke_audiences(issuer: &str) -> Option<Audiences> {
    let project = GKE_ISSUER.captures(issuer)?.get(1)?.as_str();
    let pool = format!("{project}.svc.id.goog");
    Some(Audiences {
        exchange: format!("identitynamespace:{pool}:{issuer}"),
        token: pool,
    })
}

struct Access {
    secret: Secret,
    lifetime: Duration,
}

async fn federated_token(
    exchange: &Exchange<'_>,
    audience: &str,
    token: &Secret,
) -> Result<Access, RegistryError> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: SecretText,
        #[serde(default)]
        expires_in: Option<f64>,
    }
    let client = exchange.client;
    let sts = exchange.endpoints.gcp_sts.as_deref().unwrap_or(STS);
    let url = format!("{}/v1/token", sts.trim_end_matches('/'));
    let fields = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", audience),
        ("scope", SCOPE),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", text(token)),
    ];
    let answer = client.post_form(&url, &[], &fields).await?;
    let action = format!("refuses the token of {}", exchange.account);
    let parsed: Answer = parse(client, &answer, &action)?;
    let lifetime = parsed
        .expires_in
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Access {
        secret: parsed.access_token.0,
        lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME),
    })
}

async fn impersonate(
    exchange: &Exchange<'_>,
    email: &str,
    federated: &Secret,
) -> Result<Access, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        access_token: SecretText,
        #[serde(default)]
        expire_time: Option<Timestamp>,
    }
    let client = exchange.client;
    let url = format!("{CREDENTIALS}/v1/projects/-/serviceAccounts/{email}:generateAccessToken");
    let bearer = zeroize::Zeroizing::new(format!("Bearer {}", text(federated)));
    let headers = [
        (AUTHORIZATION, bearer.as_str()),
        (CONTENT_TYPE, "application/json"),
    ];
    let body = json!({"scope": [SCOPE], "lifetime": "3600s"}).to_string();
    let answer = client.post(&url, &headers, body.into_bytes()).await?;
    let action = format!("refuses to impersonate {email} for {}", exchange.account);
    let parsed: Answer = parse(client, &answer, &action)?;
    let left = parsed
        .expire_time
        .map(|end| end.duration_since(Timestamp::now()));
    Ok(Access {
        secret: parsed.access_token.0,
        lifetime: left.map_or(DEFAULT_LIFETIME, |left| {
            Duration::try_from(left).unwrap_or_default()
        }),
    })
}

/// Returns the audience that a token of the account has, if an annotation says so.
pub(super) fn audience(account: &Account) -> String {
    account
        .annotation(PROVIDER)
        .map(|provider| format!("//iam.googleapis.com/{provider}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn registries_of_google_are_told_from_those_that_look_like_them() {
        for (host, is_google) in [
            ("gcr.io", true),
            ("eu.gcr.io", true),
            ("europe-docker.pkg.dev", true),
            ("us-central1-docker.pkg.dev", true),
            ("gcr.io.example.com", false),
            ("xgcr.io", false),
            ("europe-docker.pkg.dev:8443", false),
            ("docker.pkg.dev", false),
        ] {
            assert_eq!(is_registry(&host.parse().unwrap()), is_google, "{host}");
        }
    }

    #[test]
    fn the_pool_of_a_cluster_follows_from_its_issuer() {
        let issuer = "https://container.googleapis.com/v1/projects/team-1/locations/europe-west1/clusters/prod";
        assert_eq!(
            gke_audiences(issuer),
            Some(Audiences {
                token: "team-1.svc.id.goog".to_owned(),
                exchange: format!("identitynamespace:team-1.svc.id.goog:{issuer}"),
            })
        );
        assert_eq!(gke_audiences("https://kubernetes.default.svc"), None);
    }

    #[test]
    fn annotations_cannot_change_the_url() {
        for (email, is_email) in [
            ("affix@team-1.iam.gserviceaccount.com", true),
            ("affix@example.com.team-1.iam.gserviceaccount.com", true),
            ("a/b@team-1.iam.gserviceaccount.com", false),
            ("affix@team-1.iam.gserviceaccount.com?x", false),
        ] {
            assert_eq!(EMAIL_FORM.is_match(email), is_email, "{email}");
        }
        let provider = "projects/1/locations/global/workloadIdentityPools/p/providers/k";
        assert!(PROVIDER_FORM.is_match(provider));
        assert!(!PROVIDER_FORM.is_match(&format!("{provider}/x")));
    }
}
