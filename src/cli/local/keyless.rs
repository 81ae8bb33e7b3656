//! Plans of signatures without their key.
//!
//! A key that exists only for the plan takes the place of the absent one. No signature verifies with it, so the plan shows the targets, and the
//! outcome says what only the real key tells.

use std::collections::BTreeMap;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::api::{ImageAttachmentSpec, Reason, TargetState};
use crate::engine::{Outcome, SecretData};
use affix_registry::Secret;

/// The message of a target whose signature only the key could verify.
const NEEDS_KEY: &str =
    "without the key, the plan cannot tell whether a signature of this key exists";

/// Returns the name of the Secret with the key of a resource that signs.
pub(super) fn key_secret(spec: &ImageAttachmentSpec) -> Option<&str> {
    spec.key_secret().map(|(_, secret)| secret.name.as_str())
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
pub(super) fn qualify(outcome: &mut Outcome) {
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
        outcome.verdict.message = format!(
            "{} targets selected; {NEEDS_KEY}: give the Secret in a file with -f to see it",
            count.count()
        );
    }
}
