#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]

use super::*;
use crate::signing::signer::test_signing::sign;
use crate::signing::vectors::{PASSWORD, SIGNED_AT, another, at, read, subject};
use crate::signing::{NamedSubjects, PublicKey, named_subjects};

fn annotations() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("who".to_owned(), "me".to_owned()),
        ("env".to_owned(), "prod".to_owned()),
    ])
}

fn signer(key: &str, annotations: BTreeMap<String, String>) -> CosignSigner {
    CosignSigner::open(&read(key), Some(PASSWORD), annotations).unwrap()
}

/// Returns the JSON of cosign without the spaces that Go's protobuf library writes after commas. No text in it has one.
fn compact(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec())
        .unwrap()
        .replace(", ", ",")
}

#[test]
fn the_statement_equals_that_of_cosign_except_for_spaces() {
    for (file, annotations) in [
        ("cosign/generated.bundle.json", BTreeMap::new()),
        ("cosign/annotated.bundle.json", annotations()),
    ] {
        let bundle: Bundle = serde_json::from_slice(&read(file)).unwrap();
        let (expected, _) = bundle.dsse_envelope.open().unwrap();
        let predicate = Predicate::parse(SIGNATURE, b"{}").unwrap();
        let ours = statement::statement(&subject().digest, &annotations, &predicate).unwrap();
        assert_eq!(
            String::from_utf8(ours).unwrap(),
            compact(&expected),
            "{file}"
        );
    }
}

#[test]
fn the_bundle_equals_that_of_cosign_except_for_spaces() {
    let signer = signer("cosign/generated.key", BTreeMap::new());
    let expected = read("cosign/generated.bundle.json");
    let (payload, signature) = serde_json::from_slice::<Bundle>(&expected)
        .unwrap()
        .dsse_envelope
        .open()
        .unwrap();
    let ours = Bundle::new(Some(&signer.hint), &payload, &signature.into()).bytes();
    assert_eq!(String::from_utf8(ours).unwrap(), compact(&expected));
}

