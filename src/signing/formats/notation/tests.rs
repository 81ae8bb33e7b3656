#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that unwraps fails, as it should"
)]

use super::*;
use crate::signing::error::CertificateProblem;
use crate::signing::keys::pem;
use crate::signing::signer::test_signing::sign;
use crate::signing::vectors::{SIGNED_AT, another, at, read, subject};

const ALL: [&str; 6] = ["rsa-2048", "rsa-3072", "rsa-4096", "p256", "p384", "p521"];
const EXPIRY: Duration = Duration::from_hours(90);

fn open(
    key: &str,
    chain: &str,
    roots: Option<&str>,
    expiry: Option<Duration>,
    now: &str,
) -> Result<NotationSigner, KeyError> {
    let roots = roots.map(|roots| read(&format!("notary/{roots}")));
    NotationSigner::open(
        &read(&format!("notary/{key}")),
        &read(&format!("notary/{chain}")),
        roots.as_deref(),
        expiry,
        None,
        at(now),
    )
}

fn signer(name: &str, expiry: Option<Duration>) -> NotationSigner {
    open(
        &format!("{name}.key"),
        &format!("{name}.crt"),
        None,
        expiry,
        SIGNED_AT,
    )
    .unwrap()
}

fn envelope(layer: &[u8]) -> Envelope {
    serde_json::from_slice(layer).unwrap()
}

#[test]
fn the_protected_header_equals_that_of_notation() {
    for name in ALL {
        let expected = envelope(&read(&format!("notary/{name}.jws.json")));
        assert_eq!(
            encode(&signer(name, None).protected(at(SIGNED_AT)).unwrap()),
            expected.protected,
            "{name}"
        );
    }
    let expected = envelope(&read("notary/p256.expiring.jws.json"));
    assert_eq!(
        encode(
            &signer("p256", Some(EXPIRY))
                .protected(at(SIGNED_AT))
                .unwrap()
        ),
        expected.protected
    );
}

