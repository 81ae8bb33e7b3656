//! Cosign stores a key in the cluster, the operator signs with it, cosign verifies, and no output reveals the secret.

use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use serde_json::json;

use crate::controller::Controller;
use crate::namespace::Namespace;

const PASSWORD: &str = "canary-of-the-password";

#[tokio::test]
async fn the_operator_signs_with_a_key_of_cosign_and_never_reveals_its_password() {
    let tools = Tools::with(&[Tool::Cosign]).await.unwrap();
    let namespace = Namespace::new("signing").await;
    let registry = Registry::distribution(&tools)
        .basic("ci", "secret")
        .start()
        .await
        .unwrap();
    let index = Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"));
    let image = index
        .push(&registry.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();
    let peer = Peer::of(&tools, &registry).unwrap();
    let cosign = async |args: &[&str]| {
        let run = peer
            .run(Tool::Cosign)
            .unwrap()
            .env("COSIGN_PASSWORD", PASSWORD)
            .env("KUBECONFIG", namespace.plane.kubeconfig());
        run.args(args.iter().copied()).output().await.unwrap()
    };
    cosign(&[
        "generate-key-pair",
        &format!("k8s://{}/cosign-key", namespace.name),
    ])
    .await
    .stdout()
    .unwrap();
    namespace
        .login("login", registry.host(), "ci", "secret")
        .await;
    let spec = json!({
        "image": image.tagged(), "insecure": true, "secretRef": {"name": "login"}, "targets": {"platforms": ["linux/amd64"]},
        "signature": {"cosign": {"keySecretRef": {"name": "cosign-key"}}},
    });

    let controller = Controller::start(&namespace).await;
    namespace.apply("signed", spec.clone()).await;
    let status = namespace.ready("signed").await;
    assert_eq!(status.attached.as_deref(), Some("2/2"));
    for digest in [image.digest(), image.digest_of("linux/amd64").unwrap()] {
        cosign(&[
            "verify",
            "--key",
            "cosign.pub",
            "--insecure-ignore-tlog",
            &image.at(digest),
        ])
        .await
        .stdout()
        .unwrap();
    }
    let other = image.at(image.digest_of("linux/arm64").unwrap());
    cosign(&[
        "verify",
        "--key",
        "cosign.pub",
        "--insecure-ignore-tlog",
        &other,
    ])
    .await
    .failure()
    .unwrap();

    // The message about a malformed key names the cause and no part of the key.
    namespace
        .secret(
            "broken",
            json!({"cosign.key": "canary-of-the-key", "cosign.password": PASSWORD}),
        )
        .await;
    let mut broken = spec;
    broken["signature"]["cosign"]["keySecretRef"]["name"] = json!("broken");
    namespace.apply("broken", broken).await;
    let message = namespace
        .refused("broken", affix::api::Reason::KeyInvalid)
        .await;
    assert!(
        message.contains("\"broken\"") && message.contains("cosign.key"),
        "{message}"
    );
    for name in ["signed", "broken"] {
        let kind = namespace.status(name).await.artifact_type;
        assert_eq!(
            kind.as_deref(),
            Some("application/vnd.dev.sigstore.bundle.v0.3+json"),
            "the spec of {name} determines the type"
        );
    }
    let outputs = [
        controller.log(),
        controller.metrics().await,
        format!(
            "{:?}{:?}",
            namespace.events("signed").await,
            namespace.events("broken").await
        ),
        serde_json::to_string(&[
            namespace.status("signed").await,
            namespace.status("broken").await,
        ])
        .unwrap(),
    ];
    for output in outputs {
        assert!(!output.contains("canary"), "{output}");
    }
    namespace.check_rules().await;
}
