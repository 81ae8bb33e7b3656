//! The examples of the documentation on a real API server.

use std::path::Path;

use serde_json::Value;

use crate::cluster::Cluster;

/// Returns the YAML blocks of a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// Replaces abbreviated digests, which are easier to read than real ones. Adds one to an image with a date, as `affix pin` does.
fn with_digests(block: &str) -> String {
    let block = if block.contains(" date: ") {
        block.replace("team/app:v1\n", "team/app:v1@sha256:…\n")
    } else {
        block.to_owned()
    };
    let mut parts = block.split("sha256:");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        match part.split_once('…') {
            Some((digits, rest)) if digits.chars().all(|c| c.is_ascii_alphanumeric()) => {
                text.push_str(&format!("sha256:{}{rest}", "a".repeat(64)));
            }
            _ => text.push_str(&format!("sha256:{part}")),
        }
    }
    text
}

#[tokio::test]
async fn the_api_server_accepts_every_complete_resource_of_the_documentation() {
    let cluster = Cluster::start().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    cluster
        .plane
        .kubectl(["create", "namespace", "team-a"])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    let mut pages: Vec<_> = docs.map(|entry| entry.unwrap().path()).collect();
    pages.push(root.join("README.md"));
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages.sort();
    let mut seen = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in blocks(&text) {
            // A part of a resource has no kind, or no spec.
            let documents = block.split("\n---\n").map(|document| {
                serde_saphyr::from_str(&with_digests(document)).unwrap_or(Value::Null)
            });
            let is_complete = |document: &Value| {
                document["apiVersion"]
                    .as_str()
                    .is_some_and(|version| version.starts_with("affix.dev/"))
                    && document["spec"].is_object()
            };
            let documents: Vec<Value> = documents.collect();
            if !documents.iter().any(is_complete) {
                continue;
            }
            let apply = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
            let ran = cluster
                .plane
                .kubectl_with(apply, with_digests(block))
                .await
                .unwrap();
            assert!(
                ran.status.success(),
                "{}: {}\n{block}",
                page.display(),
                ran.err
            );
            seen += documents.len();
        }
    }
    assert!(seen >= 5, "{seen}");
}