#[test]
fn the_envelope_equals_that_of_notation_except_for_agent_and_payload_order() {
    for name in ALL {
        let expected = String::from_utf8(read(&format!("notary/{name}.jws.json"))).unwrap();
        let mut rebuilt = envelope(expected.as_bytes());
        assert_eq!(serde_json::to_string(&rebuilt).unwrap(), expected, "{name}");
        let ours = envelope(
            &sign(&signer(name, None), &subject(), at(SIGNED_AT))
                .unwrap()
                .layer,
        );
        assert_eq!(
            decode::<Value>(&ours.payload),
            decode::<Value>(&rebuilt.payload),
            "{name}"
        );
        rebuilt.payload.clone_from(&ours.payload);
        rebuilt.signature.clone_from(&ours.signature);
        rebuilt.header.agent.clone_from(&ours.header.agent);
        assert_eq!(
            serde_json::to_string(&rebuilt).unwrap(),
            serde_json::to_string(&ours).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_signature_of_notation_by_the_same_key_and_certificates_is_equal() {
    for name in ALL {
        let signer = signer(name, None);
        let expected = signer.shape.to_signature(
            read(&format!("notary/{name}.jws.json")),
            &subject(),
            at(SIGNED_AT),
        );
        assert!(
            signer.is_equal(
                &expected.manifest,
                &expected.layer,
                &subject(),
                at(SIGNED_AT)
            ),
            "{name}"
        );
        let elsewhere = signer
            .shape
            .to_signature(expected.layer, &another(), at(SIGNED_AT));
        assert!(
            !signer.is_equal(
                &elsewhere.manifest,
                &elsewhere.layer,
                &another(),
                at(SIGNED_AT)
            ),
            "{name}"
        );
    }
}

#[test]
fn a_signer_recognises_only_its_own_signatures() {
    let signer = signer("p256", None);
    let signature = sign(&signer, &subject(), at(SIGNED_AT)).unwrap();
    let equal = |signature: &Signature| {
        signer.is_equal(
            &signature.manifest,
            &signature.layer,
            &subject(),
            at(SIGNED_AT),
        )
    };
    assert!(equal(&signature));
    let changed = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = envelope(&signature.layer);
        change(&mut envelope);
        equal(&signer.shape.to_signature(
            serde_json::to_vec(&envelope).unwrap(),
            &subject(),
            at(SIGNED_AT),
        ))
    };
    assert!(changed(&|_| ()));
    assert!(
        changed(&|envelope| envelope.header.agent = "notation-go/1.3.2".to_owned()),
        "the agent is not signed"
    );
    assert!(
        !changed(&|envelope| envelope.header.x5c.truncate(2)),
        "no root"
    );
    assert!(
        !changed(&|envelope| envelope.header.x5c.reverse()),
        "another order"
    );
    assert!(
        !changed(&|envelope| envelope.signature = URL_SAFE_NO_PAD.encode([1; 64])),
        "another signature"
    );
    assert!(
        !changed(&|envelope| envelope.signature.clear()),
        "no signature"
    );
    assert!(
        !changed(&|envelope| envelope.payload = encode(&Payload {
            target_artifact: another()
        })),
        "another payload"
    );
    let with = |header: &str, value: Value| {
        changed(&|envelope| {
            let mut protected: Value = decode(&envelope.protected).unwrap();
            protected
                .as_object_mut()
                .unwrap()
                .insert(header.to_owned(), value.clone());
            envelope.protected = encode(&protected);
            let input = signing_input(&envelope.protected, &envelope.payload);
            envelope.signature = URL_SAFE_NO_PAD.encode(signer.key.sign(input.as_bytes()).unwrap());
        })
    };
    assert!(
        with("alg", "ES256".into()),
        "signed again, otherwise unchanged"
    );
    assert!(!with("alg", "ES384".into()));
    assert!(!with("crit", Value::Array(Vec::new())));
    assert!(!with("cty", "text/plain".into()));
    assert!(!with(
        "io.cncf.notary.signingScheme",
        "notary.x509.signingAuthority".into()
    ));
    assert!(!with("io.cncf.notary.signingTime", "yesterday".into()));
    assert!(
        !with("io.cncf.notary.verificationPlugin", "x".into()),
        "a header that affix does not write"
    );
    assert!(
        !with("io.cncf.notary.expiry", "2030-01-01T00:00:00Z".into()),
        "an expiry that was not asked for"
    );
}

#[test]
fn a_signature_is_renewed_in_the_last_third_of_its_life_or_for_another_expiry() {
    let layer = read("notary/p256.expiring.jws.json");
    let equal = |expiry, now: &str| {
        let signer = signer("p256", expiry);
        let expected = signer
            .shape
            .to_signature(layer.clone(), &subject(), at(SIGNED_AT));
        signer.is_equal(&expected.manifest, &expected.layer, &subject(), at(now))
    };
    assert!(equal(Some(EXPIRY), SIGNED_AT));
    assert!(equal(Some(EXPIRY), "2026-11-26T07:04:08Z"));
    assert!(
        !equal(Some(EXPIRY), "2026-11-26T07:04:09Z"),
        "after 60 of 90 hours"
    );
    assert!(!equal(Some(EXPIRY), "2030-01-01T00:00:00Z"), "long over");
    assert!(!equal(None, SIGNED_AT), "no expiry is asked for");
    assert!(
        !equal(Some(Duration::from_hours(91)), SIGNED_AT),
        "another is asked for"
    );
    assert_eq!(
        signer("p256", Some(EXPIRY)).renewal(),
        Some(Duration::from_hours(60))
    );
    assert_eq!(signer("p256", None).renewal(), None);
}

#[test]
fn an_expiry_out_of_range_is_refused() {
    for expiry in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
        let error = open("p256.key", "p256.crt", None, Some(expiry), SIGNED_AT)
            .err()
            .map(|error| error.to_string());
        assert!(
            error
                .as_ref()
                .is_some_and(|error| error.contains("at least 1 s")),
            "{expiry:?}: {error:?}"
        );
    }
    let signer = signer("p256", Some(Duration::from_secs(1 << 40)));
    assert!(matches!(
        sign(&signer, &subject(), at(SIGNED_AT)),
        Err(SigningError::Key(KeyError::Expiry { .. }))
    ));
}

#[test]
fn keys_in_pkcs1_and_sec1_are_the_same_keys() {
    for (key, chain) in [
        ("rsa-2048.pkcs1.key", "rsa-2048.crt"),
        ("p256.sec1.key", "p256.crt"),
    ] {
        let signer = open(key, chain, None, None, SIGNED_AT).unwrap();
        let signature = sign(&signer, &subject(), at(SIGNED_AT)).unwrap();
        assert!(
            signer.is_equal(
                &signature.manifest,
                &signature.layer,
                &subject(),
                at(SIGNED_AT)
            ),
            "{key}"
        );
    }
}

#[test]
fn a_root_that_the_chain_lacks_comes_from_ca_crt() {
    for name in ["p256", "rsa-2048"] {
        let short = open(
            &format!("{name}.key"),
            &format!("{name}.short.crt"),
            Some("root.crt"),
            None,
            SIGNED_AT,
        )
        .unwrap();
        assert_eq!(
            short.fingerprint(),
            signer(name, None).fingerprint(),
            "{name}"
        );
    }
    let error = open("p256.key", "p256.short.crt", None, None, SIGNED_AT)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with(
            "certificate \"CN=intermediate,O=affix tests\": its issuer \"CN=root,O=affix tests\""
        ),
        "{error}"
    );
    assert!(
        error.contains("is neither in tls.crt nor in ca.crt"),
        "{error}"
    );
    assert!(
        open(
            "p256.key",
            "p256.short.crt",
            Some("intermediate.crt"),
            None,
            SIGNED_AT
        )
        .is_err()
    );
}

