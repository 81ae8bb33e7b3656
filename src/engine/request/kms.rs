//! The key of a resource that signs with a key management service, and the ServiceAccount that uses it.

use crate::api::{ImageAttachmentSpec, Kms, Reason};
use crate::attachment::Problem;
use crate::signing::{KmsIdentity, KmsRequest, VaultKey};
use affix_registry::TlsOptions;
use affix_registry::oci::Reference;

use super::access::tls;
use super::key_policy::{ANNOTATION, allow};
use super::secrets::{Sources, missing};

/// Returns the key of `kms`, which stands at `field`.
///
/// # Errors
/// `InvalidSpec` if the operator has not enabled workload identity; `SecretNotFound` for a ServiceAccount or a Secret that is absent;
/// `RepositoryNotAllowed` if the annotation of the ServiceAccount does not allow this repository.
pub(super) fn kms_request(
    (field, kms): (&str, &Kms),
    spec: &ImageAttachmentSpec,
    reference: &Reference,
    sources: &Sources,
) -> Result<KmsRequest, Problem> {
    let identity = signing_identity(field, spec, reference, sources)?;
    let (Some(key), Some(vault)) = (kms.vault_key(), &kms.vault) else {
        let text = "write keyRef as hashivault://KEY, with vault.address and vault.role";
        return Err(Problem::new(
            Reason::InvalidSpec,
            format_args!("{field}: {text}"),
        ));
    };
    let certificates = vault.cert_secret_ref.as_ref();
    let tls = match certificates {
        Some(secret) => tls(&format!("{field}.vault.certSecretRef"), secret, sources)?,
        None => TlsOptions::default(),
    };
    Ok(KmsRequest {
        key: VaultKey {
            name: key.to_owned(),
            address: vault.address.trim_end_matches('/').to_owned(),
            namespace: vault.namespace.clone(),
            mount: vault.mount().to_owned(),
            auth_mount: vault.auth_mount().to_owned(),
            role: vault.role.clone(),
            audience: vault.audience().to_owned(),
            tls,
        },
        identity,
    })
}

/// Returns the ServiceAccount of a resource that signs with a service at `field`.
///
/// # Errors
/// Those of [`kms_request`] for the ServiceAccount.
pub(super) fn signing_identity(
    field: &str,
    spec: &ImageAttachmentSpec,
    reference: &Reference,
    sources: &Sources,
) -> Result<KmsIdentity, Problem> {
    let Some(identities) = sources.identities.clone() else {
        return Err(Problem::new(
            Reason::InvalidSpec,
            format_args!(
                "{field}: it needs workload identity, which is off: the operator can enable it with --enable-workload-identity (chart value \
                 rbac.serviceAccountTokens), or use keySecretRef"
            ),
        ));
    };
    let name = spec.signing_account().unwrap_or_default();
    let Some(account) = sources.signing_account.clone() else {
        return Err(missing(format_args!(
            "{field}: the ServiceAccount {name:?} is not there: create it in the namespace of the resource"
        )));
    };
    if let Some(annotation) = account.annotations.get(ANNOTATION) {
        let location = format!("{field}: the ServiceAccount {name:?}");
        allow(&location, annotation, reference)?;
    }
    Ok(KmsIdentity {
        account,
        identities,
    })
}
