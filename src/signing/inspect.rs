//! What a signature file that somebody else made names, so that it is not attached to another image.
//!
//! Owns looking into Sigstore bundles, bare DSSE envelopes, simple signing payloads and notation envelopes (JWS and COSE). The
//! kind is told by content: a file's media type is what its owner says, not what it is. Nothing is verified here, and nothing
//! is refused: what is none of these, what is malformed and what is larger than [`LARGEST`] names nothing.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::oci::{Algorithm, Digest, hex};

use super::cbor;

/// The largest file that is looked into, in bytes.
pub const LARGEST: usize = 1024 * 1024;

/// How many JSON documents one file may hold: `cosign download attestation` writes one a line.
const MOST_DOCUMENTS: usize = 64;

/// What a file names as its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Nothing that affix can read: the file is attached as it is.
    None,
    /// These digests, at least one.
    Digests(Vec<Digest>),
}

impl Named {
    /// Whether the file was made for something else than `target`: it names digests of the target's algorithm, and none of
    /// them is the target's. A file that names other algorithms only says nothing about the target.
    #[must_use]
    pub fn excludes(&self, target: &Digest) -> bool {
        match self {
            Self::None => false,
            Self::Digests(named) => {
                named.iter().any(|digest| digest.algorithm() == target.algorithm()) && !named.iter().any(|digest| digest == target)
            }
        }
    }
}

/// The digests that a signature file names as its subjects.
#[must_use]
pub fn named_subjects(bytes: &[u8]) -> Named {
    if bytes.len() > LARGEST {
        return Named::None;
    }
    let mut digests = Vec::new();
    match json_documents(bytes) {
        Some(documents) => documents.iter().for_each(|document| envelope(document, &mut digests)),
        None => {
            if let Some(payload) = cbor::cose_sign1_payload(bytes).and_then(json) {
                signed(&payload, &mut digests);
            }
        }
    }
    if digests.is_empty() { Named::None } else { Named::Digests(digests) }
}

fn json_documents(bytes: &[u8]) -> Option<Vec<Value>> {
    serde_json::Deserializer::from_slice(bytes).into_iter().take(MOST_DOCUMENTS).collect::<Result<_, _>>().ok()
}

fn json(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// A document as a whole: an envelope around something signed, or a simple signing payload, which has its signature elsewhere.
fn envelope(document: &Value, digests: &mut Vec<Digest>) {
    if let Some(digest) = document.pointer("/messageSignature/messageDigest").and_then(message_digest) {
        digests.push(digest);
    }
    let payload = document.pointer("/dsseEnvelope/payload").or_else(|| is_signed(document).then(|| document.get("payload")).flatten());
    if let Some(payload) = payload.and_then(Value::as_str).and_then(decode).and_then(|payload| json(&payload)) {
        signed(&payload, digests);
    }
    digests.extend(simple_signing(document));
}

/// A DSSE envelope, a flattened JWS or a general JWS (RFC 7515, section 7.2): what holds `payload` beside signatures.
fn is_signed(document: &Value) -> bool {
    document.get("signatures").is_some() || document.get("signature").is_some()
}

/// What stands inside of an envelope: an in-toto statement, a notation payload or a simple signing payload.
fn signed(payload: &Value, digests: &mut Vec<Digest>) {
    let subjects = payload.get("subject").and_then(Value::as_array);
    for set in subjects.into_iter().flatten().filter_map(|subject| subject.get("digest")?.as_object()) {
        digests.extend(set.iter().filter_map(|(algorithm, encoded)| digest(algorithm, encoded.as_str()?)));
    }
    let target = payload.pointer("/targetArtifact/digest").and_then(Value::as_str);
    digests.extend(target.and_then(|target| target.parse::<Digest>().ok()));
    digests.extend(simple_signing(payload));
}

/// containers/image, "atomic container signature": the manifest that the signature is for.
fn simple_signing(payload: &Value) -> Option<Digest> {
    payload.pointer("/critical/image/docker-manifest-digest")?.as_str()?.parse().ok()
}

/// A digest of a Sigstore bundle's `messageSignature`: base64, with the algorithm's name or number in its protobuf enumeration.
fn message_digest(stated: &Value) -> Option<Digest> {
    let algorithm = match stated.get("algorithm")? {
        Value::String(name) if name == "SHA2_256" => Algorithm::Sha256,
        Value::String(name) if name == "SHA2_512" => Algorithm::Sha512,
        Value::Number(number) if number.as_u64() == Some(1) => Algorithm::Sha256,
        Value::Number(number) if number.as_u64() == Some(3) => Algorithm::Sha512,
        _ => return None,
    };
    digest(algorithm.as_str(), &hex(&decode(stated.get("digest")?.as_str()?)?))
}

/// A digest of a set (in-toto attestation, digest_set.md); `None` for algorithms that no registry uses.
fn digest(algorithm: &str, encoded: &str) -> Option<Digest> {
    format!("{algorithm}:{}", encoded.to_ascii_lowercase()).parse().ok()
}

/// Base64 in either alphabet, padded or not: DSSE and protobuf allow both, JWS is URL-safe and unpadded.
fn decode(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
