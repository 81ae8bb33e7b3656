//! Serving certificates: parsing from PEM, and verification as a TLS client performs it. Pure; the
//! clock is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;

use affix_registry::Secret;

/// Keys of the Secret. The names match cert-manager, except for `ca.key`.
pub(crate) const CA_CERTIFICATE: &str = "ca.crt";
pub(crate) const CA_KEY: &str = "ca.key";
pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";

/// The data of the Secret.
pub(crate) type Data = BTreeMap<String, Secret>;

/// A certificate that cannot be used or created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {reason}")]
pub(crate) struct CertificateError {
    part: &'static str,
    reason: String,
}

pub(crate) fn invalid(part: &'static str, reason: impl std::fmt::Display) -> CertificateError {
    CertificateError {
        part,
        reason: reason.to_string(),
    }
}

/// A serving certificate with its private key.
#[derive(Debug, Clone)]
pub(crate) struct ServingCertificate {
    /// Chain and private key for handshakes.
    pub(crate) key: Arc<CertifiedKey>,
    /// The leaf certificate.
    pub(crate) leaf: CertificateDer<'static>,
    /// End of its validity.
    pub(crate) not_after: Timestamp,
}

impl PartialEq for ServingCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.leaf == other.leaf
    }
}

impl ServingCertificate {
    /// Parses `tls.crt` and `tls.key`.
    pub(crate) fn read(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = certificates(certificate, CERTIFICATE)?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(invalid(CERTIFICATE, "no certificate in PEM"));
        };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| invalid(KEY, "no private key in PEM"))?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|_| invalid(KEY, "unsupported type of private key"))?;
        let (_, not_after) = validity(&leaf).ok_or_else(|| invalid(CERTIFICATE, "malformed"))?;
        let key = CertifiedKey::new(chain, signer);
        key.keys_match()
            .map_err(|_| invalid(KEY, "the key does not belong to the certificate"))?;
        Ok(Self {
            key: Arc::new(key),
            leaf,
            not_after,
        })
    }

    /// Verifies the certificate at `now` for every name, as a client that trusts `authorities` does.
    pub(crate) fn verify(
        &self,
        authorities: &[CertificateDer<'static>],
        names: &[String],
        now: Timestamp,
    ) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| invalid(CA_CERTIFICATE, error))?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(now.as_second()).unwrap_or_default(),
        ));
        let intermediates = self.key.cert.get(1..).unwrap_or_default();
        for name in names {
            let name = ServerName::try_from(name.as_str()).map_err(|_| {
                invalid(
                    CERTIFICATE,
                    format_args!("{name:?} is not a host name or IP address"),
                )
            })?;
            verifier
                .verify_server_cert(&self.leaf, intermediates, &name, &[], time)
                .map_err(|error| invalid(CERTIFICATE, error))?;
        }
        Ok(())
    }
}

/// Returns whether two thirds of the validity have passed.
pub(crate) fn is_renewal_due(certificate: &CertificateDer<'_>, now: Timestamp) -> bool {
    validity(certificate).is_none_or(|(not_before, not_after)| {
        let life = not_after.as_second() - not_before.as_second();
        now.as_second() - not_before.as_second() >= life / 3 * 2
    })
}

/// Returns `notBefore` and `notAfter`.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let instant = |time: x509_cert::time::Time| {
        Timestamp::from_second(i64::try_from(time.to_unix_duration().as_secs()).ok()?).ok()
    };
    let validity = parsed.tbs_certificate.validity;
    Some((instant(validity.not_before)?, instant(validity.not_after)?))
}

pub(crate) fn certificates(
    pem: &[u8],
    part: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid(part, "not PEM"))
}

/// Encodes certificates in PEM.
pub(crate) fn pem(certificates: &[CertificateDer<'static>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in certificates {
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