#[test]
fn certificates_that_verifiers_refuse_are_refused_with_the_way_out() {
    for (chain, said) in [
        (
            "key-encipherment",
            "has key encipherment, which verifiers refuse: issue it for digital signature alone (cert-manager adds",
        ),
        (
            "server-auth",
            "extended key usage has server auth, client auth, which verifiers refuse: issue it with code signing",
        ),
        (
            "no-digital-signature",
            "its key usage lacks digital signature",
        ),
        ("no-key-usage", "it has no key usage"),
        (
            "key-usage-not-critical",
            "its key usage is not marked critical",
        ),
        ("extensions-malformed", "its extensions cannot be read"),
        (
            "authority",
            "it is a certificate authority, which must not sign images itself",
        ),
        (
            "expired",
            "it is valid from 2026-01-01T00:00:00Z to 2026-01-02T00:00:00Z only",
        ),
        (
            "issuer-no-authority",
            "its basic constraints make it no certificate authority",
        ),
        (
            "issuer-without-certificate-signing",
            "its key usage lacks certificate signing",
        ),
        (
            "path-length",
            "it allows 0 intermediate certificates below it, and there are 1",
        ),
        (
            "issuer-of-the-same-name",
            "did not issue it: order them from the key's own up to the root",
        ),
        ("order", "did not issue it: order them"),
        ("two-roots", "it is self-signed and not the last"),
    ] {
        let error = open(
            "p256.key",
            &format!("refused/{chain}.crt"),
            None,
            None,
            SIGNED_AT,
        )
        .err()
        .expect(chain)
        .to_string();
        assert!(
            error.contains(said) && error.starts_with("certificate \""),
            "{chain}: {error}"
        );
    }
}

#[test]
fn unsupported_keys_are_refused_with_their_cause() {
    for (key, chain, said) in [
        (
            "rsa-2048.key",
            "p256.crt",
            "tls.key does not belong to the first certificate of tls.crt (CN=p256",
        ),
        ("p384.key", "p256.crt", "tls.key does not belong"),
        (
            "../cosign/ed25519.pem",
            "p256.crt",
            "the private key in tls.key is Ed25519: RSA of 2048, 3072 or 4096 bits",
        ),
        (
            "refused/rsa-1024.key",
            "p256.crt",
            "the private key in tls.key cannot be read: RSA of 2048",
        ),
        (
            "../cosign/p256.openssl.pem",
            "p256.crt",
            "tls.key is encrypted in the format of OpenSSL, which affix does not open: store it without",
        ),
        (
            "p256.crt",
            "p256.crt",
            "tls.key holds a PEM block \"CERTIFICATE\"",
        ),
        ("../subject.json", "p256.crt", "tls.key holds no PEM block"),
        (
            "p256.key",
            "p256.key",
            "tls.crt holds a PEM block \"PRIVATE KEY\": CERTIFICATE is expected",
        ),
        ("p256.key", "../subject.json", "tls.crt holds no PEM block"),
    ] {
        let error = open(key, chain, None, None, SIGNED_AT)
            .err()
            .expect(key)
            .to_string();
        assert!(error.contains(said), "{key}: {error}");
    }
}

