//! Access to a registry: credentials, certificates and proxy.

use std::sync::Arc;

use crate::api::{ImageAttachmentSpec, LocalObjectReference, Provider, Reason, ReferrersMode};
use crate::attachment::Problem;
use affix_registry::oci::Host;
use affix_registry::{self, Access, ClientIdentity, Keychain, Proxy, TlsOptions};

use super::secrets::{SecretData, Sources, find, key, missing};

/// Returns the credentials, certificates and proxy for `registries` from the objects that the spec references.
///
/// # Errors
/// `SecretNotFound`, with the names of the Secret and of the key. `InvalidSpec` for fields that the operator refuses, and for a
/// registry that does not belong to the provider.
pub fn access<'a>(
    spec: &ImageAttachmentSpec,
    registries: impl IntoIterator<Item = &'a Host>,
    sources: &Sources,
) -> Result<Access, Problem> {
    Ok(Access {
        tenant: sources.namespace.clone(),
        credentials: match spec.provider() {
            Provider::Generic => credentials(spec, sources)?,
            provider => cloud_logins(spec, provider, registries, sources)?,
        },
        tls: match &spec.cert_secret_ref {
            Some(secret) => tls("spec.certSecretRef", secret, sources)?,
            None => TlsOptions::default(),
        },
        proxy: proxy(spec.proxy_secret_ref.as_ref(), sources)?,
        insecure: spec.insecure(),
        referrers_mode: match spec.referrers_mode() {
            ReferrersMode::Auto => affix_registry::ReferrersMode::Auto,
            ReferrersMode::Api => affix_registry::ReferrersMode::Api,
            ReferrersMode::TagSchema => affix_registry::ReferrersMode::TagSchema,
        },
    })
}

/// The key of a Secret of type kubernetes.io/dockerconfigjson.
const DOCKER_CONFIG_JSON: &str = ".dockerconfigjson";
/// The key of a Secret of type kubernetes.io/dockercfg, the older form.
const DOCKERCFG: &str = ".dockercfg";

fn credentials(spec: &ImageAttachmentSpec, sources: &Sources) -> Result<Keychain, Problem> {
    let mut keychains = Vec::new();
    if let Some(reference) = &spec.secret_ref {
        keychains.push(keychain(
            find("spec.secretRef", reference, sources)?,
            "spec.secretRef",
            &reference.name,
        )?);
    }
    if let Some(account) = &spec.service_account_name {
        let field = "spec.serviceAccountName";
        let Some(names) = &sources.image_pull_secrets else {
            return Err(missing(format_args!(
                "{field}: the ServiceAccount {account:?} is not there: create it in the namespace of the resource"
            )));
        };
        // As in the kubelet: absent pull secrets are ignored if at least one exists.
        let found: Vec<(&String, &SecretData)> = names
            .iter()
            .filter_map(|name| Some((name, sources.secrets.get(name)?)))
            .collect();
        if let (true, Some(first)) = (found.is_empty(), names.first()) {
            return Err(missing(format_args!(
                "{field}: the Secret {first:?}, an imagePullSecret of the ServiceAccount {account:?}, is not there"
            )));
        }
        keychains.extend(pull_secrets(&found, field)?);
    }
    if keychains.is_empty() {
        return Ok(sources.fallback_credentials.clone());
    }
    Ok(Keychain::merge(keychains))
}

/// Returns the logins that a cloud issues to the ServiceAccount of the spec. Each is requested when its registry asks for it.
fn cloud_logins<'a>(
    spec: &ImageAttachmentSpec,
    provider: Provider,
    registries: impl IntoIterator<Item = &'a Host>,
    sources: &Sources,
) -> Result<Keychain, Problem> {
    let field = "spec.provider";
    let Some(identities) = &sources.identities else {
        return Err(refused(format_args!(
            "{field}: {provider} needs workload identity, which is off: the operator can enable it with --enable-workload-identity \
             (chart value rbac.serviceAccountTokens), or use secretRef"
        )));
    };
    let account = spec.service_account_name.as_deref().unwrap_or_default();
    let Some(account) = sources
        .service_account
        .clone()
        .filter(|_| !account.is_empty())
    else {
        return Err(missing(format_args!(
            "spec.serviceAccountName: the ServiceAccount {account:?} is not there: create it in the namespace of the resource"
        )));
    };
    let logins = registries.into_iter().map(|registry| {
        let login = identities.login(provider, registry, account.clone());
        let login = login.map_err(|error| refused(format_args!("{field}: {error}")))?;
        Ok(Keychain::issued(registry, Arc::new(login)))
    });
    Ok(Keychain::merge(
        logins.collect::<Result<Vec<_>, Problem>>()?,
    ))
}

