//! `affix attach` and `affix plan` with a signing key in a Secret among the files.

use serde_json::{Value, json};

use super::fixture::{BOTH, Fixture, code, resource, short};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const KEY: &str = include_str!("../vectors/signing/cosign/p256.pem");

fn documents(fixture: &Fixture, annotations: &Value) -> String {
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "annotations": annotations}, "stringData": {"cosign.key": KEY},
    });
    let signature = json!({"cosign": {"keySecretRef": {"name": "key"}}});
    let spec = json!({"image": fixture.image.tagged(), "targets": {"platforms": ["linux/amd64"]}, "signature": signature});
    format!("{}\n{key}", resource("signed", spec))
}

#[tokio::test]
async fn a_signature_is_planned_created_and_adopted() {
    for registry in BOTH {
        let fixture = Fixture::with(registry).await;
        let (index, amd64, arm64) = (
            fixture.image.digest(),
            fixture.image.digest_of("linux/amd64").unwrap(),
            fixture.image.digest_of("linux/arm64").unwrap(),
        );
        let text = documents(&fixture, &json!({}));

        let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        assert!(
            plan.out
                .contains(&format!("linux/amd64  {}  attach", short(amd64))),
            "{}",
            plan.out
        );
        assert!(
            plan.out.contains("2 of 2 targets would be attached"),
            "{}",
            plan.out
        );
        assert!(
            fixture.attached(index).await.is_empty(),
            "the plan pushed something"
        );

        let attach = fixture
            .affix(&["attach", "-f", "-", "-o", "json"], &text)
            .await;
        assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
        let object: Value = serde_json::from_str(&attach.out).unwrap();
        assert_eq!(
            (
                &object["status"]["attached"],
                &object["status"]["artifactType"]
            ),
            (&json!("2/2"), &json!(BUNDLE)),
            "{object:#}"
        );

        let again = fixture.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(
            (
                code(&again),
                again.out.matches("an equal attachment existed").count()
            ),
            (0, 2),
            "{}{}",
            again.out,
            again.err
        );
        for digest in [index, amd64] {
            assert_eq!(fixture.attached(digest).await, [BUNDLE]);
        }
        assert!(fixture.attached(arm64).await.is_empty());
        let secret = KEY.lines().nth(1).unwrap();
        for ran in [plan, attach, again] {
            assert!(
                !(ran.out + &ran.err).contains(secret),
                "the key was printed"
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_is_not_allowed_or_malformed_signs_nothing() {
    let fixture = Fixture::new().await;
    let elsewhere = documents(
        &fixture,
        &json!({"affix.dev/repositories": "registry.example.com/team/*"}),
    );
    let broken = documents(&fixture, &json!({})).replace("PRIVATE KEY", "PUBLIC KEY");
    for (text, exit, said) in [
        (elsewhere, 2, "affix.dev/repositories"),
        (broken, 1, "KeyInvalid"),
    ] {
        for verb in ["plan", "attach"] {
            let ran = fixture.affix(&[verb, "-f", "-"], &text).await;
            assert_eq!(code(&ran), exit, "{verb}: {}{}", ran.out, ran.err);
            assert!(
                (ran.out.clone() + &ran.err).contains(said),
                "{verb}: {}{}",
                ran.out,
                ran.err
            );
        }
    }
    assert!(fixture.attached(fixture.image.digest()).await.is_empty());
}

#[tokio::test]
async fn a_plan_needs_no_key_and_says_what_it_cannot_know() {
    let fixture = Fixture::new().await;
    let documents = documents(&fixture, &json!({}));
    let resource_only = documents.lines().next().unwrap();
    let notation = resource_only.replace("\"cosign\"", "\"notation\"");
    let attach = fixture.affix(&["attach", "-f", "-"], resource_only).await;
    assert_eq!(code(&attach), 2, "{}{}", attach.out, attach.err);
    assert!(
        attach
            .err
            .contains("spec.signature.cosign.keySecretRef: the Secret \"key\" is not there"),
        "{}",
        attach.err
    );
    let before = fixture.registry.mark().unwrap();
    for text in [resource_only, &notation] {
        let plan = fixture.affix(&["plan", "-f", "-"], text).await;
        assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
        let amd64 = short(fixture.image.digest_of("linux/amd64").unwrap());
        let row = format!("linux/amd64  {amd64}  unknown");
        for part in [
            row.as_str(),
            "linux/arm64",
            "skip",
            "2 targets selected; without the key",
        ] {
            assert!(plan.out.contains(part), "{part}: {}", plan.out);
        }
        assert!(!plan.out.contains("no equal attachment"), "{}", plan.out);
    }
    let requests = fixture.registry.requests_since(before).unwrap();
    assert!(
        requests
            .iter()
            .all(|request| ["GET", "HEAD"].contains(&request.method.as_str())),
        "{requests:?}"
    );
    // The plan with the status of a signed resource removes nothing that only the key could tell apart.
    let attach = fixture
        .affix(&["attach", "-f", "-", "-o", "json"], &documents)
        .await;
    assert_eq!(code(&attach), 0, "{}{}", attach.out, attach.err);
    let plan = fixture.affix(&["plan", "-f", "-"], &attach.out).await;
    assert_eq!(code(&plan), 0, "{}{}", plan.out, plan.err);
    assert!(!plan.out.contains("  remove  "), "{}", plan.out);
}

#[tokio::test]
async fn a_resource_that_cannot_be_planned_does_not_end_the_other_plans() {
    let fixture = Fixture::new().await;
    let good = documents(&fixture, &json!({}));
    let file =
        json!({"name": "a", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "a"}}});
    let bad = resource(
        "bad",
        json!({"image": fixture.image.tagged(), "artifact": {"artifactType": "a/b", "files": [file]}}),
    );
    let text = format!("{bad}\n{good}");
    let plan = fixture.affix(&["plan", "-f", "-"], &text).await;
    assert_eq!(code(&plan), 1, "{}{}", plan.out, plan.err);
    for part in [
        "default/bad",
        "FileMissing: ",
        "2 of 2 targets would be attached",
    ] {
        assert!(plan.out.contains(part), "{part}: {}", plan.out);
    }
    let attach = fixture.affix(&["attach", "-f", "-"], &text).await;
    assert_eq!(code(&attach), 2, "{}{}", attach.out, attach.err);
}
