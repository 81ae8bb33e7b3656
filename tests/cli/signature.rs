//! `affix attach` and `affix plan` where the resource signs: the key comes from a Secret among the files.

use serde_json::{Value, json};

use super::desk::{BOTH, Desk, code, resource, short};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const KEY: &str = include_str!("../vectors/signing/cosign/p256.pem");

fn documents(desk: &Desk, annotations: &Value) -> String {
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "annotations": annotations}, "stringData": {"cosign.key": KEY},
    });
    let signature = json!({"cosign": {"keySecretRef": {"name": "key"}}});
    let spec = json!({"image": desk.image.tagged(), "targets": {"platforms": ["linux/amd64"]}, "signature": signature});
    format!("{}\n{key}", resource("signed", spec))
}

#[tokio::test]
async fn a_signature_is_planned_made_once_and_then_adopted_and_its_key_is_never_printed() {
    for registry in BOTH {
        let desk = Desk::with(registry).await;
        let (index, amd64, arm64) = (
            desk.image.digest(),
            desk.image.digest_of("linux/amd64").unwrap(),
            desk.image.digest_of("linux/arm64").unwrap(),
        );
        let text = documents(&desk, &json!({}));

        let plan = desk.affix(&["plan", "-f", "-"], &text).await;
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
            desk.attached(index).await.is_empty(),
            "a plan wrote something"
        );

        let attach = desk
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

        let again = desk.affix(&["attach", "-f", "-"], &text).await;
        assert_eq!(
            (
                code(&again),
                again.out.matches("an equal one was there").count()
            ),
            (0, 2),
            "{}{}",
            again.out,
            again.err
        );
        for digest in [index, amd64] {
            assert_eq!(desk.attached(digest).await, [BUNDLE]);
        }
        assert!(desk.attached(arm64).await.is_empty());
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
async fn a_key_that_may_not_sign_here_or_is_none_signs_nothing_and_says_why() {
    let desk = Desk::new().await;
    let elsewhere = documents(
        &desk,
        &json!({"affix.dev/repositories": "registry.example.com/team/*"}),
    );
    let broken = documents(&desk, &json!({})).replace("PRIVATE KEY", "PUBLIC KEY");
    let absent = documents(&desk, &json!({}))
        .lines()
        .next()
        .unwrap()
        .to_owned();
    for (text, exit, said) in [
        (elsewhere, 2, "affix.dev/repositories"),
        (broken, 1, "KeyInvalid"),
        (
            absent,
            2,
            "spec.signature.cosign.keySecretRef: the Secret \"key\" is not there",
        ),
    ] {
        for verb in ["plan", "attach"] {
            let ran = desk.affix(&[verb, "-f", "-"], &text).await;
            assert_eq!(code(&ran), exit, "{verb}: {}{}", ran.out, ran.err);
            assert!(
                (ran.out.clone() + &ran.err).contains(said),
                "{verb}: {}{}",
                ran.out,
                ran.err
            );
        }
    }
    assert!(desk.attached(desk.image.digest()).await.is_empty());
}
