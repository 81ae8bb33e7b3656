//! The certificate that all replicas share: the validation of the Secret and its replacement. Pure; the
//! clock is an argument.
//!
//! `ca.crt` begins with the current authority. Its predecessor stays in the list for an hour, because
//! some replicas may still serve a certificate that it issued.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use crate::admission::certificates::authority::{Authority, later};
use crate::admission::certificates::certificate::{
    CA_CERTIFICATE, CA_KEY, CERTIFICATE, CertificateError, Data, KEY, ServingCertificate,
    certificates, invalid, is_renewal_due, pem,
};
use affix_registry::Secret;

/// Time for which a replaced authority stays trusted.
const OVERLAP: Duration = Duration::from_hours(1);

/// The content of a valid Secret.
#[derive(Debug, Clone)]
pub(crate) struct SharedCertificate {
    /// Trusted authorities, the current one first.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    /// The serving certificate.
    pub(crate) certificate: ServingCertificate,
}

impl SharedCertificate {
    /// Returns the authorities in the format of `caBundle`.
    pub(crate) fn bundle(&self) -> String {
        pem(&self.authorities)
    }
}

/// The state of the Secret.
#[derive(Debug)]
pub(crate) enum Assessment {
    /// The Secret is valid and needs no change.
    Usable(SharedCertificate),
    /// The Secret must be replaced.
    Replace {
        /// The new data.
        data: Data,
        /// The parsed new data.
        shared: SharedCertificate,
        /// The defect of the old data.
        reason: String,
    },
}

