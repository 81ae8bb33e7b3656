//! The tools beyond the core: signatures, charts, and the end of namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's failure is its message"
)]

use affix_testbed::certificates::Authority;
use affix_testbed::control_plane::{ControlPlane, ControllerManager};
use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn cosign_verifies_what_cosign_signed_and_nothing_else() {
    let tools = Tools::all().await.unwrap();
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools)
            .basic("alice", "secret")
            .start()
            .await
            .unwrap();
        let raw = registry.raw().unwrap();
        let signed = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .push(&raw, "team/app", "v1")
            .await
            .unwrap();
        let other = Index::new()
            .image(Image::new("linux/amd64", "r1r1"))
            .push(&raw, "team/app", "v2")
            .await
            .unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        let cosign = |args: &[&str]| peer.run(Tool::Cosign).unwrap().args(args).output();
        cosign(&["generate-key-pair"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let sign = [
            "sign",
            "--key",
            "cosign.key",
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--yes",
            &signed.pinned(),
        ];
        cosign(&sign).await.unwrap().stdout().unwrap();
        let pinned = signed.pinned();
        cosign(&[
            "verify",
            "--key",
            "cosign.pub",
            "--insecure-ignore-tlog",
            &pinned,
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
        let pinned = other.pinned();
        cosign(&[
            "verify",
            "--key",
            "cosign.pub",
            "--insecure-ignore-tlog",
            &pinned,
        ])
        .await
        .unwrap()
        .failure()
        .unwrap();
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn notation_verifies_what_notation_signed_under_its_root_and_under_no_other() {
    let tools = Tools::all().await.unwrap();
    let signer = Authority::new().unwrap().signer().unwrap();
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools)
            .basic("alice", "secret")
            .start()
            .await
            .unwrap();
        let raw = registry.raw().unwrap();
        let pushed = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .push(&raw, "team/app", "v1")
            .await
            .unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        std::fs::write(peer.file("leaf.key"), &signer.key).unwrap();
        std::fs::write(peer.file("chain.pem"), &signer.chain).unwrap();
        std::fs::write(peer.file("root.pem"), &signer.root).unwrap();
        std::fs::write(peer.file("other.pem"), Authority::new().unwrap().pem()).unwrap();
        let access = ["-plain-http", "-basic=alice:secret"];
        let image = pushed.pinned();
        let notation = |args: &[&str]| {
            peer.run(Tool::Notation)
                .unwrap()
                .args(args)
                .args(access)
                .args([&image])
                .output()
        };

        let missing = notation(&["verify", "-trust-root=root.pem"])
            .await
            .unwrap()
            .failure()
            .unwrap();
        assert!(missing.contains("no signature"), "{missing}");
        let made = notation(&["sign", "-key=leaf.key", "-chain=chain.pem"])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        let scope = format!("-scope={}/team/app", registry.host());
        let verified = notation(&["verify", "-trust-root=root.pem", &scope])
            .await
            .unwrap()
            .stdout()
            .unwrap();
        assert_eq!(verified, made);
        assert!(
            raw.manifest("team/app", made.trim())
                .await
                .unwrap()
                .status
                .is_success()
        );
        let refused = notation(&["verify", "-trust-root=other.pem"])
            .await
            .unwrap()
            .failure()
            .unwrap();
        assert!(
            refused.contains("not produced by a trusted signer") || refused.contains("trust"),
            "{refused}"
        );
    }
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn helm_and_kubeconform_run_with_a_home_of_their_own() {
    let tools = Tools::all().await.unwrap();
    let peer = Peer::new(&tools).unwrap();
    let helm = |args: &[&str]| peer.run(Tool::Helm).unwrap().args(args).output();
    helm(&["create", "chart"]).await.unwrap().stdout().unwrap();
    let rendered = helm(&["template", "chart"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    assert!(rendered.contains("kind: Deployment"), "{rendered}");
    // The schemas are the caller's: nothing is downloaded, so there is none for anything here.
    let folder = "-schema-location=schemas/{{ .ResourceKind }}.json";
    let args = [
        "-ignore-missing-schemas",
        "-output=json",
        "-summary",
        folder,
    ];
    let checked = peer
        .run(Tool::Kubeconform)
        .unwrap()
        .args(args)
        .input(rendered)
        .output()
        .await
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(checked["summary"]["invalid"], 0, "{checked}");
}

#[tokio::test]
#[ignore = "needs the tools beyond the core, which take minutes to build"]
async fn with_the_controller_manager_a_namespace_ends_and_what_it_held_goes() {
    let tools = Tools::all().await.unwrap();
    let cluster = ControlPlane::start(&tools).await.unwrap();
    let mut manager = ControllerManager::start(&tools, &cluster).await.unwrap();
    let kubectl = |args: &[&str]| {
        cluster.kubectl(args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    };
    kubectl(&["create", "namespace", "team"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    kubectl(&["create", "configmap", "kept", "--namespace", "team"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    kubectl(&["delete", "namespace", "team", "--timeout=60s"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let gone = kubectl(&["get", "namespace", "team"])
        .await
        .unwrap()
        .failure()
        .unwrap();
    assert!(gone.contains("not found"), "{gone}");
    manager.stop().await.unwrap();
}
