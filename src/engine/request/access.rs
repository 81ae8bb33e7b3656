//! Access to a registry: credentials, certificates and proxy.

use crate::api::{ImageAttachmentSpec, LocalObjectReference, ReferrersMode};
use crate::attachment::Problem;
use affix_registry::{self, Access, ClientIdentity, Keychain, Proxy, TlsOptions};

use super::secrets::{SecretData, Sources, find, key, missing};

/// Returns the credentials, certificates and proxy from the Secrets that the spec references.
///
/// # Errors
/// `SecretNotFound`, with the names of the Secret and of the key.
pub fn access(spec: &ImageAttachmentSpec, sources: &Sources) -> Result<Access, Problem> {
    Ok(Access {
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

const DOCKER_CONFIG: &str = ".dockerconfigjson";

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
        for (name, secret) in found {
            keychains.push(keychain(secret, field, name)?);
        }
    }
    if keychains.is_empty() {
        return Ok(sources.fallback_credentials.clone());
    }
    Ok(Keychain::merge(keychains))
}

fn keychain(secret: &SecretData, field: &str, name: &str) -> Result<Keychain, Problem> {
    let json = key(
        secret,
        field,
        name,
        DOCKER_CONFIG,
        "a Secret of type kubernetes.io/dockerconfigjson has it",
    )?;
    Keychain::parse(json.expose()).map_err(|error| {
        missing(format_args!(
            "{field}: the Secret {name:?}, key {DOCKER_CONFIG}: {error}"
        ))
    })
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
