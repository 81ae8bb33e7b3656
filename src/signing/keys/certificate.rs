//! An X.509 certificate (RFC 5280) and notation's rules for it.
//!
//! `x509-cert` parses it, because the parsers of TLS stacks show neither key usage nor names and apply the rules for servers.
//! The algorithms with which rustls verifies chains check the signatures: they cover each pair of key and hash.

use k8s_openapi::jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::oid::db::rfc5280;
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_cert::name::Name;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Time;

use affix_registry::oci::cut;

use crate::signing::error::{CertificateProblem, KeyError};
use crate::signing::time::to_rfc3339;

/// The extended key usages that notation's verifiers refuse in a signing certificate.
const FORBIDDEN_EXTENDED_USAGES: [(ObjectIdentifier, &str); 5] = [
    (rfc5280::ID_KP_SERVER_AUTH, "server auth"),
    (rfc5280::ID_KP_CLIENT_AUTH, "client auth"),
    (rfc5280::ID_KP_EMAIL_PROTECTION, "email protection"),
    (rfc5280::ID_KP_TIME_STAMPING, "timestamping"),
    (rfc5280::ID_KP_OCSP_SIGNING, "ocsp signing"),
];

/// A parsed certificate and its DER.
pub(super) struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
    key_usage: Option<(bool, KeyUsage)>,
    extended_key_usage: Option<ExtendedKeyUsage>,
    basic_constraints: Option<BasicConstraints>,
}

