//! The certificate authorities of a pass: the PEM bundle `ca.crt`.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::RegistryError;

/// The certificates of a PEM bundle. An unreadable one does not affect the others.
#[derive(Debug, Clone)]
pub(crate) struct AuthorityBundle {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// At most [`MAX_WARNINGS`].
    pub(crate) warnings: Vec<String>,
}

/// Maximum number of unreadable certificates that are named.
const MAX_WARNINGS: usize = 8;
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

impl AuthorityBundle {
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

    /// Returns the bundle if it has any certificate.
    ///
    /// # Errors
    /// `CertificateInvalid` if no certificate in it is readable.
    pub(crate) fn usable(self) -> Result<Self, RegistryError> {
        if !self.certificates.is_empty() {
            return Ok(self);
        }
        let why = if self.warnings.is_empty() {
            "it holds no PEM of a certificate".to_owned()
        } else {
            format!(
                "no certificate in it is readable: {}",
                self.warnings.join("; ")
            )
        };
        Err(RegistryError::InvalidCertificate {
            what: "certificate authority (ca.crt)",
            why,
        })
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
                let bundle = AuthorityBundle::parse(pem.as_bytes());
                assert_eq!(bundle.certificates.len(), 2, "{pem}");
                let warning = bundle.warnings.concat();
                let named = format!("certificate {position} of ca.crt is skipped: ");
                assert!(
                    warning.starts_with(&named) && !warning.contains("hunter2"),
                    "{warning}"
                );
                assert_eq!(bundle.usable().unwrap().certificates.len(), 2);
            }
            let error = AuthorityBundle::parse(odd.as_bytes())
                .usable()
                .err()
                .unwrap();
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
            proptest::prop_assert!(AuthorityBundle::parse(&pem).certificates.len() >= 2);
            let _ = AuthorityBundle::parse(&odd);
        }
    }
}