/// Returns the keychains of pull secrets. An unreadable one is skipped with a warning.
///
/// # Errors
/// `SecretNotFound` if all of them are unreadable.
fn pull_secrets(found: &[(&String, &SecretData)], field: &str) -> Result<Vec<Keychain>, Problem> {
    let (mut keychains, mut unreadable) = (Vec::new(), Vec::new());
    for (name, secret) in found {
        match keychain(secret, field, name) {
            Ok(read) => keychains.push(read),
            Err(problem) => unreadable.push(problem),
        }
    }
    if keychains.is_empty() && !unreadable.is_empty() {
        return Err(unreadable.swap_remove(0));
    }
    let skipped = unreadable.into_iter().map(|problem| {
        Keychain::anonymous().with_warning(format!("{} (skipped)", problem.message))
    });
    keychains.extend(skipped);
    Ok(keychains)
}

fn keychain(secret: &SecretData, field: &str, name: &str) -> Result<Keychain, Problem> {
    let (name_of_key, parsed) = match secret.data.get(DOCKERCFG) {
        Some(json) if !secret.data.contains_key(DOCKER_CONFIG_JSON) => {
            (DOCKERCFG, Keychain::parse_dockercfg(json.expose()))
        }
        _ => {
            let json = key(
                secret,
                field,
                name,
                DOCKER_CONFIG_JSON,
                "a Secret of type kubernetes.io/dockerconfigjson has it",
            )?;
            (DOCKER_CONFIG_JSON, Keychain::parse(json.expose()))
        }
    };
    let source = format!("{field}: the Secret {name:?}, key {name_of_key}");
    match parsed {
        Ok(keychain) => Ok(keychain.from_source(&source)),
        Err(error) => Err(missing(format_args!("{source}: {error}"))),
    }
}

/// Returns the certificates of the Secret that `field` references.
pub(super) fn tls(
    field: &str,
    reference: &LocalObjectReference,
    sources: &Sources,
) -> Result<TlsOptions, Problem> {
    let secret = find(field, reference, sources)?;
    let bytes = |key: &str| secret.data.get(key).map(|value| value.expose().to_vec());
    let client = match (bytes("tls.crt"), secret.data.get("tls.key")) {
        (Some(certificate_pem), Some(key_pem)) => Some(ClientIdentity {
            certificate_pem,
            key_pem: key_pem.clone(),
        }),
        (None, None) => None,
        (certificate, _) => {
            let absent = if certificate.is_some() {
                "tls.key"
            } else {
                "tls.crt"
            };
            return Err(missing(format_args!(
                "{field}: the Secret {:?} has no key {absent}: tls.crt and tls.key go together",
                reference.name
            )));
        }
    };
    let ca_pem = bytes("ca.crt");
    if ca_pem.is_some() && sources.tenants.refuse_authorities {
        return Err(refused(format_args!(
            "{field}: certificate authorities of resources are ruled out by --tenant-authorities=refuse: the operator can trust one for \
             all resources, or remove ca.crt from the Secret {:?}",
            reference.name
        )));
    }
    if ca_pem.is_none() && client.is_none() {
        return Err(missing(format_args!(
            "{field}: the Secret {:?} has none of the keys ca.crt, tls.crt and tls.key",
            reference.name
        )));
    }
    Ok(TlsOptions { ca_pem, client })
}

fn proxy(
    reference: Option<&LocalObjectReference>,
    sources: &Sources,
) -> Result<Option<Proxy>, Problem> {
    let Some(reference) = reference else {
        return Ok(None);
    };
    let field = "spec.proxySecretRef";
    if sources.tenants.refuse_proxies {
        return Err(refused(format_args!(
            "{field}: proxies of resources are ruled out by --tenant-proxies=refuse: remove the field; the operator can set a proxy for all \
             resources"
        )));
    }
    let secret = find(field, reference, sources)?;
    let text = |name: &str| {
        secret
            .data
            .get(name)
            .map(|value| String::from_utf8_lossy(value.expose()).trim().to_owned())
    };
    key(
        secret,
        field,
        &reference.name,
        "address",
        "the proxy's URL, such as http://proxy.example.com:3128, stands there",
    )?;
    Ok(Some(Proxy {
        address: text("address").unwrap_or_default(),
        username: text("username"),
        password: secret.data.get("password").cloned(),
    }))
}

