//! Signed statements with cosign keys. The real cosign verifies them.

use affix::api::Origin;
use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use crate::cosign::{PASSWORD, cosign, key_pair};
use crate::judges::{Judge, Question, Trusted};
use crate::runner::{Fixture, Runner};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Each type of predicate as a user writes it, as `cosign verify-attestation --type` takes it, and its URI.
const TYPES: [(&str, &str, &str); 12] = [
    (
        "custom",
        "custom",
        "https://cosign.sigstore.dev/attestation/v1",
    ),
    ("cyclonedx", "cyclonedx", "https://cyclonedx.org/bom"),
    (
        "https://cyclonedx.org/bom",
        "cyclonedx",
        "https://cyclonedx.org/bom",
    ),
    ("link", "link", "https://in-toto.io/Link/v1"),
    ("openvex", "openvex", "https://openvex.dev/ns"),
    (
        "slsaprovenance",
        "slsaprovenance",
        "https://slsa.dev/provenance/v0.2",
    ),
    (
        "slsaprovenance02",
        "slsaprovenance02",
        "https://slsa.dev/provenance/v0.2",
    ),
    (
        "slsaprovenance1",
        "slsaprovenance1",
        "https://slsa.dev/provenance/v1",
    ),
    ("spdx", "spdx", "https://spdx.dev/Document"),
    ("spdxjson", "spdxjson", "https://spdx.dev/Document"),
    (
        "vuln",
        "vuln",
        "https://cosign.sigstore.dev/attestation/vuln/v1",
    ),
    (
        "https://example.com/review/v1",
        "https://example.com/review/v1",
        "https://example.com/review/v1",
    ),
];

fn runner(fixture: &Fixture, key: &[u8], attestation: Value) -> Runner {
    let spec = fixture.spec(
        &fixture.image.tagged(),
        &json!({"attestation": attestation}),
    );
    let files: [(&str, &[u8]); 2] = [
        ("cosign.key", key),
        ("cosign.password", PASSWORD.as_bytes()),
    ];
    Runner::new(fixture, &spec, &[("key", &files)])
}

fn given(predicate_type: &str, predicate: &Value) -> Value {
    json!({
        "predicateType": predicate_type, "predicates": [{"value": predicate.to_string()}],
        "cosign": {"keySecretRef": {"name": "key"}},
    })
}

/// Runs `cosign verify-attestation` and returns the verified statements.
async fn verified(
    fixture: &Fixture,
    key: &str,
    kind: &str,
    image: &str,
) -> Result<Vec<Value>, String> {
    use base64::Engine as _;
    let key = format!("{key}.pub");
    let args = [
        "verify-attestation",
        "--key",
        &key,
        "--insecure-ignore-tlog",
        "--type",
        kind,
        image,
    ];
    let out = cosign(fixture, &args).await?;
    let payload = |line: &str| -> Option<Value> {
        let envelope: Value = serde_json::from_str(line).ok()?;
        let payload =
            base64::engine::general_purpose::STANDARD.decode(envelope["payload"].as_str()?);
        serde_json::from_slice(&payload.ok()?).ok()
    };
    Ok(out.lines().filter_map(payload).collect())
}

#[tokio::test]
async fn cosign_verifies_every_type_of_statement_on_the_index_and_the_platforms() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        key_pair(&fixture, "other").await;
        for (written, kind, uri) in TYPES {
            let predicate = json!({"about": written, "n": 1.5, "list": [1, {"a": null}]});
            let mut runner = runner(&fixture, &key, given(written, &predicate));
            assert_eq!(
                runner.ready().await.attached().as_deref(),
                Some("2/2"),
                "{written}"
            );
            for digest in fixture.signed() {
                let image = fixture.image.at(&digest);
                let found = verified(&fixture, "cosign", kind, &image).await;
                let found = found.unwrap_or_else(|error| panic!("{written} on {digest}: {error}"));
                let found = found
                    .iter()
                    .find(|statement| statement["predicate"] == predicate);
                let found = found.unwrap_or_else(|| panic!("{written} on {digest}"));
                assert_eq!(found["predicateType"], uri, "{written}");
                let hex = digest.strip_prefix("sha256:").unwrap();
                assert_eq!(found["subject"][0]["digest"]["sha256"], hex, "{written}");
                verified(&fixture, "other", kind, &image).await.unwrap_err();
            }
            let unselected = fixture.image.at(&fixture.unsigned());
            verified(&fixture, "cosign", kind, &unselected)
                .await
                .unwrap_err();
        }
    }
}

