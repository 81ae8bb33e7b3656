//! Signatures made elsewhere, attached as files: looked into before they are pushed.

use affix::api::{ConditionType, Reason, TargetState, find_condition};
use affix_testbed::tools::Tool;
use serde_json::{Value, json};

use crate::cosign::{key_pair, verify};
use crate::desk::{Bench, Desk};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SAMPLE: &str = "application/vnd.demo.test.signature";

/// The bundle that cosign makes for one digest without uploading it.
async fn bundle(bench: &Bench, digest: &str) -> String {
    let name = format!("{}.json", digest.replace(':', "-"));
    let image = bench.image.at(digest);
    let args = [
        "sign",
        "--key",
        "cosign.key",
        "--tlog-upload=false",
        "--use-signing-config=false",
        "--yes",
        "--upload=false",
        "--bundle",
        &name,
        &image,
    ];
    let run = bench
        .peer
        .run(Tool::Cosign)
        .unwrap()
        .env("COSIGN_PASSWORD", "correct horse")
        .args(args);
    run.output().await.unwrap().stdout().unwrap();
    std::fs::read_to_string(bench.peer.file(&name)).unwrap()
}

fn artifact(bench: &Bench, artifact_type: &str, files: &Value) -> Value {
    bench.spec(
        &bench.image.pinned(),
        &json!({"artifact": {"artifactType": artifact_type, "files": files}}),
    )
}

#[tokio::test]
async fn a_bundle_made_elsewhere_is_attached_to_its_own_target_and_refused_on_another() {
    for bench in Bench::both().await {
        key_pair(&bench, "cosign").await;
        let [index, amd64] = bench.signed();
        let (of_index, of_amd64) = (bundle(&bench, &index).await, bundle(&bench, &amd64).await);
        let file = |name: &str, target: &str, value: &str| json!({"name": name, "target": target, "value": value, "mediaType": BUNDLE});
        let swapped = json!([
            file("i.json", "index", &of_amd64),
            file("p.json", "linux/amd64", &of_amd64)
        ]);
        let mut desk = Desk::new(&bench, &artifact(&bench, BUNDLE, &swapped), &[]);
        let (reason, message) = desk.refused().await;
        assert_eq!(reason, "SubjectMismatch");
        for part in ["i.json", &index, &amd64] {
            assert!(message.contains(part), "{message}");
        }
        let bad: Vec<_> = desk
            .status
            .targets
            .iter()
            .filter(|row| row.state == TargetState::Failed)
            .map(|row| &row.digest)
            .collect();
        assert_eq!(bad, [&index]);
        for digest in bench.signed() {
            assert!(bench.listed(&digest, BUNDLE).await.is_empty());
        }
        desk.change(&artifact(
            &bench,
            BUNDLE,
            &json!([
                file("i.json", "index", &of_index),
                file("p.json", "linux/amd64", &of_amd64)
            ]),
        ));
        desk.ready().await;
        for digest in bench.signed() {
            verify(&bench, "cosign", &digest, &[]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn files_of_any_kind_go_each_to_its_own_target_and_a_target_without_one_is_told() {
    for bench in Bench::both().await {
        let files = json!([
            {"name": "a1a1.sig", "target": "index", "value": "signature of a1a1"},
            {"name": "b1b1.sig", "target": "linux/amd64", "value": "signature of b1b1"},
        ]);
        let mut desk = Desk::new(&bench, &artifact(&bench, SAMPLE, &files), &[]);
        desk.ready().await;
        for (subject, attachment) in desk.attachments() {
            assert_eq!(bench.listed(&subject, SAMPLE).await, [attachment]);
        }
        desk.change(&artifact(&bench, SAMPLE, &json!([files[0]])));
        let (reason, message) = desk.refused().await;
        assert_eq!(reason, Reason::FileMissing.as_str());
        assert!(message.contains("linux/amd64"), "{message}");
    }
}

#[tokio::test]
async fn the_keys_of_a_config_map_go_to_the_digests_in_their_names_also_on_a_tag() {
    for bench in Bench::both().await {
        key_pair(&bench, "cosign").await;
        let spec = bench.spec(
            &bench.image.tagged(),
            &json!({"artifact": {"artifactType": BUNDLE, "filesFrom": [{"configMapRef": {"name": "sigs"}, "mediaType": BUNDLE}]}}),
        );
        let mut desk = Desk::new(&bench, &spec, &[]);
        assert_eq!(desk.refused().await.0, "FileMissing");
        let mut map = std::collections::BTreeMap::new();
        for digest in bench.signed() {
            map.insert(
                format!("{}.json", digest.replace(':', "-")),
                bundle(&bench, &digest).await.into(),
            );
        }
        let idle = format!("sha256-{}.json", "0".repeat(64));
        map.insert(idle.clone(), "{}".into());
        desk.sources.config_maps.insert("sigs".to_owned(), map);
        desk.ready().await;
        for digest in bench.signed() {
            verify(&bench, "cosign", &digest, &[]).await.unwrap();
            assert_eq!(bench.listed(&digest, BUNDLE).await.len(), 1);
        }
        let resolved = find_condition(&desk.status.conditions, ConditionType::Resolved).unwrap();
        assert!(resolved.message.contains(&idle), "{}", resolved.message);
    }
}