/// Assesses the data of the Secret (empty if it does not exist). `serving` lists the authorities of the
/// certificate in use; a new authority keeps them trusted.
pub(crate) fn assess(
    data: &Data,
    names: &[String],
    serving: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Assessment, CertificateError> {
    let authority = match Authority::read(data, now) {
        Ok(authority) => authority,
        Err(error) => {
            let mut former = data
                .get(CA_CERTIFICATE)
                .and_then(|pem| certificates(pem.expose(), CA_CERTIFICATE).ok())
                .unwrap_or_default();
            former.extend_from_slice(serving);
            return replace(
                &Authority::new(&former, now)?,
                names,
                now,
                error.to_string(),
            );
        }
    };
    let certificate = match leaf(data, &authority, names, now) {
        Ok(certificate) => certificate,
        Err(error) => return replace(&authority, names, now, error.to_string()),
    };
    if authority.trusted.len() > 1 && now > later(authority.created, OVERLAP) {
        let alone = Authority {
            trusted: authority.trusted.iter().take(1).cloned().collect(),
            ..authority
        };
        return replace(
            &alone,
            names,
            now,
            "the former authority is no longer needed".to_owned(),
        );
    }
    Ok(Assessment::Usable(SharedCertificate {
        authorities: authority.trusted,
        certificate,
    }))
}

/// Returns the serving certificate of the Secret, or its defect.
fn leaf(
    data: &Data,
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<ServingCertificate, CertificateError> {
    let part = |key: &'static str| {
        data.get(key)
            .map(Secret::expose)
            .ok_or_else(|| invalid(key, "missing"))
    };
    let certificate = ServingCertificate::read(part(CERTIFICATE)?, part(KEY)?)?;
    certificate.verify(authority.trusted.get(..1).unwrap_or_default(), names, now)?;
    if is_renewal_due(&certificate.leaf, now) {
        return Err(invalid(CERTIFICATE, "renewal is due"));
    }
    Ok(certificate)
}

fn replace(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
    reason: String,
) -> Result<Assessment, CertificateError> {
    let (certificate, key) = authority.issue(names, now)?;
    let shared = SharedCertificate {
        authorities: authority.trusted.clone(),
        certificate: ServingCertificate::read(certificate.as_bytes(), key.expose())?,
    };
    let data = Data::from([
        (CA_CERTIFICATE.to_owned(), pem(&authority.trusted).into()),
        (CA_KEY.to_owned(), authority.key.serialize_pem().into()),
        (CERTIFICATE.to_owned(), certificate.into()),
        (KEY.to_owned(), key),
    ]);
    Ok(Assessment::Replace {
        data,
        shared,
        reason,
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
mod tests {
    use super::*;
    use crate::admission::certificates::authority::earlier;

    const HOUR: Duration = Duration::from_hours(1);

    fn names() -> Vec<String> {
        vec![
            "affix-webhook.affix-system.svc".to_owned(),
            "127.0.0.1".to_owned(),
        ]
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn replaced(data: &Data, at: Timestamp) -> (Data, SharedCertificate, String) {
        match assess(data, &names(), &[], at).unwrap() {
            Assessment::Replace {
                data,
                shared,
                reason,
            } => (data, shared, reason),
            Assessment::Usable(_) => panic!("the certificate is still valid"),
        }
    }

    fn usable(data: &Data, at: Timestamp) -> Option<SharedCertificate> {
        match assess(data, &names(), &[], at).unwrap() {
            Assessment::Usable(shared) => Some(shared),
            Assessment::Replace { .. } => None,
        }
    }

    #[test]
    fn a_created_certificate_covers_all_names_and_is_renewed_after_two_thirds() {
        let (data, shared, reason) = replaced(&Data::new(), now());
        assert_eq!(reason, "ca.crt: missing");
        shared
            .certificate
            .verify(&shared.authorities, &names(), now())
            .unwrap();
        assert!(
            shared
                .certificate
                .verify(&shared.authorities, &["other.svc".to_owned()], now())
                .is_err()
        );
        assert!(usable(&data, later(now(), HOUR * 24 * 4)).is_some());
        let (renewed, again, reason) = replaced(&data, later(now(), HOUR * 24 * 5));
        assert_eq!(reason, "tls.crt: renewal is due");
        assert_eq!(
            (again.authorities.clone(), renewed["ca.key"].expose()),
            (shared.authorities, data["ca.key"].expose())
        );
        assert_ne!(again.certificate, shared.certificate);
    }

    #[test]
    fn a_clock_30_days_ahead_renews_the_certificate_and_keeps_the_authority() {
        let (data, shared, _) = replaced(&Data::new(), now());
        let then = later(now(), HOUR * 24 * 30);
        let (data, again, _) = replaced(&data, then);
        assert_eq!(again.authorities, shared.authorities);
        again
            .certificate
            .verify(&again.authorities, &names(), then)
            .unwrap();
        assert!(usable(&data, then).is_some());
        // With a clock that moved back, neither certificate is valid yet.
        let (_, back, _) = replaced(&data, earlier(now(), HOUR * 24 * 30));
        assert_ne!(back.authorities.first(), shared.authorities.first());
    }

    #[test]
    fn a_new_authority_keeps_its_predecessor_trusted_for_an_hour() {
        let (data, first, _) = replaced(&Data::new(), now());
        let then = later(now(), HOUR * 24 * 244);
        let (data, second, reason) = replaced(&data, then);
        assert_eq!(reason, "ca.crt: renewal is due");
        assert_eq!(second.authorities.len(), 2);
        assert_eq!(second.authorities.last(), first.authorities.first());
        first
            .certificate
            .verify(&second.authorities, &names(), now())
            .unwrap();
        assert!(usable(&data, later(then, HOUR)).is_some());
        let (data, alone, _) = replaced(&data, later(then, HOUR * 2));
        assert_eq!(alone.authorities.as_slice(), &second.authorities[..1]);
        assert!(usable(&data, later(then, HOUR * 2)).is_some());
    }

    #[test]
    fn the_authority_in_use_stays_trusted_after_the_secret_is_deleted() {
        let (_, first, _) = replaced(&Data::new(), now());
        let Assessment::Replace { shared, .. } =
            assess(&Data::new(), &names(), &first.authorities, now()).unwrap()
        else {
            panic!()
        };
        assert_eq!(shared.authorities.get(1), first.authorities.first());
    }

    #[test]
    fn a_truncated_or_foreign_part_of_the_secret_is_replaced() {
        let (data, _, _) = replaced(&Data::new(), now());
        let (other, _, _) = replaced(&Data::new(), now());
        for key in data.keys() {
            let half = data[key].expose();
            let half = half.get(..half.len() / 2).unwrap().to_vec();
            for broken in [
                Secret::new(half),
                other[key].clone(),
                Secret::new(Vec::new()),
            ] {
                let mut damaged = data.clone();
                damaged.insert(key.clone(), broken);
                let (mended, shared, _) = replaced(&damaged, now());
                shared
                    .certificate
                    .verify(&shared.authorities, &names(), now())
                    .unwrap();
                assert!(usable(&mended, now()).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn an_additional_name_is_certified_immediately() {
        let (data, _, _) = replaced(&Data::new(), now());
        let more = vec!["affix-webhook.other.svc".to_owned()];
        let Assessment::Replace { shared, .. } = assess(&data, &more, &[], now()).unwrap() else {
            panic!("the certificate is still valid")
        };
        shared
            .certificate
            .verify(&shared.authorities, &more, now())
            .unwrap();
    }
}
