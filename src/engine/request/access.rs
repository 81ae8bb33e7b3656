//! Access to a registry: credentials, certificates and proxy.

use crate::api::{ImageAttachmentSpec, LocalObjectReference, Reason, ReferrersMode};
use crate::attachment::Problem;
use affix_registry::{self, Access, ClientIdentity, Keychain, Proxy, TlsOptions};

use super::secrets::{SecretData, Sources, find, key, missing};

/// Returns the credentials, certificates and proxy from the Secrets that the spec references.
///
/// # Errors
/// `SecretNotFound`, with the names of the Secret and of the key. `InvalidSpec` for what the operator refuses.
pub fn access(spec: &ImageAttachmentSpec, sources: &Sources) -> Result<Access, Problem> {
    Ok(Access {
        tenant: sources.namespace.clone(),
        credentials: credentials(spec, sources)?,
        tls: tls(spec.cert_secret_ref.as_ref(), sources)?,
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

fn tls(reference: Option<&LocalObjectReference>, sources: &Sources) -> Result<TlsOptions, Problem> {
    let Some(reference) = reference else {
        return Ok(TlsOptions::default());
    };
    let field = "spec.certSecretRef";
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
    use super::*;
    use crate::engine::options::TenantRules;

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
            access(&spec, &sources)
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
        assert!(access(&serde_json::from_str(spec).unwrap(), &sources).is_ok());
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
}
