//! Runs `examples/attach.rs` against real registries and reads its result with other clients.

#[path = "../../examples/attach.rs"]
mod attach;

use affix_registry::Keychain;
use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::Tools;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};

use crate::support::NAME;

const TYPE: &str = "application/spdx+json";
const CONTENT: &str = r#"{"spdxVersion":"SPDX-2.3"}"#;

#[tokio::test]
async fn the_example_attaches_a_file_that_oras_and_oci_client_find() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tools = Tools::core().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sbom.spdx.json");
    std::fs::write(&file, CONTENT).unwrap();
    for kind in [Registry::distribution, Registry::ociregistry] {
        let registry = kind(&tools).basic("alice", "secret").start().await.unwrap();
        let pushed = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .push(&registry.raw().unwrap(), NAME, "v1")
            .await
            .unwrap();
        let report = attach::run(attach::Input {
            image: pushed.tagged().parse().unwrap(),
            file: file.clone(),
            artifact_type: TYPE.parse().unwrap(),
            credentials: Keychain::login(registry.host(), "alice", "secret".into()).unwrap(),
            plain_http: true,
        })
        .await
        .unwrap();
        let digest = report.split(' ').nth(1).unwrap();
        assert!(
            report
                .lines()
                .any(|line| line == format!("{digest} {TYPE}")),
            "{report}"
        );
        let peer = Peer::of(&tools, &registry).unwrap();
        let found = peer
            .oras(["discover", "--format", "json", &pushed.pinned()])
            .await
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(found["referrers"][0]["digest"], digest, "{found}");
        assert_eq!(found["referrers"][0]["artifactType"], TYPE, "{found}");
        read_with_oci_client(&pushed.pinned(), &pushed.at(digest)).await;
    }
}

/// Lists the referrers of `subject` and downloads the file of `attachment`.
async fn read_with_oci_client(subject: &str, attachment: &str) {
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    });
    let login = RegistryAuth::Basic("alice".to_owned(), "secret".to_owned());
    let subject = subject.parse().unwrap();
    client
        .auth(&subject, &login, RegistryOperation::Pull)
        .await
        .unwrap();
    let listing = client.pull_referrers(&subject, Some(TYPE)).await.unwrap();
    assert_eq!(listing.manifests.len(), 1, "{listing}");
    let attachment = attachment.parse().unwrap();
    let (manifest, _) = client
        .pull_image_manifest(&attachment, &login)
        .await
        .unwrap();
    let mut content = Vec::new();
    client
        .pull_blob(&attachment, &manifest.layers[0], &mut content)
        .await
        .unwrap();
    assert_eq!(content, CONTENT.as_bytes());
}