#[test]
fn the_signature_covers_the_pre_authentication_encoding_of_the_statement() {
    let signer = signer("cosign/ed25519.key", BTreeMap::new());
    let signature = sign(&signer, &subject(), at(SIGNED_AT)).unwrap();
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
fn the_manifest_has_the_fields_of_a_manifest_of_cosign() {
    let signer = signer("cosign/generated.key", annotations());
    let expected: ImageManifest =
        serde_json::from_slice(&read("cosign/annotated.manifest.json")).unwrap();
    let mut ours = sign(&signer, &subject(), at(SIGNED_AT)).unwrap().manifest;
    assert_eq!(
        ours.annotations
            .get("org.opencontainers.image.created")
            .unwrap(),
        SIGNED_AT
    );
    // cosign repeats the artifact type in the descriptor of the config, and does not embed its content.
    ours.config = Descriptor {
        artifact_type: expected.config.artifact_type.clone(),
        data: None,
        ..ours.config
    };
    ours.layers.clone_from(&expected.layers);
    ours.annotations.clone_from(&expected.annotations);
    assert_eq!(ours, expected);
    assert!(signer.shape().fits(&expected, &subject().digest));
}

#[test]
fn a_signature_of_the_real_cosign_by_the_same_key_is_equal() {
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
fn a_bundle_of_cosign_by_a_p256_or_rsa_key_is_equal() {
    for (key, other) in [
        ("generated", "p256"),
        ("rsa", "rsa-4096"),
        ("rsa-4096", "rsa"),
    ] {
        let bundle = read(&format!("cosign/{key}.bundle.json"));
        let equal = |key: &str| {
            let signer = signer(&format!("cosign/{key}.key"), BTreeMap::new());
            let found = signer
                .shape
                .to_signature(bundle.clone(), &subject(), at(SIGNED_AT));
            signer.is_equal(&found.manifest, &found.layer, &subject(), at(SIGNED_AT))
        };
        assert!(equal(key), "{key}");
        assert!(!equal(other), "{key} under {other}");
    }
}

/// cosign 3.1.3 signs with the hash of the curve, and verifies with SHA-256 unless told otherwise.
#[test]
fn a_bundle_that_cosign_signs_but_does_not_verify_is_not_equal() {
    for (key, bundle) in [("ed25519", "ed25519ph"), ("p384", "p384"), ("p521", "p521")] {
        let signer = signer(&format!("cosign/{key}.key"), BTreeMap::new());
        let found = signer.shape.to_signature(
            read(&format!("cosign/{bundle}.bundle.json")),
            &subject(),
            at(SIGNED_AT),
        );
        assert!(
            !signer.is_equal(&found.manifest, &found.layer, &subject(), at(SIGNED_AT)),
            "{key}"
        );
    }
}

#[test]
fn a_signer_recognises_only_its_own_signatures() {
    for key in [
        "cosign/generated.key",
        "cosign/ed25519.key",
        "cosign/p384.pem",
        "cosign/p521.pem",
        "cosign/rsa.pem",
    ] {
        let signer = signer(key, annotations());
        let signature = sign(&signer, &subject(), at(SIGNED_AT)).unwrap();
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
                .to_signature(layer.into_bytes(), &subject(), at(SIGNED_AT))
        };
        let bundle = String::from_utf8(signature.layer.clone()).unwrap();
        let payload = |layer: &str| {
            serde_json::from_str::<Bundle>(layer)
                .unwrap()
                .dsse_envelope
                .payload
        };
        let other = sign(&signer, &another(), at(SIGNED_AT)).unwrap();
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
fn a_sha512_subject_is_named_with_its_own_algorithm() {
    let subject = Descriptor::plain(
        affix_registry::oci::media_type::OCI_MANIFEST,
        Algorithm::Sha512.hash(b"{}"),
        2,
    );
    let signer = signer("cosign/p256.pem", BTreeMap::new());
    let signature = sign(&signer, &subject, at(SIGNED_AT)).unwrap();
    assert!(signer.is_equal(
        &signature.manifest,
        &signature.layer,
        &subject,
        at(SIGNED_AT)
    ));
    assert_eq!(
        named_subjects(&signature.layer),
        NamedSubjects::Digests(vec![subject.digest])
    );
}

const VEX: &str = "https://openvex.dev/ns";

fn vex() -> Predicate {
    Predicate::parse(VEX, &read("vex.json")).unwrap()
}

#[test]
fn a_statement_of_the_real_cosign_by_the_same_key_is_equal() {
    let manifest: ImageManifest =
        serde_json::from_slice(&read("cosign/statement.manifest.json")).unwrap();
    let layer = read("cosign/statement.bundle.json");
    let equal = |key: &str, predicate: &Predicate, subject: &Descriptor| {
        let signer = signer(key, BTreeMap::new()).stating(predicate).unwrap();
        signer.is_equal(&manifest, &layer, subject, at(SIGNED_AT))
    };
    let generated = "cosign/generated.key";
    assert!(equal(generated, &vex(), &subject()));
    assert!(!equal(generated, &vex(), &another()), "another subject");
    assert!(!equal("cosign/p256.key", &vex(), &subject()), "another key");
    let newer = String::from_utf8(read("vex.json"))
        .unwrap()
        .replace("not_affected", "fixed");
    let newer = Predicate::parse(VEX, newer.as_bytes()).unwrap();
    assert!(!equal(generated, &newer, &subject()), "another predicate");
    let other = Predicate::parse("https://openvex.dev/other", &read("vex.json")).unwrap();
    assert!(!equal(generated, &other, &subject()), "another type");
    let plain = signer(generated, BTreeMap::new());
    assert!(!plain.is_equal(&manifest, &layer, &subject(), at(SIGNED_AT)));
}

#[test]
fn a_signed_statement_has_its_type_subject_and_predicate_and_verifies_with_its_key() {
    let signer = signer("cosign/generated.key", BTreeMap::new());
    let stating = signer.stating(&vex()).unwrap();
    let ours = sign(&*stating, &subject(), at(SIGNED_AT)).unwrap();
    assert!(stating.is_equal(&ours.manifest, &ours.layer, &subject(), at(SIGNED_AT)));
    assert!(stating.tag_signer().is_none());
    let key = |file: &str| PublicKey::from_pem("a.pub", &read(file)).unwrap().remove(0);
    for bundle in [ours.layer, read("cosign/statement.bundle.json")] {
        let found = SignedStatement::parse(&bundle).unwrap();
        assert_eq!(found.predicate_type(), VEX);
        assert!(found.is_about(&subject().digest) && !found.is_about(&another().digest));
        let predicate = Predicate::parse(VEX, found.predicate().as_bytes()).unwrap();
        assert_eq!(predicate.hash(), vex().hash());
        assert!(found.verifies(&key("cosign/generated.pub")));
        assert!(!found.verifies(&key("cosign/p256.pub")));
    }
}

#[test]
fn the_manifest_of_a_statement_has_the_fields_of_a_manifest_of_cosign() {
    let signer = signer("cosign/generated.key", BTreeMap::new())
        .stating(&vex())
        .unwrap();
    let expected: ImageManifest =
        serde_json::from_slice(&read("cosign/statement.manifest.json")).unwrap();
    let mut ours = sign(&*signer, &subject(), at(SIGNED_AT)).unwrap().manifest;
    ours.config = Descriptor {
        artifact_type: expected.config.artifact_type.clone(),
        data: None,
        ..ours.config
    };
    ours.layers.clone_from(&expected.layers);
    let created = "org.opencontainers.image.created";
    let written = expected.annotations.get(created).unwrap().clone();
    ours.annotations.insert(created.to_owned(), written);
    assert_eq!(ours, expected);
}

#[test]
fn the_fingerprint_of_a_statement_changes_with_the_predicate_and_not_with_its_layout() {
    let fingerprint = |kind: &str, predicate: &str| {
        let predicate = Predicate::parse(kind, predicate.as_bytes()).unwrap();
        signer("cosign/p256.pem", BTreeMap::new())
            .stating(&predicate)
            .unwrap()
            .fingerprint()
    };
    let first = fingerprint(VEX, r#"{"a":1,"b":2}"#);
    assert_eq!(
        first,
        fingerprint(VEX, "\u{feff} {\n\"b\": 2, \"a\": 1 }\n")
    );
    assert_ne!(first, fingerprint(VEX, r#"{"a":1,"b":3}"#));
    assert_ne!(
        first,
        fingerprint("https://cyclonedx.org/bom", r#"{"a":1,"b":2}"#)
    );
}

#[test]
fn a_predicate_that_is_no_object_is_refused() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_PREDICATE_BYTES - 7));
    let refused = |json: &str| Predicate::parse(VEX, json.as_bytes()).unwrap_err();
    for json in ["[]", "7", "null", "\"text\""] {
        assert!(
            matches!(refused(json), PredicateError::NoObject(_)),
            "{json}"
        );
    }
    for json in ["", "{", "{}{}", "SPDXVersion: SPDX-2.3"] {
        assert!(
            matches!(refused(json), PredicateError::Malformed(_)),
            "{json}"
        );
    }
    assert_eq!(
        refused(&large),
        PredicateError::TooLarge(MAX_PREDICATE_BYTES + 1)
    );
    assert!(Predicate::parse(VEX, large.replacen('x', "", 1).as_bytes()).is_ok());
}

#[test]
fn the_predicate_is_signed_byte_for_byte_and_the_largest_one_fits() {
    let json = format!(
        "{{\"a\" : 1.50, \"b\":\"{}\"}}",
        "x".repeat(MAX_PREDICATE_BYTES - 22)
    );
    let predicate = Predicate::parse(VEX, json.as_bytes()).unwrap();
    let signer = signer("cosign/p256.pem", BTreeMap::new())
        .stating(&predicate)
        .unwrap();
    let signature = sign(&*signer, &subject(), at(SIGNED_AT)).unwrap();
    assert!(signature.layer.len() as u64 <= signer.shape().max_layer_bytes);
    let found = SignedStatement::parse(&signature.layer).unwrap();
    assert_eq!(found.predicate(), json);
    assert!(signer.is_equal(
        &signature.manifest,
        &signature.layer,
        &subject(),
        at(SIGNED_AT)
    ));
}

proptest::proptest! {
    #[test]
    fn no_damage_to_a_bundle_makes_its_statement_panic(at in 0..1_200_usize, byte in proptest::num::u8::ANY, cut in 0..1_200_usize) {
        let mut bytes = read("cosign/statement.bundle.json");
        if let Some(there) = bytes.get_mut(at) {
            *there = byte;
        }
        let _ = SignedStatement::parse(&bytes);
        bytes.truncate(cut);
        let _ = SignedStatement::parse(&bytes);
    }

    #[test]
    fn no_statement_of_a_build_makes_it_panic(text in "\\PC{0,60}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = UnsignedStatement::parse(&bytes);
        let statement = serde_json::json!({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": text.as_str(),
            "subject": text.as_str(), "predicate": {"a": text.as_str()}});
        let _ = UnsignedStatement::parse(statement.to_string().as_bytes());
        let _ = UnsignedStatement::parse(text.as_bytes());
    }
}
