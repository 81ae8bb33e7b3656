//! Images with end-of-life marks, and pods that use them.

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::{Options, Registry};
use affix_testbed::tools::Tools;
use serde_json::{Value, json};

use crate::support::namespace::{TestNamespace, wait_for};
use crate::support::process::Affix;

const TYPE: &str = "application/vnd.microsoft.artifact.lifecycle";
const ANNOTATION: &str = "vnd.microsoft.artifact.lifecycle.end-of-life.date";
pub(crate) const ENDED: &str = "reached end of life on 2025-03-20";

/// A registry with the referrers API, and one with the fallback tag.
pub(crate) const KINDS: [fn(&Tools) -> Options; 2] =
    [Registry::ociregistry, Registry::distribution];

pub(crate) async fn push(registry: &Registry, tag: &str) -> Pushed {
    let index = Index::new()
        .image(Image::new("linux/amd64", &format!("b1 {tag}")))
        .image(Image::new("linux/arm64", &format!("c1 {tag}")));
    index
        .push(&registry.raw().unwrap(), "team/app", tag)
        .await
        .unwrap()
}

/// Attaches a mark with oras, as the documentation of the Microsoft type describes.
pub(crate) async fn mark(peer: &Peer, image: &str, date: &str) {
    let annotation = format!("{ANNOTATION}={date}");
    peer.oras([
        "attach",
        "--artifact-type",
        TYPE,
        "--annotation",
        &annotation,
        image,
    ])
    .await
    .unwrap()
    .stdout()
    .unwrap();
}

/// Starts a webhook that uses plain HTTP for the registry.
pub(crate) async fn webhook(
    namespace: &TestNamespace,
    registry: &Registry,
    more: &[&str],
) -> Affix {
    Affix::webhook(
        namespace,
        &[&["--insecure-registries", registry.host()][..], more].concat(),
    )
    .await
    .0
}

/// Waits until a pod is refused for its image. Retries if the look-up exceeded its time limit on a busy
/// machine.
pub(crate) async fn refused(namespace: &TestNamespace, image: &str, spec: Value) -> String {
    let mut text = String::new();
    wait_for("a refusal", async || {
        match namespace.try_pod(image, spec.clone()).await {
            Err(output) => {
                text = output;
                true
            }
            Ok(output) => {
                assert!(
                    output.contains("was not checked"),
                    "{image} {spec}: admitted: {output}"
                );
                false
            }
        }
    })
    .await;
    text
}

/// Waits until a pod is admitted after a complete check. Retries if the look-up exceeded its time
/// limit.
pub(crate) async fn admitted(namespace: &TestNamespace, image: &str, spec: Value) -> String {
    let mut text = String::new();
    wait_for("an answer", async || {
        text = namespace
            .try_pod(image, spec.clone())
            .await
            .unwrap_or_else(|output| panic!("{image} {spec}: refused: {output}"));
        !text.contains("was not checked")
    })
    .await;
    text
}

/// Returns a pull secret for the user alice.
pub(crate) fn login(registry: &Registry) -> Value {
    let config = json!({"auths": {registry.host(): {"username": "alice", "password": "hunter2"}}})
        .to_string();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config}
    })
}
