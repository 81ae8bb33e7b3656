//! The certificates in a notation signature, from the signing certificate to the self-signed root.
//!
//! Checks the rules of notation's verifiers (notaryproject, signature-specification.md, "Certificate Requirements") before a
//! key signs. A chain in another order is an error and is not sorted, because it can be another chain than the intended one.

use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::Digest;

use super::certificate::{Certificate, ParseError};
use super::notation_key::NotationKey;
use super::pem;
use crate::signing::error::{CertificateProblem, KeyError};

const CHAIN: &str = "tls.crt";
const ROOTS: &str = "ca.crt";

/// The maximum number of certificates in a file. Each is checked against each.
const MAX_CERTIFICATES: usize = 32;

/// A complete chain: the signing certificate first, the root last, never empty.
pub(in crate::signing) struct CertificateChain {
    certificates: Vec<Certificate>,
}

impl CertificateChain {
    /// Builds the chain of `tls.crt`, completed with issuers from `ca.crt`, and checks it for signing with `key`, at `now`
    /// if that is given.
    pub(in crate::signing) fn assemble(
        chain: &[u8],
        roots: Option<&[u8]>,
        key: &NotationKey,
        now: Option<Timestamp>,
    ) -> Result<Self, KeyError> {
        let mut certificates = parse(CHAIN, chain)?;
        let signer = certificates.first().ok_or(KeyError::NoPem {
            file: CHAIN,
            expected: "CERTIFICATE",
        })?;
        if !signer.certifies(key.public_bits()) {
            return Err(KeyError::KeyOfAnotherCertificate {
                subject: signer.subject(),
            });
        }
        check_order(&certificates)?;
        complete(
            &mut certificates,
            roots.map_or_else(|| Ok(Vec::new()), |roots| parse(ROOTS, roots))?,
        )?;
        let complete = Self { certificates };
        complete.check_usages()?;
        now.map_or(Ok(()), |now| complete.check_validity(now))?;
        Ok(complete)
    }

    /// Checks that each certificate is valid at `at`.
    pub(in crate::signing) fn check_validity(&self, at: Timestamp) -> Result<(), KeyError> {
        self.certificates
            .iter()
            .try_for_each(|certificate| certificate.check_validity(at))
    }

    /// Returns the earliest end of the certificates' validity.
    pub(in crate::signing) fn not_after(&self) -> Option<Timestamp> {
        self.certificates.iter().map(Certificate::not_after).min()
    }

    /// Returns the DER of the certificates in order.
    pub(in crate::signing) fn ders(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(Certificate::der)
    }

    /// Returns the SHA-256 of each certificate in order.
    pub(in crate::signing) fn thumbprints(&self) -> Vec<String> {
        self.ders()
            .map(|der| Digest::sha256(der).hex().to_owned())
            .collect()
    }

    fn check_usages(&self) -> Result<(), KeyError> {
        let mut certificates = self.certificates.iter();
        certificates
            .next()
            .map_or(Ok(()), Certificate::check_as_signer)?;
        certificates
            .enumerate()
            .try_for_each(|(below, certificate)| certificate.check_as_issuer(below))
    }
}

/// Checks that each certificate was issued by the next one.
fn check_order(certificates: &[Certificate]) -> Result<(), KeyError> {
    for (certificate, next) in certificates.iter().zip(certificates.iter().skip(1)) {
        if certificate.is_self_signed() {
            return Err(certificate.refused(CertificateProblem::RootNotLast));
        }
        if !certificate.is_issued_by(next) {
            return Err(certificate.refused(CertificateProblem::NotIssuedByNext {
                next: next.subject(),
            }));
        }
    }
    Ok(())
}

/// Adds issuers from `candidates` until the last certificate is self-signed.
fn complete(
    certificates: &mut Vec<Certificate>,
    mut candidates: Vec<Certificate>,
) -> Result<(), KeyError> {
    while let Some(last) = certificates.last().filter(|last| !last.is_self_signed()) {
        let Some(position) = candidates
            .iter()
            .position(|candidate| last.is_issued_by(candidate))
        else {
            return Err(last.refused(CertificateProblem::RootMissing {
                issuer: last.issuer(),
            }));
        };
        let issuer = candidates.swap_remove(position);
        certificates.push(issuer);
    }
    Ok(())
}

/// Returns the DER of the certificates in a PEM file.
///
/// # Errors
/// If the file has too many certificates, or a malformed one.
pub(in crate::signing) fn certificates_of(
    file: &'static str,
    pem: &[u8],
) -> Result<Vec<Vec<u8>>, KeyError> {
    let certificates = parse(file, pem)?;
    Ok(certificates.iter().map(|it| it.der().to_vec()).collect())
}

fn parse(file: &'static str, bytes: &[u8]) -> Result<Vec<Certificate>, KeyError> {
    let blocks = pem::blocks(bytes).map_err(|_| KeyError::DamagedPem { file })?;
    if blocks.len() > MAX_CERTIFICATES {
        return Err(KeyError::TooManyCertificates {
            file,
            count: blocks.len(),
            most: MAX_CERTIFICATES,
        });
    }
    let parse = |(nth, block): (usize, pem::Block)| {
        if !matches!(
            block.label.as_str(),
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"
        ) {
            return Err(KeyError::UnexpectedPem {
                file,
                found: affix_registry::oci::cut(&block.label),
                expected: "CERTIFICATE",
            });
        }
        Certificate::parse(&block.contents).map_err(|error| match error {
            ParseError::Malformed => KeyError::MalformedCertificate {
                file,
                position: nth + 1,
            },
            ParseError::Extensions(error) => error,
        })
    };
    blocks.into_iter().enumerate().map(parse).collect()
}
