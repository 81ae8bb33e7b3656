//! The certificates that travel with a notation signature, from the key's own to the self-signed root.
//!
//! Owns the checks that notation's verifiers make (notaryproject, signature-specification.md, "Certificate Requirements"), so
//! that a key that nobody would accept is refused before it signs. It refuses to put a chain in order: whoever issued
//! certificates in another order may have meant another chain.

use k8s_openapi::jiff::Timestamp;

use affix_registry::oci::Digest;

use super::certificate::{Certificate, Unreadable};
use super::error::{CertificateProblem, KeyError};
use super::notation_key::NotationKey;
use super::pem;

const CHAIN: &str = "tls.crt";
const ROOTS: &str = "ca.crt";

/// More certificates than any chain has, and few enough to check each against each.
const MOST: usize = 32;

/// A complete chain: never empty, the signing certificate first, the root last.
pub(super) struct CertificateChain {
    certificates: Vec<Certificate>,
}

impl CertificateChain {
    /// The chain of `tls.crt`, with what it lacks towards the root taken from `ca.crt`, checked for signing with `key` at `now`.
    pub(super) fn assemble(
        chain: &[u8],
        roots: Option<&[u8]>,
        key: &NotationKey,
        now: Timestamp,
    ) -> Result<Self, KeyError> {
        let mut certificates = parse(CHAIN, chain)?;
        let signer = certificates.first().ok_or(KeyError::NoPem {
            file: CHAIN,
            expected: "CERTIFICATE",
        })?;
        if !signer.certifies(key.public()) {
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
        complete.check_validity(now)?;
        Ok(complete)
    }

    /// Whether each certificate is valid at `at`.
    pub(super) fn check_validity(&self, at: Timestamp) -> Result<(), KeyError> {
        self.certificates
            .iter()
            .try_for_each(|certificate| certificate.check_validity(at))
    }

    /// When the first of the certificates ends.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        self.certificates.iter().map(Certificate::not_after).min()
    }

    /// The certificates' DER in order.
    pub(super) fn ders(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(Certificate::der)
    }

    /// Each certificate's SHA-256, in order.
    pub(super) fn thumbprints(&self) -> Vec<String> {
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

/// Whether each certificate was issued by the next, as far as they go.
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

fn parse(file: &'static str, bytes: &[u8]) -> Result<Vec<Certificate>, KeyError> {
    let blocks = pem::blocks(bytes).map_err(|_| KeyError::DamagedPem { file })?;
    if blocks.len() > MOST {
        return Err(KeyError::TooManyCertificates {
            file,
            count: blocks.len(),
            most: MOST,
        });
    }
    let parse = |(nth, block): (usize, pem::Block<'_>)| {
        if !matches!(
            block.label,
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"
        ) {
            return Err(KeyError::UnexpectedPem {
                file,
                found: affix_registry::oci::cut(block.label),
                expected: "CERTIFICATE",
            });
        }
        Certificate::parse(&block.contents).map_err(|error| match error {
            Unreadable::Malformed => KeyError::MalformedCertificate {
                file,
                position: nth + 1,
            },
            Unreadable::Extensions(error) => error,
        })
    };
    blocks.into_iter().enumerate().map(parse).collect()
}
