//! The certificate authorities of a pass: a PEM bundle in addition to those of the system.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::RegistryError;

/// The name of the bundle in messages.
const WHAT: &str = "certificate authority (ca.crt)";

/// The authorities that a pass trusts.
pub(super) struct Authorities {
    /// The authorities of the system and of the bundle.
    pub(super) roots: Arc<RootCertStore>,
    /// The certificates of the bundle, which a server may present themselves.
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Returns the system's authorities and those of `pem`.
    ///
    /// # Errors
    /// `CertificateInvalid` if there is a bundle and no certificate in it is readable.
    pub(super) fn new(pem: Option<&[u8]>) -> Result<Self, RegistryError> {
        let Some(pem) = pem else {
            return Ok(Self {
                roots: Arc::clone(system_roots()),
                pinned: Vec::new(),
            });
        };
        let mut roots = RootCertStore::clone(system_roots());
        let bundle = Bundle::parse(pem);
        for warning in &bundle.warnings {
            tracing::warn!(%warning, "skipped a certificate authority");
        }
        for certificate in &bundle.certificates {
            // Each one was added to an empty store before.
            let _ = roots.add(certificate.clone());
        }
        if bundle.certificates.is_empty() {
            let why = if bundle.warnings.is_empty() {
                "it holds no PEM of a certificate".to_owned()
            } else {
                format!(
                    "no certificate in it is readable: {}",
                    bundle.warnings.join("; ")
                )
            };
            return Err(RegistryError::InvalidCertificate { what: WHAT, why });
        }
        Ok(Self {
            roots: Arc::new(roots),
            pinned: bundle.certificates,
        })
    }
}

/// The certificates of a PEM bundle. An unreadable one does not affect the others.
pub(crate) struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    /// At most [`MAX_WARNINGS`].
    pub(crate) warnings: Vec<String>,
}

/// Maximum number of unreadable certificates that are named.
const MAX_WARNINGS: usize = 8;
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

impl Bundle {
    /// Parses a bundle. Text between the certificates and PEM of other kinds are ignored.
    pub(crate) fn parse(pem: &[u8]) -> Self {
        let mut bundle = Self {
            certificates: Vec::new(),
            warnings: Vec::new(),
        };
        for (position, block) in blocks(pem).enumerate() {
            match certificate(block) {
                Ok(certificate) => bundle.certificates.push(certificate),
                Err(why) if bundle.warnings.len() < MAX_WARNINGS => bundle.warnings.push(format!(
                    "certificate {} of ca.crt is skipped: {why}",
                    position + 1
                )),
                Err(_) => {}
            }
        }
        bundle
    }
}

/// Returns the parts of a bundle that begin with a certificate. Each ends where the next begins.
fn blocks(pem: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = start(pem).and_then(|at| pem.get(at..));
    std::iter::from_fn(move || {
        let current = rest?;
        let after = current.get(BEGIN.len()..).unwrap_or_default();
        let end = start(after).map(|at| at + BEGIN.len());
        rest = end.and_then(|end| current.get(end..));
        current.get(..end.unwrap_or(current.len()))
    })
}

fn start(pem: &[u8]) -> Option<usize> {
    pem.windows(BEGIN.len()).position(|window| window == BEGIN)
}

fn certificate(block: &[u8]) -> Result<CertificateDer<'static>, &'static str> {
    let certificate = CertificateDer::from_pem_slice(block).map_err(|_| "its PEM is malformed")?;
    RootCertStore::empty()
        .add(certificate.clone())
        .map_err(|_| "it is not a valid X.509 certificate")?;
    Ok(certificate)
}

/// Returns the authorities of the system, which are read once per process.
pub(super) fn system_roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "cannot read some of the system's certificate authorities");
        }
        let mut roots = RootCertStore::empty();
        let (_, unreadable) = roots.add_parsable_certificates(loaded.certs);
        tracing::debug!(
            trusted = roots.len(),
            unreadable,
            "read the system's certificate authorities"
        );
        Arc::new(roots)
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn good() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["r.example.com".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    const ODD: [&str; 4] = [
        "-----BEGIN CERTIFICATE-----\nhunter2!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    ];

    #[test]
    fn one_unreadable_certificate_is_skipped_with_a_warning_that_names_it() {
        for odd in ODD {
            for (position, pem) in [
                (1, format!("{odd}{}# text\n{}", good(), good())),
                (2, format!("{}{odd}{}", good(), good())),
                (3, format!("{}{}{odd}", good(), good())),
            ] {
                let bundle = Bundle::parse(pem.as_bytes());
                assert_eq!(bundle.certificates.len(), 2, "{pem}");
                let warning = bundle.warnings.concat();
                let named = format!("certificate {position} of ca.crt is skipped: ");
                assert!(
                    warning.starts_with(&named) && !warning.contains("hunter2"),
                    "{warning}"
                );
                assert_eq!(
                    Authorities::new(Some(pem.as_bytes())).unwrap().pinned.len(),
                    2
                );
            }
            let error = Authorities::new(Some(odd.as_bytes())).err().unwrap();
            assert!(
                error.to_string().contains(
                    "(ca.crt) cannot be used: no certificate in it is readable: certificate 1"
                ),
                "{error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_between_certificates_leave_them_readable(
            odd in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            text in "[A-Za-z0-9+/= \n-]{0,120}",
        ) {
            let good = good();
            let block = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            let pem = [good.as_bytes(), &odd, b"\n", block.as_bytes(), good.as_bytes()].concat();
            proptest::prop_assert!(Bundle::parse(&pem).certificates.len() >= 2);
            let _ = Bundle::parse(&odd);
        }
    }
}
