//! The token of an authority: a signed message (RFC 5652) about the hash of a signature and a time (RFC 3161, section 2.4.2).

use std::time::Duration;

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use k8s_openapi::jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::oid::db::rfc5280::ID_KP_TIME_STAMPING as TIME_STAMPING;
use x509_cert::der::oid::db::{rfc5911, rfc6268};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectKeyIdentifier};

use super::request::Hash;
use crate::signing::keys::is_signed_with;

/// `id-ct-TSTInfo` (RFC 3161, section 2.4.2).
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
/// The maximum size of a token in bytes. Those of public authorities have 6 kB.
const MAX_BYTES: usize = 64 << 10;
/// The maximum number of certificates in a token. A chain of them is built.
const MAX_CERTIFICATES: usize = 16;

/// The reason for which a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::signing) enum TokenError {
    #[error("it is no token of RFC 3161 that affix can read")]
    Malformed,
    #[error("it is of something else")]
    OtherContent,
    #[error("its signature does not verify")]
    Signature,
    #[error(
        "its certificate is not for timestamps, not valid at its time, or not by a certificate of ca.crt: a token has the chain to the root, or \
         ca.crt has it"
    )]
    Certificate,
}

/// The parts of `TSTInfo` that are checked.
struct Info {
    hash: Hash,
    hashed: Vec<u8>,
    time: Timestamp,
}

/// Verifies a token over `signature` whose certificate leads to one of `roots`. Returns its time.
pub(super) fn verify(
    token: &[u8],
    signature: &[u8],
    roots: &[CertificateDer<'_>],
) -> Result<Timestamp, TokenError> {
    let signed = signed_data(token).ok_or(TokenError::Malformed)?;
    let content = signed.encap_content_info.econtent.as_ref();
    let content = content.ok_or(TokenError::Malformed)?.value();
    let info = info(content).ok_or(TokenError::Malformed)?;
    if info.hash.of(signature) != info.hashed {
        return Err(TokenError::OtherContent);
    }
    let [signer] = signed.signer_infos.0.as_slice() else {
        return Err(TokenError::Malformed);
    };
    let mut certificates = certificates(&signed, roots)?;
    let position = certificates
        .iter()
        .position(|certificate| is_of(&signer.sid, certificate))
        .ok_or(TokenError::Certificate)?;
    let certificate = certificates.swap_remove(position);
    if !signs(signer, content, &certificate).unwrap_or(false) {
        return Err(TokenError::Signature);
    }
    check_chain(&certificate, &certificates, roots, info.time).ok_or(TokenError::Certificate)?;
    Ok(info.time)
}

fn signed_data(token: &[u8]) -> Option<SignedData> {
    if token.len() > MAX_BYTES {
        return None;
    }
    let content = ContentInfo::from_der(token).ok()?;
    if content.content_type != rfc5911::ID_SIGNED_DATA {
        return None;
    }
    let signed: SignedData = content.content.decode_as().ok()?;
    (signed.encap_content_info.econtent_type == TST_INFO).then_some(signed)
}

/// Parses `TSTInfo`.
fn info(der: &[u8]) -> Option<Info> {
    let mut reader = SliceReader::new(der).ok()?;
    let (oid, hashed, time) = reader
        .sequence(|reader| {
            // The version and the policy.
            reader.decode::<AnyRef<'_>>()?;
            reader.decode::<ObjectIdentifier>()?;
            let (oid, hashed) = reader.sequence(|reader| {
                let oid = reader.sequence(|reader| {
                    let oid: ObjectIdentifier = reader.decode()?;
                    while !reader.is_finished() {
                        reader.decode::<AnyRef<'_>>()?;
                    }
                    Ok(oid)
                })?;
                let hashed: OctetStringRef<'_> = reader.decode()?;
                Ok((oid, hashed.as_bytes().to_vec()))
            })?;
            // The serial number.
            reader.decode::<AnyRef<'_>>()?;
            let time: AnyRef<'_> = reader.decode()?;
            while !reader.is_finished() {
                reader.decode::<AnyRef<'_>>()?;
            }
            Ok((oid, hashed, time))
        })
        .ok()?;
    let text = std::str::from_utf8(time.value()).ok()?;
    let is_time = time.tag() == Tag::GeneralizedTime;
    Some(Info {
        hash: Hash::of_oid(&oid.to_string())?,
        hashed,
        time: instant(text).filter(|_| is_time)?,
    })
}

/// Parses a time such as `20261129120000.5Z` (RFC 3161, section 2.4.2).
fn instant(text: &str) -> Option<Timestamp> {
    let part = |range: std::ops::Range<usize>| text.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, rest) = (part(8..10)?, part(10..12)?, text.get(12..)?);
    let time = format!("{year}-{month}-{day}T{hour}:{minute}:{rest}");
    rest.ends_with('Z').then(|| time.parse().ok()).flatten()
}

/// Returns the certificates of a token, and the roots: an authority may sign with a certificate that the verifier has.
fn certificates(
    signed: &SignedData,
    roots: &[CertificateDer<'_>],
) -> Result<Vec<Certificate>, TokenError> {
    let embedded = signed.certificates.iter().flat_map(|set| set.0.iter());
    let embedded = embedded.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate.clone()),
        CertificateChoices::Other(_) => None,
    });
    let roots = roots.iter();
    let roots = roots.filter_map(|root| Certificate::from_der(root.as_ref()).ok());
    let all: Vec<Certificate> = embedded.chain(roots).collect();
    if signed.certificates.as_ref().map_or(0, |set| set.0.len()) > MAX_CERTIFICATES {
        return Err(TokenError::Malformed);
    }
    Ok(all)
}

