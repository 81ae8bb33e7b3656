#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]

use super::*;
use crate::signing::vectors::{PASSWORD, SIGNED_AT, another, at, read, subject};
use crate::signing::{NamedSubjects, named_subjects};

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
        let ours = Statement::new(&subject().digest, &annotations).bytes();
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
    let ours = Bundle::new(&signer.hint, &payload, &signature).bytes();
    assert_eq!(String::from_utf8(ours).unwrap(), compact(&expected));
}

#[test]
fn the_signature_covers_the_pre_authentication_encoding_of_the_statement() {
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
fn the_manifest_has_the_fields_of_a_manifest_of_cosign() {
    let signer = signer("cosign/generated.key", annotations());
    let expected: ImageManifest =
        serde_json::from_slice(&read("cosign/annotated.manifest.json")).unwrap();
    let mut ours = signer.sign(&subject(), at(SIGNED_AT)).unwrap().manifest;
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
                .to_signature(layer.into_bytes(), &subject(), at(SIGNED_AT))
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
fn a_sha512_subject_is_named_with_its_own_algorithm() {
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
        named_subjects(&signature.layer),
        NamedSubjects::Digests(vec![subject.digest])
    );
}