#[test]
fn broken_and_too_many_certificates_are_refused() {
    let key = read("notary/p256.key");
    let refusal = |chain: &[u8]| {
        NotationSigner::open(&key, chain, None, None, None, at(SIGNED_AT))
            .err()
            .unwrap()
            .to_string()
    };
    let good = read("notary/p256.crt");
    let broken = [
        good.as_slice(),
        b"-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n",
    ]
    .concat();
    assert_eq!(refusal(&broken), "certificate 4 of tls.crt cannot be read");
    assert_eq!(
        refusal(&good.repeat(11)),
        "tls.crt holds 33 certificates: at most 32 are read"
    );
}

#[test]
fn signing_fails_outside_of_the_validity_of_the_certificates() {
    let before = "2025-12-31T23:59:59Z";
    let problem = open("p256.key", "p256.crt", None, None, before).err();
    assert!(matches!(
        problem,
        Some(KeyError::Certificate {
            problem: CertificateProblem::OutsideValidity { .. },
            ..
        })
    ));
    let signer = signer("p256", None);
    assert_eq!(signer.ends(), Some(at("2125-12-31T23:59:59Z")));
    assert!(sign(&signer, &subject(), at("2125-12-31T23:59:59Z")).is_ok());
    assert!(sign(&signer, &subject(), at("2126-01-01T00:00:00Z")).is_err());
    assert!(sign(&signer, &subject(), at(before)).is_err());
}

#[test]
fn the_manifest_has_its_type_in_the_config_and_names_the_certificates() {
    let signer = signer("p256", None);
    let manifest = sign(&signer, &subject(), at("2026-11-23T19:04:09.999Z"))
        .unwrap()
        .manifest;
    assert_eq!(manifest.artifact_type, None);
    assert_eq!(
        manifest.effective_artifact_type(),
        signer.shape().listed_artifact_type()
    );
    assert_eq!(manifest.config, Descriptor::of(ARTIFACT_TYPE, b"{}"));
    assert_eq!(
        manifest
            .annotations
            .get("org.opencontainers.image.created")
            .unwrap(),
        SIGNED_AT
    );
    let thumbprints: Vec<String> =
        serde_json::from_str(manifest.annotations.get(THUMBPRINT).unwrap()).unwrap();
    let expected: Vec<String> = signer
        .chain
        .ders()
        .map(|der| Digest::sha256(der).hex().to_owned())
        .collect();
    assert_eq!((thumbprints.len(), thumbprints), (3, expected));
}

#[test]
fn the_fingerprint_changes_with_the_certificates_and_the_expiry_only() {
    let first = signer("p256", None).fingerprint();
    assert_eq!(
        first,
        open(
            "p256.sec1.key",
            "p256.crt",
            None,
            None,
            "2030-01-01T00:00:00Z"
        )
        .unwrap()
        .fingerprint()
    );
    assert_ne!(first, signer("p256", Some(EXPIRY)).fingerprint());
    assert_ne!(first, signer("p384", None).fingerprint());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_certificates_panic(at_byte in 0..900_usize, byte in proptest::num::u8::ANY, junk in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
        let key = read("notary/p256.key");
        let chain = read("notary/p256.crt");
        let mut der = pem::blocks(&chain).unwrap().remove(0).contents;
        if let Some(there) = der.get_mut(at_byte) {
            *there = byte;
        }
        for der in [der.as_slice(), &junk] {
            let file = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
            let _ = NotationSigner::open(&key, file.as_bytes(), Some(&chain), None, None, at(SIGNED_AT));
        }
    }
}
