//! What a spec refers to by name, and how it becomes the request of a pass.
//!
//! References have no namespace: whoever fills [`Sources`] takes everything from the resource's own namespace (the controller)
//! or from the files that were given (the command), so no resource reaches into another namespace (threat T5).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::api::{
    ImageAttachmentSpec, ImageAttachmentStatus, LocalObjectReference, OnConflict, Reason,
    ReferrersMode,
};
use crate::attachment::{Inputs, Intent, Problem};
use affix_registry::{self, Access, ClientIdentity, Keychain, Priority, Proxy, Secret, TlsOptions};

use super::memory::Memory;
use super::pass::{Mode, Request};
use super::signing_key::SigningKey;

/// A Secret's type and data.
#[derive(Debug, Clone, Default)]
pub struct SecretData {
    /// `type`, where given.
    pub kind: Option<String>,
    /// `data`, decoded.
    pub data: BTreeMap<String, Secret>,
    /// Annotations, such as `affix.dev/repositories`.
    pub annotations: BTreeMap<String, String>,
}

/// Everything that a spec refers to and that was found, by name. What is absent was not there.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// ConfigMaps: `data` and `binaryData` together.
    pub config_maps: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// Secrets.
    pub secrets: BTreeMap<String, SecretData>,
    /// The `imagePullSecrets` of the service account that the spec names; absent: there is no such account.
    pub image_pull_secrets: Option<Vec<String>>,
    /// Logins for where the spec names none: the command's user's own, never the controller's.
    pub fallback_credentials: Keychain,
}

/// The names that a spec refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets, but for those that the service account adds.
    pub secrets: BTreeSet<String>,
    /// The service account.
    pub service_account: Option<String>,
}

impl Names {
    /// All names in `spec`.
    #[must_use]
    pub fn of(spec: &ImageAttachmentSpec) -> Self {
        let files = spec.artifact.iter().flat_map(|artifact| &artifact.files);
        let keys = files
            .filter_map(|file| Some(file.value_from.as_ref()?.config_map_key_ref.name.clone()));
        let whole = spec
            .artifact
            .iter()
            .flat_map(|artifact| &artifact.files_from)
            .map(|from| from.config_map_ref.name.clone());
        let signature = spec.signature.as_ref();
        let signers = [
            signature
                .and_then(|signature| signature.cosign.as_ref())
                .map(|cosign| &cosign.key_secret_ref),
            signature
                .and_then(|signature| signature.notation.as_ref())
                .map(|notation| &notation.key_secret_ref),
        ];
        let access = [
            &spec.secret_ref,
            &spec.cert_secret_ref,
            &spec.proxy_secret_ref,
        ]
        .map(Option::as_ref);
        Self {
            config_maps: keys.chain(whole).collect(),
            secrets: access
                .into_iter()
                .chain(signers)
                .flatten()
                .map(|secret| secret.name.clone())
                .collect(),
            service_account: spec.service_account_name.clone(),
        }
    }
}

/// The request of one pass over a resource of `generation`.
///
/// # Errors
/// `InvalidReference`, `InvalidSpec`, `FileMissing` and `SecretNotFound`, with the field, the value and the way out.
pub fn request(
    spec: &ImageAttachmentSpec,
    status: Option<&ImageAttachmentStatus>,
    generation: i64,
    sources: &Sources,
    verify: bool,
) -> Result<Request, Problem> {
    let intent = Intent::parse(
        spec,
        &Inputs {
            config_maps: sources.config_maps.clone(),
        },
    )?;
    Ok(Request {
        key: SigningKey::of(spec, &intent.reference, sources)?,
        memory: Memory::of(status, generation, &intent.reference),
        intent,
        access: access(spec, sources)?,
        on_conflict: spec
            .end_of_life
            .as_ref()
            .map_or(OnConflict::Report, crate::api::EndOfLife::on_conflict),
        mode: if spec.dry_run() {
            Mode::Plan
        } else {
            Mode::Attach
        },
        verify,
        priority: Priority::default(),
        timeout: spec.timeout(),
    })
}

/// How the registry is reached: credentials, certificates and proxy from the Secrets that the spec names.
///
/// # Errors
/// `SecretNotFound`, which names the Secret and the key.
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
        // As the kubelet does: a pull secret that is not there is passed over, so long as one is.
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

pub(super) fn find<'a>(
    field: &str,
    reference: &LocalObjectReference,
    sources: &'a Sources,
) -> Result<&'a SecretData, Problem> {
    sources.secrets.get(&reference.name).ok_or_else(|| {
        missing(format_args!(
            "{field}: the Secret {:?} is not there: create it in the namespace of the resource",
            reference.name
        ))
    })
}

pub(super) fn key<'a>(
    secret: &'a SecretData,
    field: &str,
    name: &str,
    key: &str,
    hint: &str,
) -> Result<&'a Secret, Problem> {
    secret.data.get(key).ok_or_else(|| {
        missing(format_args!(
            "{field}: the Secret {name:?} has no key {key}: {hint}"
        ))
    })
}

fn missing(message: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::SecretNotFound, message)
}
