//! Signatures of other tools as files. The engine inspects their subjects before it pushes them.

use affix::api::{ConditionType, Reason, TargetState, find_condition};
use affix_testbed::tools::Tool;
use serde_json::{Value, json};

use crate::cosign::{key_pair, verify};
use crate::runner::{Fixture, Runner};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SAMPLE: &str = "application/vnd.demo.test.signature";

/// Returns the bundle that cosign makes for a digest without an upload.
async fn bundle(fixture: &Fixture, digest: &str) -> String {
    let name = format!("{}.json", digest.replace(':', "-"));
    let image = fixture.image.at(digest);
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
    let run = fixture
        .peer
        .run(Tool::Cosign)
        .unwrap()
        .env("COSIGN_PASSWORD", "correct horse")
        .args(args);
    run.output().await.unwrap().stdout().unwrap();
    std::fs::read_to_string(fixture.peer.file(&name)).unwrap()
}

fn artifact(fixture: &Fixture, artifact_type: &str, files: &Value) -> Value {
    fixture.spec(
        &fixture.image.pinned(),
        &json!({"artifact": {"artifactType": artifact_type, "files": files}}),
    )
}

#[tokio::test]
async fn a_bundle_of_cosign_is_attached_to_its_own_target_and_refused_on_another() {
    for fixture in Fixture::both().await {
        key_pair(&fixture, "cosign").await;
        let [index, amd64] = fixture.signed();
        let (of_index, of_amd64) = (
            bundle(&fixture, &index).await,
            bundle(&fixture, &amd64).await,
        );
        let file = |name: &str, target: &str, value: &str| json!({"name": name, "target": target, "value": value, "mediaType": BUNDLE});
        let swapped = json!([
            file("i.json", "index", &of_amd64),
            file("p.json", "linux/amd64", &of_amd64)
        ]);
        let mut runner = Runner::new(&fixture, &artifact(&fixture, BUNDLE, &swapped), &[]);
        let (reason, message) = runner.refused().await;
        assert_eq!(reason, "SubjectMismatch");
        for part in ["i.json", &index, &amd64] {
            assert!(message.contains(part), "{message}");
        }
        let bad: Vec<_> = runner
            .status
            .targets
            .iter()
            .filter(|row| row.state == TargetState::Failed)
            .map(|row| &row.digest)
            .collect();
        assert_eq!(bad, [&index]);
        for digest in fixture.signed() {
            assert!(fixture.listed(&digest, BUNDLE).await.is_empty());
        }
        runner.change_spec(&artifact(
            &fixture,
            BUNDLE,
            &json!([
                file("i.json", "index", &of_index),
                file("p.json", "linux/amd64", &of_amd64)
            ]),
        ));
        runner.ready().await;
        for digest in fixture.signed() {
            verify(&fixture, "cosign", &digest, &[]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn files_of_any_kind_go_to_their_targets_and_a_target_without_one_is_reported() {
    for fixture in Fixture::both().await {
        let files = json!([
            {"name": "a1a1.sig", "target": "index", "value": "signature of a1a1"},
            {"name": "b1b1.sig", "target": "linux/amd64", "value": "signature of b1b1"},
        ]);
        let mut runner = Runner::new(&fixture, &artifact(&fixture, SAMPLE, &files), &[]);
        runner.ready().await;
        for (subject, attachment) in runner.attachments() {
            assert_eq!(fixture.listed(&subject, SAMPLE).await, [attachment]);
        }
        runner.change_spec(&artifact(&fixture, SAMPLE, &json!([files[0]])));
        let (reason, message) = runner.refused().await;
        assert_eq!(reason, Reason::FileMissing.as_str());
        assert!(message.contains("linux/amd64"), "{message}");
    }
}

#[tokio::test]
async fn the_keys_of_a_config_map_go_to_the_digests_in_their_names_also_on_a_tag() {
    for fixture in Fixture::both().await {
        key_pair(&fixture, "cosign").await;
        let spec = fixture.spec(
            &fixture.image.tagged(),
            &json!({"artifact": {"artifactType": BUNDLE, "filesFrom": [{"configMapRef": {"name": "sigs"}, "mediaType": BUNDLE}]}}),
        );
        let mut runner = Runner::new(&fixture, &spec, &[]);
        assert_eq!(runner.refused().await.0, "FileMissing");
        let mut map = std::collections::BTreeMap::new();
        for digest in fixture.signed() {
            map.insert(
                format!("{}.json", digest.replace(':', "-")),
                bundle(&fixture, &digest).await.into(),
            );
        }
        let idle = format!("sha256-{}.json", "0".repeat(64));
        map.insert(idle.clone(), "{}".into());
        runner.sources.config_maps.insert("sigs".to_owned(), map);
        runner.ready().await;
        for digest in fixture.signed() {
            verify(&fixture, "cosign", &digest, &[]).await.unwrap();
            assert_eq!(fixture.listed(&digest, BUNDLE).await.len(), 1);
        }
        let resolved = find_condition(&runner.status.conditions, ConditionType::Resolved).unwrap();
        assert!(resolved.message.contains(&idle), "{}", resolved.message);
    }
}
