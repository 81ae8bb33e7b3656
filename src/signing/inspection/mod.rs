//! Reads the subjects of a signature file that another tool made, so that the file is not attached to another image.
//!
//! Parses Sigstore bundles, bare DSSE envelopes, simple signing payloads and notation envelopes (JWS and COSE). The content
//! decides the format, because a media type can be wrong. Signatures are not verified. A file of another format, a malformed
//! file and a file larger than [`MAX_INSPECTED_BYTES`] name no subject.

mod cose;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use affix_registry::oci::{Algorithm, Digest, hex};

/// The maximum size of an inspected file, in bytes.
pub const MAX_INSPECTED_BYTES: usize = 1024 * 1024;

/// The maximum number of JSON documents in a file: `cosign download attestation` writes one per line.
const MAX_DOCUMENTS: usize = 64;

/// The subjects that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSubjects {
    /// The file names no subject, or affix cannot read its format. It is attached without a check.
    None,
    /// The digests of the subjects, at least one.
    Digests(Vec<Digest>),
}

impl NamedSubjects {
    /// Returns true if the file was made for another subject than `target`.
    ///
    /// It then names digests of the target's algorithm, and none of them is the target's. Digests of other algorithms do not
    /// count.
    #[must_use]
    pub fn excludes(&self, target: &Digest) -> bool {
        match self {
            Self::None => false,
            Self::Digests(named) => {
                named
                    .iter()
                    .any(|digest| digest.algorithm() == target.algorithm())
                    && !named.iter().any(|digest| digest == target)
            }
        }
    }
}

/// Returns the digests that a signature file names as its subjects.
#[must_use]
pub fn named_subjects(bytes: &[u8]) -> NamedSubjects {
    if bytes.len() > MAX_INSPECTED_BYTES {
        return NamedSubjects::None;
    }
    let mut digests = Vec::new();
    match json_documents(bytes) {
        Some(documents) => documents
            .iter()
            .for_each(|document| collect_from_envelope(document, &mut digests)),
        None => {
            if let Some(payload) = cose::sign1_payload(bytes).and_then(|payload| json(&payload)) {
                collect_from_payload(&payload, &mut digests);
            }
        }
    }
    if digests.is_empty() {
        NamedSubjects::None
    } else {
        NamedSubjects::Digests(digests)
    }
}

fn json_documents(bytes: &[u8]) -> Option<Vec<Value>> {
    serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .take(MAX_DOCUMENTS)
        .collect::<Result<_, _>>()
        .ok()
}

