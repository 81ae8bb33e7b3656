//! The authority that signs the webhook's certificates. Pure but for the random numbers of new keys; the clock is an argument.
//!
//! An authority of 365 days signs a leaf of 7 days; both are renewed at two thirds of their life.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode as _;

use crate::admission::certificates::certificate::{
    CA_CERTIFICATE, CA_KEY, CERTIFICATE, CertificateError, Data, KEY, bad, certificates, is_due,
    validity,
};
use affix_registry::Secret;

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::from_hours(365 * 24);
/// Life of the leaf.
const LEAF_LIFE: Duration = Duration::from_hours(7 * 24);
/// By how much a certificate begins before it is made, for clocks that are late.
const BACKDATED: Duration = Duration::from_mins(10);
/// Most authorities that are trusted at once.
const MOST_AUTHORITIES: usize = 3;

/// The authority in use, with its key.
pub(crate) struct Authority {
    pub(crate) key: KeyPair,
    /// When it was made.
    pub(crate) made: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Itself, then those before it.
    pub(crate) trusted: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Reads it from the data of the Secret.
    pub(crate) fn read(data: &Data, now: Timestamp) -> Result<Self, CertificateError> {
        let part = |key: &'static str| {
            data.get(key)
                .map(Secret::expose)
                .ok_or_else(|| bad(key, "it is missing"))
        };
        let trusted = certificates(part(CA_CERTIFICATE)?, CA_CERTIFICATE)?;
        let own = trusted
            .first()
            .ok_or_else(|| bad(CA_CERTIFICATE, "it holds no certificate"))?;
        let key = std::str::from_utf8(part(CA_KEY)?)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| bad(CA_KEY, "it holds no private key in PEM"))?;
        let parsed = x509_cert::Certificate::from_der(own)
            .map_err(|_| bad(CA_CERTIFICATE, "it is malformed"))?;
        if parsed
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .as_bytes()
            != Some(key.der_bytes())
        {
            return Err(bad(CA_KEY, "the key does not belong to the certificate"));
        }
        let (not_before, not_after) =
            validity(own).ok_or_else(|| bad(CA_CERTIFICATE, "it is malformed"))?;
        if now < not_before || now >= not_after {
            return Err(bad(CA_CERTIFICATE, "it is not valid now"));
        }
        if is_due(own, now) {
            return Err(bad(CA_CERTIFICATE, "two thirds of its life are over"));
        }
        Ok(Self {
            key,
            made: later(not_before, BACKDATED),
            not_after,
            trusted,
        })
    }

    /// A new one, after `former`.
    pub(crate) fn new(
        former: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(|error| bad(CA_KEY, error))?;
        let mut params = authority_params();
        let not_after = later(now, AUTHORITY_LIFE);
        (params.not_before, params.not_after) = (date(earlier(now, BACKDATED)), date(not_after));
        let own = params
            .self_signed(&key)
            .map_err(|error| bad(CA_CERTIFICATE, error))?
            .der()
            .clone();
        let mut trusted = vec![own];
        for certificate in former {
            let is_valid = validity(certificate).is_some_and(|(_, not_after)| now < not_after);
            if is_valid && !trusted.contains(certificate) && trusted.len() < MOST_AUTHORITIES {
                trusted.push(certificate.clone());
            }
        }
        Ok(Self {
            key,
            made: now,
            not_after,
            trusted,
        })
    }

    /// A leaf for `names`: certificate and key, PEM.
    pub(crate) fn issue(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(String, Secret), CertificateError> {
        let mut params = CertificateParams::new(names).map_err(|error| bad(CERTIFICATE, error))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "affix webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (
            date(earlier(now, BACKDATED)),
            date(later(now, LEAF_LIFE).min(self.not_after)),
        );
        let key = KeyPair::generate().map_err(|error| bad(KEY, error))?;
        let issuer = Issuer::new(authority_params(), &self.key);
        let certificate = params
            .signed_by(&key, &issuer)
            .map_err(|error| bad(CERTIFICATE, error))?;
        Ok((certificate.pem(), key.serialize_pem().into()))
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "affix webhook authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

pub(crate) fn later(instant: Timestamp, by: Duration) -> Timestamp {
    instant.checked_add(by).unwrap_or(Timestamp::MAX)
}

pub(crate) fn earlier(instant: Timestamp, by: Duration) -> Timestamp {
    instant.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// In whole seconds since 1970, as certificates have it.
fn date(instant: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(instant.as_second())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}
