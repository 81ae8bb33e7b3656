//! The Sigstore instance: what cosign signs with its services, cosign verifies with its trusted root.

#![allow(clippy::unwrap_used, reason = "a test's failure is its message")]

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::sigstore::{AUDIENCE, Part, Sigstore};
use affix_testbed::tools::{Tool, Tools};

#[tokio::test]
#[ignore = "needs a Sigstore instance, which takes minutes to build"]
async fn cosign_signs_with_the_services_and_verifies_with_the_trusted_root() {
    let tools = Tools::sigstore().await.unwrap();
    let cluster = ControlPlane::start(&tools).await.unwrap();
    let mut sigstore = Sigstore::start(&tools, &cluster).await.unwrap();
    let registry = Registry::ociregistry(&tools).start().await.unwrap();
    let raw = registry.raw().unwrap();
    let image = async |name: &str| {
        let index = Index::new().image(Image::new("linux/amd64", "b1b1"));
        index.push(&raw, name, "v1").await.unwrap().pinned()
    };
    let (keyless, keyed) = (image("team/keyless").await, image("team/keyed").await);
    let peer = Peer::of(&tools, &registry).unwrap();
    let cosign = |args: &[&str]| peer.run(Tool::Cosign).unwrap().args(args).output();
    let root = format!("--trusted-root={}", sigstore.trusted_root_file().display());
    let config = format!(
        "--signing-config={}",
        sigstore.signing_config_file().display()
    );

    cluster
        .kubectl(["create", "serviceaccount", "signer"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let audience = format!("--audience={AUDIENCE}");
    let token = cluster
        .kubectl(["create", "token", "signer", &audience])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    std::fs::write(peer.file("token"), token.trim()).unwrap();
    let token = "--identity-token=token";
    let sign = ["sign", token, &config, &root, "--yes", &keyless];
    cosign(&sign).await.unwrap().stdout().unwrap();
    let issuer = format!("--certificate-oidc-issuer={}", cluster.url());
    let verify = async |account: &str| {
        let identity = format!(
            "--certificate-identity=https://kubernetes.io/namespaces/default/serviceaccounts/{account}"
        );
        cosign(&["verify", &root, &identity, &issuer, &keyless])
            .await
            .unwrap()
    };
    verify("signer").await.stdout().unwrap();
    assert!(!verify("other").await.status.success());

    cosign(&["generate-key-pair"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let sign = ["sign", "--key=cosign.key", &config, &root, "--yes", &keyed];
    cosign(&sign).await.unwrap().stdout().unwrap();
    let verify = ["verify", "--key=cosign.pub", &root, &keyed];
    cosign(&verify).await.unwrap().stdout().unwrap();

    sigstore.kill(Part::Rekor).await.unwrap();
    let again = image("team/again").await;
    let sign = ["sign", "--key=cosign.key", &config, &root, "--yes", &again];
    assert!(!cosign(&sign).await.unwrap().status.success());
    sigstore.start_again(&tools, Part::Rekor).await.unwrap();
    cosign(&sign).await.unwrap().stdout().unwrap();
}