/// An error in the encoding of a certificate.
pub(super) enum ParseError {
    /// The bytes are not a certificate.
    Malformed,
    /// The extensions are broken.
    Extensions(KeyError),
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Result<Self, ParseError> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| ParseError::Malformed)?;
        let tbs = &parsed.tbs_certificate;
        let subject = cut(&tbs.subject.to_string());
        let broken = |_| {
            ParseError::Extensions(KeyError::Certificate {
                subject: subject.clone(),
                problem: CertificateProblem::MalformedExtensions,
            })
        };
        let key_usage = tbs.get::<KeyUsage>().map_err(broken)?;
        let extended_key_usage = tbs
            .get::<ExtendedKeyUsage>()
            .map_err(broken)?
            .map(|(_, usage)| usage);
        let basic_constraints = tbs
            .get::<BasicConstraints>()
            .map_err(broken)?
            .map(|(_, constraints)| constraints);
        Ok(Self {
            der: der.to_vec(),
            key_usage,
            extended_key_usage,
            basic_constraints,
            parsed,
        })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the name of the subject for messages.
    pub(super) fn subject(&self) -> String {
        name(&self.parsed.tbs_certificate.subject)
    }

    /// Returns the name of the issuer for messages.
    pub(super) fn issuer(&self) -> String {
        name(&self.parsed.tbs_certificate.issuer)
    }

    /// Returns `problem` as an error of this certificate.
    pub(super) fn refused(&self, problem: CertificateProblem) -> KeyError {
        KeyError::Certificate {
            subject: self.subject(),
            problem,
        }
    }

    /// Returns the end of the validity.
    pub(super) fn not_after(&self) -> Timestamp {
        instant(&self.parsed.tbs_certificate.validity.not_after)
    }

    /// Returns true if the certificate is for the key `public`, given as the bit string holds it.
    pub(super) fn certifies(&self, public: &[u8]) -> bool {
        self.parsed
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .as_bytes()
            == Some(public)
    }

    pub(super) fn is_self_signed(&self) -> bool {
        self.is_issued_by(self)
    }

    /// Returns true if `issuer` has the name and the key of the issuer of this certificate.
    pub(super) fn is_issued_by(&self, issuer: &Self) -> bool {
        self.parsed.tbs_certificate.issuer == issuer.parsed.tbs_certificate.subject
            && self.is_signed_with_key_of(issuer) == Some(true)
    }

    fn is_signed_with_key_of(&self, issuer: &Self) -> Option<bool> {
        let key = &issuer.parsed.tbs_certificate.subject_public_key_info;
        let algorithm = self.parsed.signature_algorithm.to_der().ok()?;
        let algorithm = AnyRef::from_der(&algorithm).ok()?.value();
        let signed = signed_part(&self.der)?;
        is_signed_with(
            key,
            Some(algorithm),
            signed,
            self.parsed.signature.as_bytes()?,
        )
    }

    pub(super) fn check_validity(&self, at: Timestamp) -> Result<(), KeyError> {
        let (from, until) = (
            instant(&self.parsed.tbs_certificate.validity.not_before),
            self.not_after(),
        );
        if from <= at && at <= until {
            return Ok(());
        }
        Err(self.refused(CertificateProblem::OutsideValidity {
            from: to_rfc3339(from),
            until: to_rfc3339(until),
        }))
    }

    /// Checks notation's rules for the signing certificate.
    pub(super) fn check_as_signer(&self) -> Result<(), KeyError> {
        if self
            .basic_constraints
            .as_ref()
            .is_some_and(|constraints| constraints.ca)
        {
            return Err(self.refused(CertificateProblem::SignerIsAuthority));
        }
        let usage = self.critical_key_usage()?;
        if !usage.digital_signature() {
            return Err(self.refused(CertificateProblem::NoDigitalSignature));
        }
        let forbidden = [
            (usage.key_encipherment(), "key encipherment"),
            (usage.data_encipherment(), "data encipherment"),
            (usage.key_agreement(), "key agreement"),
            (usage.key_cert_sign(), "certificate signing"),
            (usage.crl_sign(), "CRL signing"),
            (usage.encipher_only(), "encipher only"),
            (usage.decipher_only(), "decipher only"),
        ];
        let usages: Vec<&str> = forbidden
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| *name)
            .collect();
        if !usages.is_empty() {
            return Err(self.refused(CertificateProblem::ForbiddenKeyUsage {
                usages: usages.join(", "),
            }));
        }
        let extended: Vec<&str> = FORBIDDEN_EXTENDED_USAGES
            .iter()
            .filter(|(usage, _)| {
                self.extended_key_usage
                    .as_ref()
                    .is_some_and(|has| has.0.contains(usage))
            })
            .map(|(_, name)| *name)
            .collect();
        if !extended.is_empty() {
            return Err(self.refused(CertificateProblem::ForbiddenExtendedKeyUsage {
                usages: extended.join(", "),
            }));
        }
        Ok(())
    }

    /// Checks notation's rules for an issuer that has `below` intermediate certificates under it.
    pub(super) fn check_as_issuer(&self, below: usize) -> Result<(), KeyError> {
        let constraints = self
            .basic_constraints
            .as_ref()
            .filter(|constraints| constraints.ca);
        let constraints =
            constraints.ok_or_else(|| self.refused(CertificateProblem::NoAuthority))?;
        if let Some(allowed) = constraints
            .path_len_constraint
            .filter(|allowed| usize::from(*allowed) < below)
        {
            return Err(self.refused(CertificateProblem::PathLength {
                allowed,
                found: below,
            }));
        }
        if !self.critical_key_usage()?.key_cert_sign() {
            return Err(self.refused(CertificateProblem::NoCertificateSigning));
        }
        Ok(())
    }

    fn critical_key_usage(&self) -> Result<KeyUsage, KeyError> {
        match self.key_usage {
            None => Err(self.refused(CertificateProblem::NoKeyUsage)),
            Some((false, _)) => Err(self.refused(CertificateProblem::KeyUsageNotCritical)),
            Some((true, usage)) => Ok(usage),
        }
    }
}

/// Returns whether `key` signed `message` with `algorithm`, or with any algorithm of its kind if there is none. `None`: the key is malformed.
pub(in crate::signing) fn is_signed_with(
    key: &SubjectPublicKeyInfoOwned,
    algorithm: Option<&[u8]>,
    message: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let kind = key.algorithm.to_der().ok()?;
    let kind = AnyRef::from_der(&kind).ok()?.value();
    let key = key.subject_public_key.as_bytes()?;
    let algorithms = default_provider().signature_verification_algorithms.all;
    let mut fitting = algorithms.iter().filter(|known| {
        known.public_key_alg_id().as_ref() == kind
            && algorithm.is_none_or(|algorithm| known.signature_alg_id().as_ref() == algorithm)
    });
    Some(fitting.any(|known| known.verify_signature(key, message, signature).is_ok()))
}

fn name(name: &Name) -> String {
    cut(&name.to_string())
}

fn instant(time: &Time) -> Timestamp {
    let since_epoch = time.to_unix_duration().as_secs();
    i64::try_from(since_epoch)
        .ok()
        .and_then(|second| Timestamp::from_second(second).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Returns the bytes of the first element of a certificate, which are the signed ones.
fn signed_part(der: &[u8]) -> Option<&[u8]> {
    let certificate = AnyRef::from_der(der).ok()?.value();
    SliceReader::new(certificate).ok()?.tlv_bytes().ok()
}
