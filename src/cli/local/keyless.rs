//! Plans of signatures without their key.
//!
//! A key that exists only for the plan takes the place of the absent one. No signature verifies with it, so the plan shows the targets, and the
//! outcome says what only the real key tells.

use std::collections::BTreeMap;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::api::{ImageAttachmentSpec, LocalObjectReference, Reason, TargetState};
use crate::engine::{Outcome, SecretData};
use affix_registry::Secret;

/// The message of a target whose signature only the key could verify.
const NEEDS_KEY: &str =
    "without the key, the plan cannot tell whether a signature of this key exists";

/// The name of the Secret that takes the place of a key management service. No Secret has such a name.
const OF_SERVICE: &str = "(kms)";

/// Returns the name of the Secret with the key of a resource that signs.
pub(super) fn key_secret(spec: &ImageAttachmentSpec) -> Option<&str> {
    spec.key_secret().map(|(_, secret)| secret.name.as_str())
}

/// Replaces the key of a service, which only the token of a ServiceAccount opens, by that of an absent Secret.
pub(super) fn without_service(spec: &mut ImageAttachmentSpec) {
    let signature = spec.signature.as_mut().and_then(|of| of.cosign.as_mut());
    let attestation = spec.attestation.as_mut().map(|of| &mut of.cosign);
    let mark = spec.end_of_life.as_mut();
    let statement = mark.and_then(|mark| mark.statement.as_mut());
    let fields = [
        signature.map(|of| (&mut of.kms, &mut of.keyless, &mut of.key_secret_ref)),
        attestation.map(|of| (&mut of.kms, &mut of.keyless, &mut of.key_secret_ref)),
        statement
            .map(|of| &mut of.cosign)
            .map(|of| (&mut of.kms, &mut of.keyless, &mut of.key_secret_ref)),
    ];
    for (kms, keyless, secret) in fields.into_iter().flatten() {
        let has_account = keyless.take().is_some();
        if kms.take().is_some() || has_account {
            *secret = Some(LocalObjectReference {
                name: OF_SERVICE.to_owned(),
            });
        }
    }
}

/// Returns a Secret with a new key, for cosign and for notation.
///
/// # Errors
/// If the system has no random numbers.
pub(super) fn substitute() -> Result<SecretData, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for (kind, text) in [
        (DnType::CountryName, "XX"),
        (DnType::StateOrProvinceName, "plan"),
        (DnType::OrganizationName, "affix"),
        (DnType::CommonName, "plan"),
    ] {
        name.push(kind, text);
    }
    params.distinguished_name = name;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let certificate = params.self_signed(&key)?;
    let pem = key.serialize_pem();
    let data = BTreeMap::from([
        ("cosign.key".to_owned(), Secret::from(pem.as_str())),
        ("tls.key".to_owned(), Secret::from(pem.as_str())),
        (
            "tls.crt".to_owned(),
            Secret::from(certificate.pem().as_str()),
        ),
    ]);
    Ok(SecretData {
        data,
        ..SecretData::default()
    })
}

/// Replaces in the outcome of a plan every statement that only the key could prove.
///
/// `is_of_service`: the key is in a key management service.
pub(super) fn qualify(outcome: &mut Outcome, is_of_service: bool) {
    for row in outcome.rows.iter_mut().flatten() {
        if row.state == TargetState::Planned {
            row.message = Some(NEEDS_KEY.to_owned());
        }
    }
    // The old signatures of the resource look foreign without the key.
    outcome.leftovers = None;
    if outcome.verdict.reason == Reason::Planned {
        let targets = outcome.rows.iter().flatten();
        let count = targets.filter(|row| row.state == TargetState::Planned);
        let way_out = if is_of_service {
            "only a cluster has the token of its ServiceAccount"
        } else {
            "give the Secret in a file with -f to see it"
        };
        outcome.verdict.message =
            format!("{} targets selected; {NEEDS_KEY}: {way_out}", count.count());
    }
}
