//! AWS: STS exchanges the token for a session of a role, and ECR issues a login for the session.
//!
//! Regions and endpoints follow from the registry's host, also in China, GovCloud and the other partitions.

use std::sync::LazyLock;
use std::time::Duration;

use affix_registry::oci::Host;
use affix_registry::{IssuedLogin, LoginAnswer, LoginClient, RegistryError, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use k8s_openapi::jiff::Timestamp;
use regex::Regex;
use serde::Deserialize;

use super::account::Account;
use super::answer::{SecretText, json, text, xml_text};
use super::cloud_login::Exchange;
use super::sigv4::{Credentials, Scope, Signable, sign};

/// The role of the ServiceAccount, as on EKS.
const ROLE: &str = "eks.amazonaws.com/role-arn";
/// The audience of the token, if the identity provider expects another one than the default, as on EKS.
const AUDIENCE: &str = "eks.amazonaws.com/audience";
/// `false` selects the global endpoint of STS, as on EKS.
const REGIONAL: &str = "eks.amazonaws.com/sts-regional-endpoints";
/// The annotations that determine the login.
pub(super) const ANNOTATIONS: &[&str] = &[ROLE, AUDIENCE, REGIONAL];

const DEFAULT_AUDIENCE: &str = "sts.amazonaws.com";
const GLOBAL_STS: &str = "https://sts.amazonaws.com";
const PUBLIC_HOST: &str = "public.ecr.aws";
/// The region of the authentication for ECR Public.
const PUBLIC_REGION: &str = "us-east-1";

/// The hosts that this provider logs in to, for messages.
pub(super) const HOSTS: &str = "ACCOUNT.dkr.ecr.REGION.amazonaws.com, or public.ecr.aws";

/// `ACCOUNT.dkr.ecr[-fips].REGION.SUFFIX`. The host is the author's choice, so the pattern of the region admits no other service:
/// `sts.s3.amazonaws.com` would be a bucket.
#[allow(clippy::expect_used, reason = "a test compiles the pattern")]
static PRIVATE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^[0-9]{12}\.dkr\.ecr(-fips)?\.([a-z]{2,4}(?:-[a-z]+){1,2}-[0-9]{1,2})\.(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$",
    )
    .expect("a valid pattern")
});
/// The dual-stack form, `ACCOUNT.dkr-ecr[-fips].REGION.on.aws`.
#[allow(clippy::expect_used, reason = "a test compiles the pattern")]
static DUAL_STACK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[0-9]{12}\.dkr-ecr(-fips)?\.([a-z]{2,4}(?:-[a-z]+){1,2}-[0-9]{1,2})\.on\.aws$")
        .expect("a valid pattern")
});
#[allow(clippy::expect_used, reason = "a test compiles the pattern")]
static ROLE_ARN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/[\x21-\x7e]{1,1024}$")
        .expect("a valid pattern")
});

/// The endpoints of one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ecr {
    region: String,
    /// The regional endpoint of STS.
    sts: String,
    /// The host of the API of ECR.
    api: String,
    is_public: bool,
}

impl Ecr {
    /// Returns the endpoints for a registry, or `None` if the host is not of ECR.
    pub(super) fn of(host: &Host) -> Option<Self> {
        let name = host.as_str();
        if name == PUBLIC_HOST {
            return Some(Self {
                region: PUBLIC_REGION.to_owned(),
                sts: format!("https://sts.{PUBLIC_REGION}.amazonaws.com"),
                api: format!("api.ecr-public.{PUBLIC_REGION}.amazonaws.com"),
                is_public: true,
            });
        }
        let (parts, is_dual_stack) = match PRIVATE.captures(name) {
            Some(parts) => (parts, false),
            None => (DUAL_STACK.captures(name)?, true),
        };
        let is_fips = parts.get(1).is_some();
        let region = parts.get(2)?.as_str();
        let suffix = parts
            .get(3)
            .map_or("amazonaws.com", |suffix| suffix.as_str());
        let api = match (is_dual_stack, is_fips) {
            (true, false) => format!("ecr.{region}.api.aws"),
            (true, true) => format!("ecr-fips.{region}.api.aws"),
            (false, false) => format!("api.ecr.{region}.{suffix}"),
            (false, true) => format!("ecr-fips.{region}.{suffix}"),
        };
        // In GovCloud, every endpoint of STS is FIPS.
        let sts = if is_fips && !region.starts_with("us-gov-") {
            format!("https://sts-fips.{region}.{suffix}")
        } else {
            format!("https://sts.{region}.{suffix}")
        };
        Some(Self {
            region: region.to_owned(),
            sts,
            api,
            is_public: false,
        })
    }