/// Returns the problem of a field that the operator refuses.
fn refused(message: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::InvalidSpec, message)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;
    use crate::engine::options::TenantRules;
    use crate::identity::{Account, Endpoints, Identities, TokenError, TokenIssuer};

    const CONFIG: &str = r#"{"auths":{"my_host:8082":{"auth":"dTpw"},"r.io":{"auth":"dTpw"}}}"#;
    const LEGACY: &str = r#"{"my_host:8082":{"auth":"dTpw"},"r.io":{"auth":"dTpw"}}"#;

    fn secret(key: &str, value: &str) -> SecretData {
        SecretData {
            data: [(key.to_owned(), value.into())].into(),
            ..SecretData::default()
        }
    }

    fn read(spec: &str, secrets: &[(&str, SecretData)]) -> Result<Keychain, String> {
        let spec: ImageAttachmentSpec = serde_json::from_str(spec).unwrap();
        let secrets = secrets
            .iter()
            .map(|(name, secret)| ((*name).to_owned(), secret.clone()));
        let sources = Sources {
            image_pull_secrets: Some(vec!["one".into(), "two".into()]),
            secrets: secrets.collect(),
            ..Sources::default()
        };
        credentials(&spec, &sources).map_err(|problem| problem.message)
    }

    #[test]
    fn both_forms_of_pull_secrets_are_read_and_odd_entries_are_named() {
        for (key, content) in [(DOCKER_CONFIG_JSON, CONFIG), (DOCKERCFG, LEGACY)] {
            for (spec, field) in [
                (
                    r#"{"image":"r.io/a:1","secretRef":{"name":"one"}}"#,
                    "spec.secretRef",
                ),
                (
                    r#"{"image":"r.io/a:1","serviceAccountName":"default"}"#,
                    "spec.serviceAccountName",
                ),
            ] {
                let keychain = read(spec, &[("one", secret(key, content))]).unwrap();
                assert!(!keychain.is_empty());
                assert_eq!(
                    keychain.warnings(),
                    [format!(
                        "{field}: the Secret \"one\", key {key}: the docker config's entry \"my_host:8082\" is skipped: it names no registry"
                    )]
                );
            }
        }
    }

    #[test]
    fn t39_the_operator_can_refuse_proxies_and_authorities_of_resources() {
        let proxied = r#"{"image":"r.io/a:1","proxySecretRef":{"name":"one"}}"#;
        let trusting = r#"{"image":"r.io/a:1","certSecretRef":{"name":"two"}}"#;
        let refused = |spec: &str, refuse_proxies, refuse_authorities| {
            let secrets = [
                ("one", secret("address", "http://p.example.com:1")),
                ("two", secret("ca.crt", "pem")),
            ];
            let sources = Sources {
                tenants: TenantRules {
                    refuse_proxies,
                    refuse_authorities,
                },
                secrets: secrets.map(|(name, data)| (name.to_owned(), data)).into(),
                ..Sources::default()
            };
            let spec: ImageAttachmentSpec = serde_json::from_str(spec).unwrap();
            access(&spec, [&"r.io".parse().unwrap()], &sources)
                .err()
                .map(|problem| (problem.reason, problem.message))
        };
        for (spec, flag) in [
            (proxied, "--tenant-proxies=refuse"),
            (trusting, "--tenant-authorities=refuse"),
        ] {
            let (reason, message) = refused(spec, spec == proxied, spec == trusting).unwrap();
            assert_eq!(reason, Reason::InvalidSpec);
            assert!(
                message.starts_with("spec.") && message.contains(flag),
                "{message}"
            );
            assert_eq!(refused(spec, spec != proxied, spec != trusting), None);
        }
        // A proxy is refused before its Secret is read.
        let absent = r#"{"image":"r.io/a:1","proxySecretRef":{"name":"absent"}}"#;
        assert_eq!(refused(absent, true, false).unwrap().0, Reason::InvalidSpec);
    }

    #[test]
    fn t39_a_client_certificate_is_no_authority() {
        let pair = [("tls.crt", "pem"), ("tls.key", "pem")];
        let data = pair.map(|(name, value)| (name.to_owned(), value.into()));
        let identity = SecretData {
            data: data.into(),
            ..SecretData::default()
        };
        let sources = Sources {
            tenants: TenantRules {
                refuse_proxies: true,
                refuse_authorities: true,
            },
            secrets: [("two".to_owned(), identity)].into(),
            ..Sources::default()
        };
        let spec = r#"{"image":"r.io/a:1","certSecretRef":{"name":"two"}}"#;
        let spec = serde_json::from_str(spec).unwrap();
        assert!(access(&spec, [&"r.io".parse().unwrap()], &sources).is_ok());
    }

    #[test]
    fn an_unreadable_pull_secret_is_an_error_only_where_no_other_is_readable() {
        let spec = r#"{"image":"r.io/a:1","serviceAccountName":"default"}"#;
        let odd = || ("one", secret("password", "p"));
        let good = ("two", secret(DOCKER_CONFIG_JSON, CONFIG));
        let keychain = read(spec, &[odd(), good]).unwrap();
        assert!(!keychain.is_empty());
        let warnings = keychain.warnings().join(" ");
        assert!(
            warnings.contains("the Secret \"one\" has no key .dockerconfigjson"),
            "{warnings}"
        );
        let error = read(spec, &[odd()]).unwrap_err();
        assert!(error.contains("the Secret \"one\" has no key"), "{error}");
        let spec = r#"{"image":"r.io/a:1","secretRef":{"name":"one"}}"#;
        assert!(read(spec, &[odd()]).is_err());
        let malformed = ("one", secret(DOCKERCFG, "[]"));
        let error = read(spec, &[malformed]).unwrap_err();
        assert!(
            error.contains("key .dockercfg: the docker config is malformed"),
            "{error}"
        );
    }

    /// Issues no token.
    #[derive(Debug)]
    struct NoTokens;

    impl TokenIssuer for NoTokens {
        fn token<'a>(
            &'a self,
            _: &'a Account,
            _: &'a str,
        ) -> BoxFuture<'a, Result<affix_registry::Secret, TokenError>> {
            Box::pin(async { Err(TokenError("no token".to_owned())) })
        }

        fn issuer(&self) -> BoxFuture<'_, Result<String, TokenError>> {
            Box::pin(async { Err(TokenError("no issuer".to_owned())) })
        }
    }

    #[test]
    fn t28_a_provider_needs_the_operator_an_account_and_its_own_registry() {
        const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let enabled = Some(Identities::new(Arc::new(NoTokens), Endpoints::default()));
        let account = Some(Account::default());
        let check = |host: &str, identities, service_account| {
            let spec = format!(
                r#"{{"image":"{host}/a:1","serviceAccountName":"builder","provider":"aws"}}"#
            );
            let sources = Sources {
                identities,
                service_account,
                // Neither these nor any other logins stand in for the identity (threat T5).
                fallback_credentials: Keychain::login(host, "user", "password".into()).unwrap(),
                ..Sources::default()
            };
            let spec: ImageAttachmentSpec = serde_json::from_str(&spec).unwrap();
            access(&spec, [&host.parse().unwrap()], &sources)
                .map(|access| access.credentials)
                .map_err(|problem| (problem.reason, problem.message))
        };
        let keychain = check(ECR, enabled.clone(), account.clone()).unwrap();
        assert!(format!("{keychain:?}").contains("Issued"), "{keychain:?}");
        for (result, reason, text) in [
            (
                check(ECR, None, account.clone()),
                Reason::InvalidSpec,
                "--enable-workload-identity",
            ),
            (
                check(ECR, enabled.clone(), None),
                Reason::SecretNotFound,
                "the ServiceAccount \"builder\" is not there",
            ),
            (
                check("team.azurecr.io", enabled.clone(), account),
                Reason::InvalidSpec,
                "aws does not log in to team.azurecr.io",
            ),
        ] {
            let (found, message) = result.unwrap_err();
            assert_eq!(found, reason, "{message}");
            assert!(message.contains(text), "{message}");
        }
    }
}
