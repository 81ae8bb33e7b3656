//! The certificate authority of the serving certificates. Pure except for the random numbers of new
//! keys; the clock is an argument.
//!
//! The authority is valid for 365 days, a serving certificate for 7 days. Both are renewed after two
//! thirds of their validity.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use x509_cert::der::Decode as _;

use crate::admission::certificates::certificate::{
    CA_CERTIFICATE, CA_KEY, CERTIFICATE, CertificateError, Data, KEY, certificates, invalid,
    is_renewal_due, validity,
};
use affix_registry::Secret;

/// Validity of the certificate authority.
const AUTHORITY_LIFE: Duration = Duration::from_hours(365 * 24);
/// Validity of the serving certificate.
const LEAF_LIFE: Duration = Duration::from_hours(7 * 24);
/// Offset of `notBefore` into the past, for clients with a slow clock.
const BACKDATING: Duration = Duration::from_mins(10);
/// Maximum number of trusted authorities.
const MAX_AUTHORITIES: usize = 3;

/// The current certificate authority and its private key.
pub(crate) struct Authority {
    pub(crate) key: KeyPair,
    /// Creation time.
    pub(crate) created: Timestamp,
    pub(crate) not_after: Timestamp,
    /// The current authority, followed by its predecessors.
    pub(crate) trusted: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Reads the authority from the data of the Secret.
    pub(crate) fn read(data: &Data, now: Timestamp) -> Result<Self, CertificateError> {
        let part = |key: &'static str| {
            data.get(key)
                .map(Secret::expose)
                .ok_or_else(|| invalid(key, "missing"))
        };
        let trusted = certificates(part(CA_CERTIFICATE)?, CA_CERTIFICATE)?;
        let own = trusted
            .first()
            .ok_or_else(|| invalid(CA_CERTIFICATE, "no certificate in PEM"))?;
        let key = std::str::from_utf8(part(CA_KEY)?)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| invalid(CA_KEY, "no private key in PEM"))?;
        let parsed = x509_cert::Certificate::from_der(own)
            .map_err(|_| invalid(CA_CERTIFICATE, "malformed"))?;
        if parsed
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .as_bytes()
            != Some(key.der_bytes())
        {
            return Err(invalid(
                CA_KEY,
                "the key does not belong to the certificate",
            ));
        }
        let (not_before, not_after) =
            validity(own).ok_or_else(|| invalid(CA_CERTIFICATE, "malformed"))?;
        if now < not_before || now >= not_after {
            return Err(invalid(CA_CERTIFICATE, "outside of its validity period"));
        }
        if is_renewal_due(own, now) {
            return Err(invalid(CA_CERTIFICATE, "renewal is due"));
        }
        Ok(Self {
            key,
            created: later(not_before, BACKDATING),
            not_after,
            trusted,
        })
    }

    /// Creates an authority that succeeds `former`.
    pub(crate) fn new(
        former: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(|error| invalid(CA_KEY, error))?;
        let mut params = authority_params();
        let not_after = later(now, AUTHORITY_LIFE);
        (params.not_before, params.not_after) = (date(earlier(now, BACKDATING)), date(not_after));
        let own = params
            .self_signed(&key)
            .map_err(|error| invalid(CA_CERTIFICATE, error))?
            .der()
            .clone();
        let mut trusted = vec![own];
        for certificate in former {
            let is_valid = validity(certificate).is_some_and(|(_, not_after)| now < not_after);
            if is_valid && !trusted.contains(certificate) && trusted.len() < MAX_AUTHORITIES {
                trusted.push(certificate.clone());
            }
        }
        Ok(Self {
            key,
            created: now,
            not_after,
            trusted,
        })
    }

    /// Issues a serving certificate for `names`. Returns certificate and key in PEM.
    pub(crate) fn issue(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(String, Secret), CertificateError> {
        let mut params =
            CertificateParams::new(names).map_err(|error| invalid(CERTIFICATE, error))?;
        params
            .distinguished_name
            .push(DnType::CommonName, "affix webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (
            date(earlier(now, BACKDATING)),
            date(later(now, LEAF_LIFE).min(self.not_after)),
        );
        let key = KeyPair::generate().map_err(|error| invalid(KEY, error))?;
        let issuer = Issuer::new(authority_params(), &self.key);
        let certificate = params
            .signed_by(&key, &issuer)
            .map_err(|error| invalid(CERTIFICATE, error))?;
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

/// Converts to whole seconds, the precision of certificates.
fn date(instant: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(instant.as_second())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}