fn json(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// Collects the subjects of an envelope, or of a simple signing payload, whose signature is stored elsewhere.
fn collect_from_envelope(document: &Value, digests: &mut Vec<Digest>) {
    if let Some(digest) = document
        .pointer("/messageSignature/messageDigest")
        .and_then(message_digest)
    {
        digests.push(digest);
    }
    let payload = document.pointer("/dsseEnvelope/payload").or_else(|| {
        is_signed(document)
            .then(|| document.get("payload"))
            .flatten()
    });
    if let Some(payload) = payload
        .and_then(Value::as_str)
        .and_then(decode)
        .and_then(|payload| json(&payload))
    {
        collect_from_payload(&payload, digests);
    }
    digests.extend(simple_signing(document));
}

/// Returns true for a DSSE envelope and for a flattened or general JWS (RFC 7515, section 7.2).
fn is_signed(document: &Value) -> bool {
    document.get("signatures").is_some() || document.get("signature").is_some()
}

/// Collects the subjects of a payload: an in-toto statement, a notation payload or a simple signing payload.
fn collect_from_payload(payload: &Value, digests: &mut Vec<Digest>) {
    let subjects = payload.get("subject").and_then(Value::as_array);
    for set in subjects
        .into_iter()
        .flatten()
        .filter_map(|subject| subject.get("digest")?.as_object())
    {
        digests.extend(
            set.iter()
                .filter_map(|(algorithm, encoded)| digest(algorithm, encoded.as_str()?)),
        );
    }
    let target = payload
        .pointer("/targetArtifact/digest")
        .and_then(Value::as_str);
    digests.extend(target.and_then(|target| target.parse::<Digest>().ok()));
    digests.extend(simple_signing(payload));
}

/// Returns the signed manifest of a simple signing payload (containers/image, "atomic container signature").
fn simple_signing(payload: &Value) -> Option<Digest> {
    payload
        .pointer("/critical/image/docker-manifest-digest")?
        .as_str()?
        .parse()
        .ok()
}

/// Parses the digest of a `messageSignature` in a Sigstore bundle: base64, with the name or the protobuf number of the algorithm.
fn message_digest(stated: &Value) -> Option<Digest> {
    let algorithm = match stated.get("algorithm")? {
        Value::String(name) if name == "SHA2_256" => Algorithm::Sha256,
        Value::String(name) if name == "SHA2_512" => Algorithm::Sha512,
        Value::Number(number) if number.as_u64() == Some(1) => Algorithm::Sha256,
        Value::Number(number) if number.as_u64() == Some(3) => Algorithm::Sha512,
        _ => return None,
    };
    digest(
        algorithm.as_str(),
        &hex(&decode(stated.get("digest")?.as_str()?)?),
    )
}

/// Parses a digest of a digest set (in-toto attestation, digest_set.md), or returns `None` if no registry uses its algorithm.
fn digest(algorithm: &str, encoded: &str) -> Option<Digest> {
    format!("{algorithm}:{}", encoded.to_ascii_lowercase())
        .parse()
        .ok()
}

/// Decodes base64 in either alphabet, with or without padding. DSSE and protobuf allow both, JWS is URL-safe and unpadded.
fn decode(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signing::vectors::{another, read, subject};

    fn encoded(value: &Value) -> String {
        base64::engine::general_purpose::STANDARD.encode(value.to_string())
    }

    #[test]
    fn the_subject_of_every_kind_of_signature_file_is_found() {
        for file in [
            "cosign/generated.bundle.json",
            "cosign/annotated.bundle.json",
            "cosign/ed25519ph.bundle.json",
            "cosign/attestation.dsse.json",
            "cosign/simple-signing.json",
            "notary/p256.jws.json",
            "notary/rsa-2048.expiring.jws.json",
            "notary/p256.cose",
            "notary/rsa-2048.cose",
        ] {
            let named = named_subjects(&read(file));
            assert_eq!(
                named,
                NamedSubjects::Digests(vec![subject().digest]),
                "{file}"
            );
            assert!(!named.excludes(&subject().digest), "{file}");
            assert!(named.excludes(&another().digest), "{file}");
        }
    }

    #[test]
    fn the_subject_of_a_message_signature_is_the_signed_blob() {
        let blob = Digest::sha256(&read("cosign/blob"));
        assert_eq!(
            named_subjects(&read("cosign/blob.bundle.json")),
            NamedSubjects::Digests(vec![blob])
        );
        let numbered = json!({"messageSignature": {"messageDigest": {"algorithm": 1, "digest": "RBNvo1WzZ4oRRq0W9+hknpT7T8Ieg13NIXfmDHD2Ga4="}}});
        assert!(
            matches!(named_subjects(numbered.to_string().as_bytes()), NamedSubjects::Digests(named) if named.len() == 1)
        );
    }

    #[test]
    fn a_file_of_several_statements_names_all_their_subjects() {
        let line = |hex: char| {
            let statement = json!({"subject": [{"digest": {"sha256": hex.to_string().repeat(64)}}, {"digest": {"sha512": "c".repeat(128)}}]});
            json!({"payload": encoded(&statement), "payloadType": "application/vnd.in-toto+json", "signatures": []}).to_string()
        };
        let named = named_subjects(format!("{}\n{}\n", line('a'), line('b')).as_bytes());
        assert!(
            matches!(&named, NamedSubjects::Digests(digests) if digests.len() == 4),
            "{named:?}"
        );
        let target = |text: String| text.parse::<Digest>().map(|digest| named.excludes(&digest));
        assert_eq!(target(format!("sha256:{}", "b".repeat(64))), Ok(false));
        assert_eq!(target(format!("sha256:{}", "d".repeat(64))), Ok(true));
        assert_eq!(target(format!("sha512:{}", "c".repeat(128))), Ok(false));
        assert_eq!(target(format!("sha512:{}", "d".repeat(128))), Ok(true));
    }

    #[test]
    fn a_file_without_a_readable_subject_excludes_no_target() {
        let other_algorithms =
            json!({"subject": [{"digest": {"sha1": "a".repeat(40), "gitCommit": "a".repeat(40)}}]});
        let other_algorithms =
            json!({"payload": encoded(&other_algorithms), "signatures": []}).to_string();
        let unsigned = json!({"payload": encoded(&json!({"subject": [{"digest": {"sha256": "a".repeat(64)}}]}))}).to_string();
        let large = [
            read("cosign/simple-signing.json"),
            vec![b' '; MAX_INSPECTED_BYTES],
        ]
        .concat();
        for (bytes, why) in [
            (b"".as_slice(), "nothing"),
            (
                b"MEUCIQCfD/vlKV5gHdJSCk6ebZzh+LmUa3vuExmkN/lUaFxO3g==",
                "a bare signature",
            ),
            (b"a1a1.sig: signed by hand", "a plain text"),
            (
                b"{\"payload\":1,\"signatures\":[]}",
                "a payload that is no text",
            ),
            (
                b"{\"critical\":{\"image\":{\"docker-manifest-digest\":\"sha256:12\"}}}",
                "a digest that is none",
            ),
            (b"{} trailing", "JSON and something else"),
            (other_algorithms.as_bytes(), "digests that no registry uses"),
            (unsigned.as_bytes(), "a payload without signatures"),
            (&large, "a file that is too large"),
            (&read("cosign/generated.pub"), "a public key"),
        ] {
            let named = named_subjects(bytes);
            assert_eq!(named, NamedSubjects::None, "{why}");
            assert!(!named.excludes(&subject().digest), "{why}");
        }
    }

    #[test]
    fn a_file_with_another_digest_algorithm_excludes_no_target() {
        let named = named_subjects(&read("cosign/simple-signing.json"));
        assert!(!named.excludes(&Algorithm::Sha512.hash(b"another")));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), text in "\\PC{0,200}") {
            let _ = named_subjects(&bytes);
            let _ = named_subjects(text.as_bytes());
            let _ = named_subjects(json!({"payload": text, "signature": text, "messageSignature": {"messageDigest": text}}).to_string().as_bytes());
        }

        #[test]
        fn no_damage_to_a_real_file_makes_it_panic(at in 0..2_000_usize, byte in proptest::num::u8::ANY, cut in 0..2_000_usize) {
            for file in ["notary/p256.cose", "cosign/generated.bundle.json"] {
                let mut bytes = read(file);
                if let Some(there) = bytes.get_mut(at) {
                    *there = byte;
                }
                let _ = named_subjects(&bytes);
                bytes.truncate(cut);
                let _ = named_subjects(&bytes);
            }
        }
    }
}
