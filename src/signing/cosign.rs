//! Signatures as cosign 3 makes them: an in-toto statement in a DSSE envelope in a Sigstore bundle, attached as a referrer.
//!
//! Owns the statement's and the bundle's bytes, and telling whether a bundle that is there says the same under the same key. It
//! writes no transparency log entry and no timestamp, so verifiers are told to ignore the log.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use affix_registry::oci::media_type::SIGSTORE_BUNDLE as BUNDLE;
use affix_registry::oci::{Algorithm, Descriptor, Digest, ImageManifest};

use super::cosign_key::CosignKey;
use super::dsse::{Envelope, pre_authentication_encoding};
use super::error::KeyError;
use super::signer::{Shape, Signature, Signer, read_part};

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Signs as `cosign sign --key` does, with an ECDSA P-256 or an Ed25519 key. No `Debug`: it holds the key.
pub struct CosignSigner {
    key: CosignKey,
    hint: String,
    annotations: BTreeMap<String, String>,
    shape: Shape,
}

impl CosignSigner {
    /// Opens the key of a Secret as `cosign generate-key-pair k8s://…` writes it; `annotations` go into each statement, as those
    /// of `cosign sign -a` do.
    ///
    /// An encrypted key takes 150 to 200 ms and 64 MiB to open, and only one is opened at a time: call it where blocking does no
    /// harm, and keep what it returns for as long as the Secret does not change.
    ///
    /// # Errors
    /// When the file, the password or the kind of key does not fit.
    pub fn open(
        key: &[u8],
        password: Option<&[u8]>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self, KeyError> {
        let key = CosignKey::open(key, password)?;
        let hint = STANDARD.encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            key.public_der(),
        ));
        let shape = Shape {
            artifact_type: Some(BUNDLE),
            config: Descriptor::empty(),
            layer_media_type: BUNDLE,
            annotations: BTreeMap::from([
                (
                    "dev.sigstore.bundle.content".to_owned(),
                    "dsse-envelope".to_owned(),
                ),
                (
                    "dev.sigstore.bundle.predicateType".to_owned(),
                    PREDICATE.to_owned(),
                ),
            ]),
        };
        Ok(Self {
            key,
            hint,
            annotations,
            shape,
        })
    }

    /// DER of the public half, a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    #[must_use]
    pub fn public_key_der(&self) -> &[u8] {
        self.key.public_der()
    }

    /// Whether `statement` says about `subject` what this signer would say.
    fn says_the_same(&self, statement: &Statement, subject: &Digest) -> bool {
        let [about] = statement.subject.as_slice() else {
            return false;
        };
        statement.kind == STATEMENT
            && statement.predicate_type == PREDICATE
            && statement.predicate.is_empty()
            && about
                .digest
                .get(subject.algorithm().as_str())
                .is_some_and(|hex| hex == subject.hex())
            && about.annotations == self.annotations
    }
}

impl Signer for CosignSigner {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn sign(&self, subject: &Descriptor, at: Timestamp) -> Result<Signature, KeyError> {
        let statement = Statement::about(&subject.digest, &self.annotations).bytes();
        let signature = self
            .key
            .sign(&pre_authentication_encoding(IN_TOTO, &statement))?;
        Ok(self.shape.around(
            Bundle::new(&self.hint, &statement, &signature).bytes(),
            subject,
            at,
        ))
    }

    fn is_equal(
        &self,
        manifest: &ImageManifest,
        layer: &[u8],
        subject: &Descriptor,
        _now: Timestamp,
    ) -> bool {
        if !self.shape.fits(manifest, &subject.digest) || !Shape::holds(manifest, layer) {
            return false;
        }
        let Some(bundle) = read_part::<Bundle>(layer) else {
            return false;
        };
        let Some((payload, signature)) = bundle.dsse_envelope.open() else {
            return false;
        };
        let Some(statement) = read_part::<Statement>(&payload) else {
            return false;
        };
        bundle.media_type == BUNDLE
            && bundle.verification_material.public_key.hint == self.hint
            && bundle.dsse_envelope.payload_type == IN_TOTO
            && self.says_the_same(&statement, &subject.digest)
            && self
                .key
                .verifies(&pre_authentication_encoding(IN_TOTO, &payload), &signature)
    }

    fn fingerprint(&self) -> Digest {
        let content = serde_json::json!({"signature": BUNDLE, "publicKey": self.hint, "annotations": self.annotations});
        Algorithm::Sha256.hash(content.to_string().as_bytes())
    }
}

/// An in-toto statement (in-toto attestation, statement.md) without a predicate, in cosign's order of fields.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(default)]
    predicate: Map<String, Value>,
}