    pub(super) fn audience(account: &Account) -> String {
        let audience = account.annotation(AUDIENCE);
        audience.unwrap_or(DEFAULT_AUDIENCE).to_owned()
    }

    /// Returns the login for the session of the account's role.
    pub(super) async fn login(
        &self,
        exchange: &Exchange<'_>,
    ) -> Result<IssuedLogin, RegistryError> {
        let account = exchange.account;
        let role = account.required(ROLE)?;
        if !ROLE_ARN.is_match(role) {
            return Err(account.malformed(ROLE, "arn:aws:iam::ACCOUNT:role/NAME"));
        }
        let is_global = account.annotation(REGIONAL) == Some("false");
        let has_global =
            self.sts.ends_with(".amazonaws.com") && !self.region.starts_with("us-gov-");
        let sts = match &exchange.endpoints.aws_sts {
            Some(endpoint) => endpoint,
            None if is_global && has_global => GLOBAL_STS,
            None => &self.sts,
        };
        let token = exchange.token().await?;
        let session = self.assume_role(exchange, sts, role, &token).await?;
        self.authorization_token(exchange.client, &session).await
    }

    async fn assume_role(
        &self,
        exchange: &Exchange<'_>,
        sts: &str,
        role: &str,
        token: &Secret,
    ) -> Result<Credentials, RegistryError> {
        let client = exchange.client;
        let name = session_name(exchange.account);
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", &name),
            ("WebIdentityToken", text(token)),
        ];
        let url = format!("{}/", sts.trim_end_matches('/'));
        let answer = client.post_form(&url, &[], &fields).await?;
        let action = format!("refuses the role {role} to {}", exchange.account);
        if !answer.is_success() {
            let parts = ["Code", "Message"].map(|name| xml_text(answer.body(), name));
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            return Err(client.refused(&answer, &action, &parts.join(": ")));
        }
        let secret = |name: &str| {
            let value = xml_text(answer.body(), name).map(Secret::from);
            value.inspect(|value| client.redact(value))
        };
        match (
            xml_text(answer.body(), "AccessKeyId"),
            secret("SecretAccessKey"),
            secret("SessionToken"),
        ) {
            (Some(access_key), Some(secret_key), Some(session_token)) => Ok(Credentials {
                access_key,
                secret_key,
                session_token: Some(session_token),
            }),
            _ => Err(client.refused(&answer, &action, "the answer has no credentials")),
        }
    }

    async fn authorization_token(
        &self,
        client: LoginClient<'_>,
        session: &Credentials,
    ) -> Result<IssuedLogin, RegistryError> {
        let (service, target) = if self.is_public {
            ("ecr-public", "SpencerFrontendService.GetAuthorizationToken")
        } else {
            (
                "ecr",
                "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            )
        };
        let now = Timestamp::now();
        let body = b"{}";
        let kind = "application/x-amz-json-1.1";
        let signed = sign(
            &Signable {
                method: "POST",
                path: "/",
                headers: &[
                    ("content-type", kind),
                    ("host", &self.api),
                    ("x-amz-target", target),
                ],
                body,
            },
            &Scope {
                region: &self.region,
                service,
                now,
            },
            session,
        );
        let token = session.session_token.as_ref().map(text).unwrap_or_default();
        let headers = [
            (CONTENT_TYPE, kind),
            (HeaderName::from_static("x-amz-target"), target),
            (HeaderName::from_static("x-amz-date"), &signed.date),
            (HeaderName::from_static("x-amz-security-token"), token),
            (AUTHORIZATION, &signed.authorization),
        ];
        let url = format!("https://{}/", self.api);
        let answer = client.post(&url, &headers, body.to_vec()).await?;
        let action = format!("refuses a login for {}", client.registry());
        let data = if self.is_public {
            json::<PublicAnswer>(client, &answer, &action)?.authorization_data
        } else {
            let answer: PrivateAnswer = json(client, &answer, &action)?;
            answer.authorization_data.into_iter().next()
        };
        let missing = || client.refused(&answer, &action, "the answer has no login");
        let data = data.ok_or_else(missing)?;
        client.redact(&data.authorization_token.0);
        issued(client, &answer, &action, &data, now)
    }
}