fn is_of(signer: &SignerIdentifier, certificate: &Certificate) -> bool {
    let tbs = &certificate.tbs_certificate;
    match signer {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            tbs.issuer == id.issuer && tbs.serial_number == id.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(id) => tbs
            .get::<SubjectKeyIdentifier>()
            .is_ok_and(|found| found.is_some_and(|(_, found)| found == *id)),
    }
}

/// Returns whether the key of a certificate signed the content (RFC 5652, sections 5.4 and 11). `None`: the signature is malformed.
fn signs(signer: &SignerInfo, content: &[u8], certificate: &Certificate) -> Option<bool> {
    let attributes = signer.signed_attrs.as_ref()?;
    let only = |oid: ObjectIdentifier| {
        let mut found = attributes
            .iter()
            .filter(move |attribute| attribute.oid == oid);
        let attribute = found.next().filter(|_| found.next().is_none())?;
        attribute
            .values
            .get(0)
            .filter(|_| attribute.values.len() == 1)
    };
    let kind: ObjectIdentifier = only(rfc6268::ID_CONTENT_TYPE)?.decode_as().ok()?;
    let stated = only(rfc6268::ID_MESSAGE_DIGEST)?;
    let hash = Hash::of_oid(&signer.digest_alg.oid.to_string())?;
    let is_of_content =
        stated.tag() == Tag::OctetString && stated.value() == hash.of(content) && kind == TST_INFO;
    let message = attributes.to_der().ok()?;
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let signature = signer.signature.as_bytes();
    Some(is_of_content && is_signed_with(key, None, &message, signature)?)
}

/// Checks that a certificate is for timestamps alone (RFC 3161, section 2.3) and leads to one of `roots` at the time `at`.
fn check_chain(
    certificate: &Certificate,
    others: &[Certificate],
    roots: &[CertificateDer<'_>],
    at: Timestamp,
) -> Option<()> {
    let usage: Option<(bool, ExtendedKeyUsage)> = certificate.tbs_certificate.get().ok()?;
    if !usage.is_some_and(|(is_critical, usage)| is_critical && usage.0 == [TIME_STAMPING]) {
        return None;
    }
    let der = |certificate: &Certificate| certificate.to_der().map(CertificateDer::from).ok();
    let certificate = der(certificate)?;
    let others: Vec<CertificateDer<'_>> = others.iter().filter_map(der).collect();
    let anchors: Vec<_> = roots
        .iter()
        .filter_map(|root| anchor_from_trusted_cert(root).ok())
        .collect();
    let time = Duration::from_secs(u64::try_from(at.as_second()).ok()?);
    // The authorities above may have no extended usage.
    let usage = KeyUsage::required_if_present(TIME_STAMPING.as_bytes());
    let algorithms = default_provider().signature_verification_algorithms.all;
    let certificate = EndEntityCert::try_from(&certificate).ok()?;
    certificate
        .verify_for_usage(
            algorithms,
            &anchors,
            &others,
            UnixTime::since_unix_epoch(time),
            usage,
            None,
            None,
        )
        .ok()
        .map(drop)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails panics"
)]
mod tests {
    use super::*;
    use crate::signing::keys::certificates_of;
    use crate::signing::vectors::read;

    fn roots(name: &str) -> Vec<CertificateDer<'static>> {
        let pem = read(&format!("timestamps/{name}.crt"));
        let ders = certificates_of("ca.crt", &pem).unwrap();
        ders.into_iter().map(CertificateDer::from).collect()
    }

    #[test]
    fn a_token_of_an_authority_with_rsa_keys_verifies_for_its_signature_only() {
        for hash in ["sha256", "sha384", "sha512"] {
            let token = read(&format!("timestamps/{hash}.der"));
            let time = verify(&token, b"signature", &roots("root")).unwrap();
            assert!(time > "2026-11-01T00:00:00Z".parse().unwrap(), "{time}");
            assert_eq!(
                verify(&token, b"another", &roots("root")),
                Err(TokenError::OtherContent)
            );
            assert_eq!(
                verify(&token, b"signature", &roots("stranger")),
                Err(TokenError::Certificate)
            );
            assert_eq!(
                verify(&token[..token.len() - 1], b"signature", &roots("root")),
                Err(TokenError::Malformed)
            );
        }
    }

    #[test]
    fn t31_an_altered_token_is_refused_or_has_the_same_time() {
        let token = read("timestamps/sha256.der");
        let roots = roots("root");
        let time = verify(&token, b"signature", &roots).unwrap();
        let mut refused = 0;
        for position in 0..token.len() {
            let mut altered = token.clone();
            altered[position] ^= 1;
            match verify(&altered, b"signature", &roots) {
                Ok(found) => assert_eq!(found, time, "{position}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > token.len() / 2, "{refused} of {}", token.len());
    }

    #[test]
    fn the_time_of_a_token_may_have_a_fraction() {
        let parsed = |text: &str| instant(text).map(|time| time.to_string());
        assert_eq!(
            parsed("20261129120000Z").as_deref(),
            Some("2026-11-29T12:00:00Z")
        );
        assert_eq!(
            parsed("20261129120000.25Z").as_deref(),
            Some("2026-11-29T12:00:00.25Z")
        );
        for wrong in [
            "",
            "20261129120000",
            "20261129120000+01",
            "2026112912000\u{e9}Z",
            "20269929120000Z",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
