//! The attachments of a release: the script of the release workflow signs the image and the chart with affix.

use affix_testbed::images::{Image, Index};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PASSWORD: &str = "correct: \"horse\" 'battery'";

#[tokio::test]
async fn a_release_signs_its_image_and_chart_and_attaches_its_bill_of_materials() {
    let tools = Tools::with(&[Tool::Cosign, Tool::Helm]).await.unwrap();
    for options in [Registry::ociregistry, Registry::distribution] {
        let registry = options(&tools).basic("ci", "secret").start().await.unwrap();
        let index = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .image(Image::new("linux/arm64", "c1c1"));
        let image = index
            .attestation("linux/amd64")
            .push(&registry.raw().unwrap(), "team/affix", "v1")
            .await
            .unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        let cosign = async |args: &[&str]| {
            peer.run(Tool::Cosign)
                .unwrap()
                .env("COSIGN_PASSWORD", PASSWORD)
                .args(args.iter().copied())
                .output()
                .await
                .unwrap()
        };
        cosign(&["generate-key-pair"]).await.stdout().unwrap();
        let key = std::fs::read_to_string(peer.file("cosign.key")).unwrap();

        // The chart is no index, and its config has no platform.
        let helm = async |args: Vec<String>| {
            let run = peer
                .run(Tool::Helm)
                .unwrap()
                .env("HELM_REGISTRY_CONFIG", peer.file("config.json"))
                .args(args);
            let ran = run.output().await.unwrap();
            let told = format!("{}{}", ran.out, ran.err);
            ran.stdout().unwrap();
            told
        };
        helm(vec!["package".to_owned(), format!("{ROOT}/charts/affix")]).await;
        let package = std::fs::read_dir(peer.file(""))
            .unwrap()
            .map(|file| file.unwrap().path());
        let package = package
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "tgz"))
            .unwrap();
        let to = format!("oci://{}/team/charts", registry.host());
        let told = helm(vec![
            "push".to_owned(),
            "--plain-http".to_owned(),
            package.display().to_string(),
            to,
        ])
        .await;
        let digest = told
            .lines()
            .find_map(|line| line.strip_prefix("Digest: "))
            .unwrap_or_else(|| panic!("{told}"));
        let chart = format!("{}/team/charts/affix@{digest}", registry.host());

        // As large as the real one.
        let bill = serde_json::json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "metadata": {"description": "a".repeat(400_000)}});
        std::fs::write(
            peer.file("affix.cdx.json"),
            serde_json::to_vec_pretty(&bill).unwrap(),
        )
        .unwrap();
        let file = peer.file("affix.cdx.json").display().to_string();
        for arguments in [vec![image.at(image.digest()), file], vec![chart.clone()]] {
            let script = Run::new("sh")
                .args([format!("{ROOT}/release/attachments.sh")])
                .args(arguments);
            let resources = script
                .env("COSIGN_KEY", &key)
                .env("COSIGN_PASSWORD", PASSWORD)
                .env("INSECURE", "true")
                .output()
                .await
                .unwrap();
            let attach = Run::new(env!("CARGO_BIN_EXE_affix"))
                .args(["attach", "-f", "-"])
                .input(resources.stdout().unwrap());
            attach
                .env("DOCKER_CONFIG", peer.file(""))
                .output()
                .await
                .unwrap()
                .stdout()
                .unwrap();
        }

        let platforms = ["linux/amd64", "linux/arm64"]
            .map(|platform| image.at(image.digest_of(platform).unwrap()));
        for signed in [
            &image.at(image.digest()),
            &platforms[0],
            &platforms[1],
            &chart,
        ] {
            cosign(&[
                "verify",
                "--key",
                "cosign.pub",
                "--insecure-ignore-tlog",
                signed,
            ])
            .await
            .stdout()
            .unwrap();
        }
        for subject in [&image.at(image.digest()), &platforms[0], &platforms[1]] {
            let statement = cosign(&[
                "verify-attestation",
                "--key",
                "cosign.pub",
                "--insecure-ignore-tlog",
                "--type",
                "cyclonedx",
                subject,
            ])
            .await
            .json()
            .unwrap();
            let payload = STANDARD
                .decode(statement["payload"].as_str().unwrap())
                .unwrap();
            let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(payload["predicate"], bill, "{subject}");
        }
    }
}

#[tokio::test]
async fn actionlint_accepts_the_workflows() {
    let tools = Tools::with(&[Tool::Actionlint]).await.unwrap();
    let folder = std::path::Path::new(ROOT).join(".github/workflows");
    let workflows: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(workflows.len() >= 2, "{workflows:?}");
    let lint = Run::new(tools.path(Tool::Actionlint).unwrap())
        .args(["-no-color", "-shellcheck=", "-pyflakes="])
        .args(workflows);
    lint.output().await.unwrap().stdout().unwrap();
}
