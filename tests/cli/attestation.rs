//! `affix plan`, `attach`, `tree` and `detach` of signed statements.

use serde_json::{Value, json};

use super::fixture::{BOTH, Fixture, code, resource};

const KEY: &str = include_str!("../vectors/signing/cosign/p256.pem");
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Returns a resource with its key and its predicates.
fn documents(fixture: &Fixture, attestation: Value) -> String {
    let key = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"cosign.key": KEY}});
    let boms = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "boms"}, "data": {
        "amd64.json": "{\"of\": \"amd64\"}", "index.json": "{\"of\": \"index\"}"}});
    let mut attestation = attestation;
    attestation["cosign"] = json!({"keySecretRef": {"name": "key"}});
    let spec = json!({"image": format!("{}@{}", fixture.image.tagged(), fixture.image.digest()),
        "targets": {"platforms": ["linux/amd64"]}, "attestation": attestation});
    format!("{}\n{key}\n{boms}", resource("stated", spec))
}

fn boms() -> Value {
    let from = |key: &str| json!({"configMapKeyRef": {"name": "boms", "key": key}});
    json!({"predicateType": "cyclonedx", "predicates": [
        {"target": "index", "valueFrom": from("index.json")}, {"target": "linux/amd64", "valueFrom": from("amd64.json")}]})
}

#[tokio::test]
async fn statements_are_planned_attached_adopted_shown_and_detached() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let amd64 = fixture.image.digest_of("linux/amd64").unwrap();
        for (attestation, targets, kind) in [
            (
                boms(),
                vec![fixture.image.digest(), amd64],
                "https://cyclonedx.org/bom",
            ),
            (
                json!({"fromBuild": {}}),
                vec![amd64],
                "https://slsa.dev/provenance/v0.2",
            ),
        ] {
            let text = documents(&fixture, attestation);
            let count = targets.len();
            let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
            assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
            let planned = format!("{count} of {count} target");
            assert!(plan.out.contains(&planned), "{}", plan.out);
            for digest in &targets {
                assert!(
                    fixture.attached(digest).await.is_empty(),
                    "a plan pushes nothing"
                );
            }
            let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
            assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
            let again = fixture.affix(&["attach", "-f", "-"], &text).await;
            let adopted = again.out.matches("an equal attachment existed").count();
            assert_eq!(
                (code(&again), adopted),
                (0, count),
                "{}{}",
                again.out,
                again.err
            );
            for digest in &targets {
                assert_eq!(fixture.attached(digest).await, [BUNDLE]);
            }
            let image = fixture.image.tagged();
            let tree = fixture.affix(&["tree", "--plain-http", &image], "").await;
            assert_eq!(tree.out.matches(kind).count(), count, "{}", tree.out);
            let detach = fixture.affix(&["detach", "--yes", "-f", "-"], &text).await;
            assert_eq!(code(&detach), 0, "{}{}", detach.out, detach.err);
            for digest in &targets {
                assert!(fixture.attached(digest).await.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_plan_of_statements_needs_no_key() {
    let fixture = Fixture::new().await;
    for attestation in [boms(), json!({"fromBuild": {}})] {
        let text = documents(&fixture, attestation);
        let (text, _) = text
            .split_once("\n{\"apiVersion\":\"v1\",\"kind\":\"Secret\"")
            .unwrap();
        let boms = documents(&fixture, boms());
        let text = format!("{text}\n{}", boms.lines().last().unwrap());
        let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        assert!(plan.out.contains("without the key"), "{}", plan.out);
    }
}

#[tokio::test]
async fn wrong_statements_end_before_the_first_push_with_their_cause() {
    let fixture = Fixture::new().await;
    let no_object = json!({"predicateType": "cyclonedx", "predicates": [{"value": "[]"}]});
    let no_type = json!({"predicates": [{"value": "{}"}]});
    let absent = json!({"predicateType": "openvex", "predicates": [{"valueFrom": {"configMapKeyRef": {"name": "boms", "key": "none"}}}]});
    for (attestation, exit, said) in [
        (no_object, [1, 2], "not a JSON object"),
        (no_type, [2, 2], "predicateType is needed"),
        (absent, [2, 2], "has no key \"none\""),
        (
            json!({"fromBuild": {"predicateTypes": ["https://spdx.dev/Document"]}}),
            [1, 1],
            "the build put no statement of a type among https://spdx.dev/Document",
        ),
    ] {
        let text = documents(&fixture, attestation);
        let ran = fixture.affix(&["attach", "-f", "-"], &text).await;
        assert!(exit.contains(&code(&ran)), "{}{}", ran.out, ran.err);
        let all = ran.out + &ran.err;
        assert!(all.contains(said), "{said}: {all}");
    }
    let amd64 = fixture.image.digest_of("linux/amd64").unwrap();
    for digest in [fixture.image.digest(), amd64] {
        assert!(fixture.attached(digest).await.is_empty());
    }
}