/// Decodes the login, which is `user:password` in base64.
fn issued(
    client: LoginClient<'_>,
    answer: &LoginAnswer,
    action: &str,
    data: &AuthorizationData,
    now: Timestamp,
) -> Result<IssuedLogin, RegistryError> {
    let decoded = STANDARD
        .decode(data.authorization_token.text())
        .ok()
        .map(zeroize::Zeroizing::new);
    let login = decoded.as_ref().and_then(|pair| {
        let (username, password) = std::str::from_utf8(pair).ok()?.split_once(':')?;
        Some((username.to_owned(), Secret::from(password)))
    });
    let (username, password) =
        login.ok_or_else(|| client.refused(answer, action, "the login is malformed"))?;
    let left = data.expires_at - now.as_duration().as_secs_f64();
    Ok(IssuedLogin {
        username,
        password,
        lifetime: Duration::try_from_secs_f64(left).unwrap_or_default(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrivateAnswer {
    #[serde(default)]
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicAnswer {
    #[serde(default)]
    authorization_data: Option<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: SecretText,
    /// Seconds since 1970.
    expires_at: f64,
}

/// Returns the name of the session, which CloudTrail shows: at most 64 of the characters that STS allows.
fn session_name(account: &Account) -> String {
    let full = format!("{}.{}", account.name, account.namespace);
    full.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.=,@".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn endpoints_follow_from_the_registry_in_each_partition() {
        for (host, region, sts, api) in [
            (
                "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                "eu-west-1",
                "https://sts.eu-west-1.amazonaws.com",
                "api.ecr.eu-west-1.amazonaws.com",
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "cn-north-1",
                "https://sts.cn-north-1.amazonaws.com.cn",
                "api.ecr.cn-north-1.amazonaws.com.cn",
            ),
            (
                "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com",
                "us-gov-west-1",
                "https://sts.us-gov-west-1.amazonaws.com",
                "api.ecr.us-gov-west-1.amazonaws.com",
            ),
            (
                "123456789012.dkr.ecr-fips.us-gov-east-1.amazonaws.com",
                "us-gov-east-1",
                "https://sts.us-gov-east-1.amazonaws.com",
                "ecr-fips.us-gov-east-1.amazonaws.com",
            ),
            (
                "123456789012.dkr.ecr-fips.us-east-2.amazonaws.com",
                "us-east-2",
                "https://sts-fips.us-east-2.amazonaws.com",
                "ecr-fips.us-east-2.amazonaws.com",
            ),
            (
                "123456789012.dkr-ecr.eu-north-1.on.aws",
                "eu-north-1",
                "https://sts.eu-north-1.amazonaws.com",
                "ecr.eu-north-1.api.aws",
            ),
            (
                "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
                "eusc-de-east-1",
                "https://sts.eusc-de-east-1.amazonaws.eu",
                "api.ecr.eusc-de-east-1.amazonaws.eu",
            ),
            (
                "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
                "us-isob-east-1",
                "https://sts.us-isob-east-1.sc2s.sgov.gov",
                "api.ecr.us-isob-east-1.sc2s.sgov.gov",
            ),
            (
                "public.ecr.aws",
                "us-east-1",
                "https://sts.us-east-1.amazonaws.com",
                "api.ecr-public.us-east-1.amazonaws.com",
            ),
        ] {
            let ecr = Ecr::of(&host.parse().unwrap()).unwrap();
            assert_eq!((&*ecr.region, &*ecr.sts, &*ecr.api), (region, sts, api));
            assert_eq!(ecr.is_public, host == "public.ecr.aws");
        }
    }

    #[test]
    fn t27_a_host_that_only_looks_like_ecr_gets_no_token() {
        for host in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com",
            "123456789012.dkr.ecr.s3.amazonaws.com",
            "123456789012.dkr.ecr.s3-us-west-2.amazonaws.com",
            "123456789012.dkr-ecr.s3.on.aws",
            "evil.example.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:8443",
            "12345678901.dkr.ecr.eu-west-1.amazonaws.com",
            "dkr.ecr.eu-west-1.amazonaws.com",
            "public.ecr.aws.example.com",
            "gcr.io",
        ] {
            assert_eq!(Ecr::of(&host.parse().unwrap()), None, "{host}");
        }
    }

    #[test]
    fn a_role_is_an_arn_of_any_partition() {
        for (arn, is_role) in [
            ("arn:aws:iam::123456789012:role/affix", true),
            ("arn:aws-cn:iam::123456789012:role/path/affix", true),
            ("arn:aws-us-gov:iam::123456789012:role/affix", true),
            ("arn:aws:iam::123456789012:user/affix", false),
            ("arn:aws:iam::123456789012:role/a b", false),
            ("affix", false),
        ] {
            assert_eq!(ROLE_ARN.is_match(arn), is_role, "{arn}");
        }
    }

    #[test]
    fn the_session_has_the_name_of_the_account() {
        let account = |name: &str| Account {
            namespace: "team-a".to_owned(),
            name: name.to_owned(),
            ..Account::default()
        };
        assert_eq!(session_name(&account("builder")), "builder.team-a");
        assert_eq!(session_name(&account(&"x".repeat(253))).len(), 64);
    }
}