#[tokio::test]
async fn a_statement_of_the_real_cosign_is_adopted_and_a_changed_predicate_replaces_ours_only() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let vex = json!({"@context": "https://openvex.dev/ns/v0.2.0", "@id": "https://example.com/vex", "author": "a",
            "timestamp": "2026-11-24T00:11:52Z", "version": 1, "statements": []});
        std::fs::write(
            fixture.peer.file("vex.json"),
            serde_json::to_vec_pretty(&vex).unwrap(),
        )
        .unwrap();
        let index = fixture.image.at(fixture.image.digest());
        let attest = [
            "attest",
            "--key",
            "cosign.key",
            "--allow-http-registry",
            "--use-signing-config=false",
            "--tlog-upload=false",
            "--yes",
            "--type",
            "https://example.com/vex",
            "--predicate",
            "vex.json",
            &index,
        ];
        cosign(&fixture, &attest).await.unwrap();
        let mut runner = runner(&fixture, &key, given("https://example.com/vex", &vex));
        runner.ready().await;
        let origins: Vec<_> = runner
            .status
            .targets
            .iter()
            .filter_map(|row| row.origin)
            .collect();
        assert_eq!(origins, [Origin::Adopted, Origin::Made]);
        assert_eq!(
            fixture.listed(fixture.image.digest(), BUNDLE).await.len(),
            1
        );
        let mut newer = vex.clone();
        newer["version"] = json!(2);
        runner.change_spec(&fixture.spec(
            &fixture.image.tagged(),
            &json!({"attestation": given("https://example.com/vex", &newer)}),
        ));
        runner.advance(7 * 24 * 3600);
        runner.ready().await;
        // The statement of another owner stays on the index, and ours is replaced on the platform.
        for (digest, versions) in fixture.signed().iter().zip([vec![1, 2], vec![2]]) {
            let found = verified(
                &fixture,
                "cosign",
                "https://example.com/vex",
                &fixture.image.at(digest),
            )
            .await
            .unwrap();
            let mut found: Vec<_> = found
                .iter()
                .map(|of| of["predicate"]["version"].as_u64().unwrap())
                .collect();
            found.sort_unstable();
            assert_eq!(found, versions, "{digest}");
        }
    }
}

#[tokio::test]
async fn cosign_verifies_the_statements_of_the_build_on_their_platforms_alone() {
    for fixture in Fixture::both().await {
        let key = key_pair(&fixture, "cosign").await;
        let platforms = ["linux/amd64", "linux/arm64"];
        let index = Index::new()
            .image(Image::new(platforms[0], "b1b1"))
            .image(Image::new(platforms[1], "c1c1"))
            .attestation(platforms[0])
            .attestation_with_subject(platforms[1]);
        let raw = fixture.registry.raw().unwrap();
        let image = index.push(&raw, "team/built", "v1").await.unwrap();
        let attestation = json!({"fromBuild": {"predicateTypes": ["https://slsa.dev/provenance/*"]}, "cosign": {"keySecretRef": {"name": "key"}}});
        let mut runner = runner(&fixture, &key, attestation.clone());
        let mut spec = fixture.spec(&image.tagged(), &json!({"attestation": attestation}));
        spec["targets"] = json!({});
        runner.change_spec(&spec);
        assert_eq!(runner.ready().await.attached().as_deref(), Some("2/2"));
        for platform in platforms {
            let digest = image.digest_of(platform).unwrap();
            let found = verified(&fixture, "cosign", "slsaprovenance02", &image.at(digest))
                .await
                .unwrap();
            let [statement] = found.as_slice() else {
                panic!("{platform}: {found:#?}")
            };
            assert_eq!(
                statement["subject"][0]["digest"]["sha256"],
                digest.strip_prefix("sha256:").unwrap()
            );
        }
        verified(&fixture, "cosign", "slsaprovenance02", &image.pinned())
            .await
            .unwrap_err();
        assert_eq!(runner.interval_pass().await.requests, 1);
    }
}

/// The policy of `docs/policies` admits an image with an SBOM by the key, on the index and on each platform, and no other one.
#[tokio::test]
#[ignore = "needs Kyverno, which takes minutes to build"]
async fn kyverno_admits_images_with_a_signed_sbom_of_the_key_alone() {
    let tools = Tools::with(&[Tool::Cosign, Tool::Notation, Tool::Kyverno])
        .await
        .unwrap();
    for mut fixture in Fixture::both().await {
        fixture.peer = Peer::of(&tools, &fixture.registry).unwrap();
        let key = key_pair(&fixture, "cosign").await;
        let other = key_pair(&fixture, "other").await;
        let pem = std::fs::read_to_string(fixture.peer.file("cosign.pub")).unwrap();
        let trusted = Trusted {
            name: "sbom",
            prefix: format!("{}/team", fixture.registry.host()),
            pem,
        };
        let raw = fixture.registry.raw().unwrap();
        let sbom = json!({"SPDXID": "SPDXRef-DOCUMENT", "spdxVersion": "SPDX-2.3"});
        let mut questions = Vec::new();
        let mut expected = Vec::new();
        for (name, signer, kind, admitted) in [
            ("signed", Some(&key), "spdxjson", true),
            ("other-key", Some(&other), "spdxjson", false),
            ("other-type", Some(&key), "openvex", false),
            ("none", None, "", false),
        ] {
            let index = Index::new()
                .image(Image::new("linux/amd64", &format!("{name} b1b1")))
                .image(Image::new("linux/arm64", &format!("{name} c1c1")));
            let image = index
                .push(&raw, &format!("team/{name}"), "v1")
                .await
                .unwrap();
            if let Some(signer) = signer {
                let mut runner = runner(&fixture, signer, given(kind, &sbom));
                let wanted = json!({"attestation": given(kind, &sbom), "targets": {}});
                runner.change_spec(&fixture.spec(&image.tagged(), &wanted));
                runner.ready().await;
            }
            let platform = image.digest_of("linux/arm64").unwrap();
            for image in [image.pinned(), image.at(platform)] {
                expected.push((image.clone(), admitted));
                questions.push(Question {
                    key: &trusted,
                    image,
                    instance: None,
                });
            }
        }
        let answers = Judge::KyvernoAttestation
            .judge(&fixture.peer, &questions)
            .await;
        for ((image, admitted), answer) in expected.into_iter().zip(answers) {
            assert_eq!(answer.is_ok(), admitted, "{image}: {answer:?}");
            let refusal = answer.err().unwrap_or_default();
            assert!(
                admitted || refusal.contains("the image has no SBOM"),
                "{image}: {refusal}"
            );
        }
    }
}