/// What a statement is about.
#[derive(Serialize, Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Statement {
    fn about(subject: &Digest, annotations: &BTreeMap<String, String>) -> Self {
        Self {
            kind: STATEMENT.to_owned(),
            subject: vec![Subject {
                digest: BTreeMap::from([(
                    subject.algorithm().as_str().to_owned(),
                    subject.hex().to_owned(),
                )]),
                annotations: annotations.clone(),
            }],
            predicate_type: PREDICATE.to_owned(),
            predicate: Map::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A Sigstore bundle (sigstore/protobuf-specs, `sigstore_bundle.proto`) around a DSSE envelope. What else a bundle may carry, such
/// as entries of a log, adds to it and is not looked at.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: VerificationMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerificationMaterial {
    public_key: PublicKeyIdentifier,
}

#[derive(Serialize, Deserialize)]
struct PublicKeyIdentifier {
    /// Base64 of the SHA-256 of the public key's DER.
    hint: String,
}

impl Bundle {
    fn new(hint: &str, payload: &[u8], signature: &[u8]) -> Self {
        Self {
            media_type: BUNDLE.to_owned(),
            verification_material: VerificationMaterial {
                public_key: PublicKeyIdentifier {
                    hint: hint.to_owned(),
                },
            },
            dsse_envelope: Envelope::new(IN_TOTO, payload, signature),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::super::vectors::{PASSWORD, SIGNED_AT, another, at, read, subject};
    use super::*;

    fn annotations() -> BTreeMap<String, String> {
        BTreeMap::from([
            ("who".to_owned(), "me".to_owned()),
            ("env".to_owned(), "prod".to_owned()),
        ])
    }

    fn signer(key: &str, annotations: BTreeMap<String, String>) -> CosignSigner {
        CosignSigner::open(&read(key), Some(PASSWORD), annotations).unwrap()
    }

    /// cosign's JSON without the spaces that Go's protobuf library puts after commas; none of these texts has one inside.
    fn compact(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace(", ", ",")
    }

    #[test]
    fn the_statement_is_cosigns_byte_for_byte_but_for_spaces() {
        for (file, annotations) in [
            ("cosign/generated.bundle.json", BTreeMap::new()),
            ("cosign/annotated.bundle.json", annotations()),
        ] {
            let bundle: Bundle = serde_json::from_slice(&read(file)).unwrap();
            let (theirs, _) = bundle.dsse_envelope.open().unwrap();
            let ours = Statement::about(&subject().digest, &annotations).bytes();
            assert_eq!(String::from_utf8(ours).unwrap(), compact(&theirs), "{file}");
        }
    }

    #[test]
    fn the_bundle_is_cosigns_byte_for_byte_but_for_spaces() {
        let signer = signer("cosign/generated.key", BTreeMap::new());
        let theirs = read("cosign/generated.bundle.json");
        let (payload, signature) = serde_json::from_slice::<Bundle>(&theirs)
            .unwrap()
            .dsse_envelope
            .open()
            .unwrap();
        let ours = Bundle::new(&signer.hint, &payload, &signature).bytes();
        assert_eq!(String::from_utf8(ours).unwrap(), compact(&theirs));
    }

    #[test]
    fn the_signature_is_over_the_statement_in_its_pre_authentication_encoding() {
        let signer = signer("cosign/ed25519.key", BTreeMap::new());
        let signature = signer.sign(&subject(), at(SIGNED_AT)).unwrap();
        let bundle: Bundle = serde_json::from_slice(&signature.layer).unwrap();
        let (payload, made) = bundle.dsse_envelope.open().unwrap();
        let expected = format!(
            "DSSEv1 28 application/vnd.in-toto+json {} {}",
            payload.len(),
            String::from_utf8(payload).unwrap()
        );
        assert!(signer.key.verifies(expected.as_bytes(), &made));
    }

    #[test]
    fn the_manifest_has_the_fields_of_the_one_that_cosign_attached() {
        let signer = signer("cosign/generated.key", annotations());
        let theirs: ImageManifest =
            serde_json::from_slice(&read("cosign/annotated.manifest.json")).unwrap();
        let mut ours = signer.sign(&subject(), at(SIGNED_AT)).unwrap().manifest;
        assert_eq!(
            ours.annotations
                .get("org.opencontainers.image.created")
                .unwrap(),
            SIGNED_AT
        );
        // cosign repeats the artifact type in the config's descriptor, and does not inline it.
        ours.config = Descriptor {
            artifact_type: theirs.config.artifact_type.clone(),
            data: None,
            ..ours.config
        };
        ours.layers.clone_from(&theirs.layers);
        ours.annotations.clone_from(&theirs.annotations);
        assert_eq!(ours, theirs);
        assert!(signer.shape().fits(&theirs, &subject().digest));
    }

    #[test]
    fn what_the_real_cosign_signed_with_the_same_key_is_equal() {
        let manifest: ImageManifest =
            serde_json::from_slice(&read("cosign/annotated.manifest.json")).unwrap();
        let layer = read("cosign/annotated.bundle.json");
        let equal = |signer: &CosignSigner, subject: &Descriptor| {
            signer.is_equal(&manifest, &layer, subject, at(SIGNED_AT))
        };
        assert!(equal(
            &signer("cosign/generated.key", annotations()),
            &subject()
        ));
        assert!(
            !equal(&signer("cosign/generated.key", annotations()), &another()),
            "another subject"
        );
        assert!(
            !equal(&signer("cosign/generated.key", BTreeMap::new()), &subject()),
            "other annotations"
        );
        assert!(
            !equal(&signer("cosign/p256.key", annotations()), &subject()),
            "another key"
        );
    }

    #[test]
    fn an_ed25519ph_signature_of_cosign_is_not_equal_since_cosign_itself_refuses_it() {
        let signer = signer("cosign/ed25519.key", BTreeMap::new());
        let theirs = signer.shape.around(
            read("cosign/ed25519ph.bundle.json"),
            &subject(),
            at(SIGNED_AT),
        );
        assert!(!signer.is_equal(&theirs.manifest, &theirs.layer, &subject(), at(SIGNED_AT)));
    }

    #[test]
    fn what_it_signs_it_knows_again_and_nothing_else() {
        for key in ["cosign/generated.key", "cosign/ed25519.key"] {
            let signer = signer(key, annotations());
            let signature = signer.sign(&subject(), at(SIGNED_AT)).unwrap();
            let equal = |manifest: &ImageManifest, layer: &[u8]| {
                signer.is_equal(manifest, layer, &subject(), at(SIGNED_AT))
            };
            assert!(equal(&signature.manifest, &signature.layer), "{key}");
            assert!(
                !equal(&signature.manifest, &read("cosign/generated.bundle.json")),
                "{key}: bytes of another layer"
            );

            let around = |layer: String| {
                signer
                    .shape
                    .around(layer.into_bytes(), &subject(), at(SIGNED_AT))
            };
            let bundle = String::from_utf8(signature.layer.clone()).unwrap();
            let payload = |layer: &str| {
                serde_json::from_str::<Bundle>(layer)
                    .unwrap()
                    .dsse_envelope
                    .payload
            };
            let other = signer.sign(&another(), at(SIGNED_AT)).unwrap();
            for (damaged, why) in [
                (
                    String::from_utf8(other.layer).unwrap(),
                    "a statement about another image",
                ),
                (
                    bundle.replace(
                        &payload(&bundle),
                        &payload(&String::from_utf8(read("cosign/annotated.bundle.json")).unwrap()),
                    ),
                    "another payload",
                ),
                (
                    bundle.replace("bundle.v0.3", "bundle.v0.2"),
                    "another version",
                ),
                (bundle.replace(&signer.hint, "AAEC"), "another hint"),
                (
                    bundle.replace("vnd.in-toto", "vnd.in.toto"),
                    "another payload type",
                ),
                (
                    bundle.replace("\"signatures\":[", "\"signatures\":[{\"sig\":\"AAEC\"},"),
                    "two signatures",
                ),
                ("{}".to_owned(), "no bundle"),
            ] {
                let damaged = around(damaged);
                assert!(!equal(&damaged.manifest, &damaged.layer), "{key}: {why}");
            }

            for (change, why) in [
                (
                    (|manifest| manifest.artifact_type = Some("application/x".to_owned()))
                        as fn(&mut ImageManifest),
                    "artifact type",
                ),
                (|manifest| manifest.subject = Some(another()), "subject"),
                (|manifest| manifest.subject = None, "no subject"),
                (
                    |manifest| manifest.layers.push(Descriptor::empty()),
                    "two layers",
                ),
                (
                    |manifest| manifest.config.digest = Digest::sha256(b"x"),
                    "config",
                ),
                (
                    |manifest| drop(manifest.annotations.insert("x".to_owned(), "y".to_owned())),
                    "one annotation more",
                ),
                (
                    |manifest| drop(manifest.annotations.remove("dev.sigstore.bundle.content")),
                    "one annotation less",
                ),
            ] {
                let mut changed = signature.manifest.clone();
                change(&mut changed);
                assert!(!equal(&changed, &signature.layer), "{key}: {why}");
            }
        }
    }

    #[test]
    fn the_fingerprint_changes_with_the_key_and_the_annotations_only() {
        let fingerprint = |key, annotations| signer(key, annotations).fingerprint();
        let first = fingerprint("cosign/p256.key", BTreeMap::new());
        assert_eq!(
            first,
            fingerprint("cosign/p256.pem", BTreeMap::new()),
            "the same key without its password"
        );
        assert_ne!(first, fingerprint("cosign/p256.key", annotations()));
        assert_ne!(first, fingerprint("cosign/generated.key", BTreeMap::new()));
    }

    #[test]
    fn a_sha512_subject_is_named_by_its_own_algorithm() {
        let subject = Descriptor::plain(
            affix_registry::oci::media_type::OCI_MANIFEST,
            Algorithm::Sha512.hash(b"{}"),
            2,
        );
        let signer = signer("cosign/p256.pem", BTreeMap::new());
        let signature = signer.sign(&subject, at(SIGNED_AT)).unwrap();
        assert!(signer.is_equal(
            &signature.manifest,
            &signature.layer,
            &subject,
            at(SIGNED_AT)
        ));
        assert_eq!(
            super::super::named_subjects(&signature.layer),
            super::super::Named::Digests(vec![subject.digest])
        );
    }
}
