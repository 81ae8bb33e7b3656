//! Verification of the certificate that a server presents.
//!
//! webpki decides first. Unlike Go, it refuses a certificate of an authority as that of a server
//! (`CaUsedAsEndEntity`), which is the form that `openssl req -x509` makes. A certificate that is
//! itself in `ca.crt` or among the system's is therefore accepted for its names and dates. A refusal names its cause.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};

use super::system_roots::{is_of_system, system_roots};

/// `md5WithRSAEncryption`, two identifiers of SHA-1 with RSA, and `ecdsa-with-SHA1`.
const WEAK_SIGNATURES: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.3.14.3.2.29"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
];
/// `serverAuth` and `anyExtendedKeyUsage` (RFC 5280, section 4.2.1.12).
const SERVER_USAGES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),
    ObjectIdentifier::new_unwrap("2.5.29.37.0"),
];

/// A cause of a refusal for which rustls has no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The certificate has no subject alternative name.
    NoNames,
    /// The certificate or an intermediate is signed with MD5 or SHA-1.
    WeakSignature,
    /// The certificate is that of an authority, and is not itself in `ca.crt`.
    Authority,
    /// Neither the system nor `ca.crt` has an authority.
    NothingTrusted,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNames => {
                "the registry's certificate has no subject alternative name (SAN): issue it again with one, since the common name does not count"
            }
            Self::WeakSignature => {
                "the registry's certificate is signed with SHA-1 or MD5: issue it again with SHA-256"
            }
            Self::Authority => {
                "the registry's certificate is that of an authority (CA:TRUE) and is not trusted: name this certificate itself in ca.crt of certSecretRef"
            }
            Self::NothingTrusted => {
                "there is no certificate authority on this system: set SSL_CERT_FILE, or name one in ca.crt"
            }
        })
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// Verifies by webpki, and accepts the pinned certificates themselves.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Made at the first handshake. `None` if no authority is trusted, for which rustls has no verifier.
    webpki: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    /// The certificates of `ca.crt`.
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Returns a verifier that trusts the system's authorities and those of `pinned`.
    pub(super) fn new(pinned: Vec<CertificateDer<'static>>) -> Self {
        Self {
            webpki: OnceLock::new(),
            pinned,
            algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
        }
    }

    fn webpki(&self) -> Result<&WebPkiServerVerifier, Error> {
        let made = self.webpki.get_or_init(|| {
            let mut roots = system_roots().clone();
            roots.add_parsable_certificates(self.pinned.iter().cloned());
            let provider = Arc::new(aws_lc_rs::default_provider());
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .ok()
        });
        made.as_deref()
            .ok_or_else(|| Refusal::NothingTrusted.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let error = match self.webpki()?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ) {
            Ok(verified) => return Ok(verified),
            Err(Error::InvalidCertificate(error)) => error,
            Err(error) => return Err(error),
        };
        let is_pinned = self
            .pinned
            .iter()
            .any(|pinned| pinned.as_ref() == end_entity.as_ref());
        if is_pinned || is_of_system(end_entity) {
            return match verify_pinned(end_entity, server_name, now) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(Error::InvalidCertificate(error)) => Err(named(error, end_entity, &[])),
                Err(error) => Err(error),
            };
        }
        Err(named(error, end_entity, intermediates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies the dates, the usage and the names of a certificate that is trusted itself.
fn verify_pinned(
    end_entity: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    let certificate = Certificate::from_der(end_entity)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let validity = &certificate.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    let usage = certificate.tbs_certificate.get::<ExtendedKeyUsage>();
    let is_for_servers = match usage {
        Ok(None) => true,
        Ok(Some((_, ExtendedKeyUsage(usages)))) => {
            usages.iter().any(|usage| SERVER_USAGES.contains(usage))
        }
        Err(_) => false,
    };
    if !is_for_servers {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
}

/// Returns the error with a cause that rustls does not name.
fn named(
    error: CertificateError,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Error {
    match &error {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            return Refusal::NoNames.into();
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. }
        | CertificateError::NotValidForName
        | CertificateError::NotValidForNameContext { .. }
        | CertificateError::InvalidPurpose
        | CertificateError::InvalidPurposeContext { .. }
        | CertificateError::UnknownIssuer => return Error::InvalidCertificate(error),
        _ => {}
    }
    let read = |der: &CertificateDer<'_>| Certificate::from_der(der).ok();
    let is_weak =
        |certificate: &Certificate| WEAK_SIGNATURES.contains(&certificate.signature_algorithm.oid);
    let presented = read(end_entity);
    if presented.as_ref().is_some_and(is_weak)
        || intermediates
            .iter()
            .filter_map(read)
            .any(|one| is_weak(&one))
    {
        return Refusal::WeakSignature.into();
    }
    let constraints =
        presented.and_then(|one| one.tbs_certificate.get::<BasicConstraints>().ok()?);
    if constraints.is_some_and(|(_, constraints)| constraints.ca) {
        return Refusal::Authority.into();
    }
    Error::InvalidCertificate(error)
}
