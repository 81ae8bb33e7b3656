//! `--lifecycle-trust`: signed statements of cosign about the end of life, by trusted and by other keys.

use std::path::Path;

use affix_testbed::images::Pushed;
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use serde_json::{Value, json};

use crate::support::marked_images::{ENDED, KINDS, admitted, mark, push, refused, webhook};
use crate::support::namespace::{TestNamespace, wait_for};

const PREDICATE: &str = "https://docs.oasis-open.org/openeox/eox-core/v1.0";
const PASSED: &str = "2025-03-20T01:20:30Z";
const AHEAD: &str = "9998-12-31T00:00:00Z";

/// A registry, cosign and its key pairs.
struct Fixture {
    registry: Registry,
    peer: Peer,
}

impl Fixture {
    async fn start(kind: usize) -> Self {
        let tools = Tools::with(&[Tool::Cosign]).await.unwrap();
        let registry = KINDS[kind](&tools).start().await.unwrap();
        let peer = Peer::of(&tools, &registry).unwrap();
        let fixture = Self { registry, peer };
        for name in ["trusted", "other"] {
            let args = ["generate-key-pair", "--output-key-prefix", name];
            fixture.cosign(&args).await;
        }
        fixture
    }

    async fn cosign(&self, args: &[&str]) {
        let run = self.peer.run(Tool::Cosign).unwrap().args(args);
        run.output().await.unwrap().stdout().unwrap();
    }

    /// Returns a folder with the public keys of these names, as a mounted ConfigMap has them.
    fn keys(&self, names: &[&str]) -> String {
        let folder = self.peer.file("trust");
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["trusted", "other"] {
            let file = folder.join(format!("{name}.pub"));
            if names.contains(&name) {
                std::fs::copy(self.peer.file(&format!("{name}.pub")), file).unwrap();
            } else {
                let _ = std::fs::remove_file(file);
            }
        }
        folder.to_str().unwrap().to_owned()
    }

    /// Attaches a statement with `cosign attest`.
    async fn state(&self, key: &str, image: &str, document: &Value) {
        let predicate = self.peer.file("predicate.json");
        std::fs::write(&predicate, document.to_string()).unwrap();
        let key = format!("{key}.key");
        self.cosign(&[
            "attest",
            "--yes",
            "--use-signing-config=false",
            "--tlog-upload=false",
            "--key",
            &key,
            "--type",
            PREDICATE,
            "--predicate",
            path(&predicate),
            image,
        ])
        .await;
    }

    /// Returns the bundle that is attached to an image.
    async fn bundle(&self, image: &Pushed) -> String {
        let pinned = image.pinned();
        let args = ["discover", "--format", "json", "--depth", "1", &pinned];
        let tree = self.peer.oras(args).await.unwrap().json().unwrap();
        let manifest = tree["referrers"][0]["reference"].as_str().unwrap();
        let args = ["manifest", "fetch", manifest];
        let manifest = self.peer.oras(args).await.unwrap().json().unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let layer = image.at(layer);
        let args = ["blob", "fetch", "--output", "-", &layer];
        self.peer.oras(args).await.unwrap().stdout().unwrap()
    }

    /// Pushes an image with marks and statements. Each is `(WRITER, DATE, LAST UPDATE)`, where the writer `mark` attaches
    /// an unsigned mark.
    async fn image(&self, tag: &str, dates: &[(&str, &str, &str)]) -> Pushed {
        let image = push(&self.registry, tag).await;
        for (writer, date, updated) in dates {
            match *writer {
                "mark" => mark(&self.peer, &image.pinned(), date).await,
                key => {
                    self.state(key, &image.pinned(), &document(date, updated))
                        .await;
                }
            }
        }
        image
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn document(date: &str, updated: &str) -> Value {
    json!({
        "$schema": "https://docs.oasis-open.org/openeox/eox-core/v1.0/schema/core.json",
        "end_of_life": date, "end_of_security_support": date, "last_updated": updated
    })
}

const ONCE: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-02-01T00:00:00Z";

#[tokio::test]
async fn only_dates_that_a_trusted_key_has_signed_are_enforced() {
    for kind in [0, 1] {
        let namespace =
            TestNamespace::new("trust", json!({"affix.dev/end-of-life": "enforce"})).await;
        let fixture = Fixture::start(kind).await;
        let trusted = fixture.image("trusted", &[("trusted", PASSED, ONCE)]).await;
        let unsigned = fixture.image("unsigned", &[("mark", PASSED, "")]).await;
        let other = fixture.image("other", &[("other", PASSED, ONCE)]).await;
        let both = fixture
            .image(
                "both",
                &[("other", AHEAD, LATER), ("trusted", PASSED, ONCE)],
            )
            .await;
        let beside = fixture
            .image("beside", &[("mark", PASSED, ""), ("trusted", PASSED, ONCE)])
            .await;
        let contradicted = fixture
            .image(
                "contradicted",
                &[("trusted", AHEAD, ONCE), ("mark", PASSED, "")],
            )
            .await;
        let renewed = fixture
            .image(
                "renewed",
                &[("trusted", AHEAD, LATER), ("trusted", PASSED, ONCE)],
            )
            .await;
        let open = fixture
            .image(
                "open",
                &[("trusted", PASSED, ONCE), ("trusted", "tba", LATER)],
            )
            .await;
        let _webhook = webhook(
            &namespace,
            &fixture.registry,
            &["--lifecycle-trust", &fixture.keys(&["trusted"])],
        )
        .await;

        for image in [&trusted, &both, &beside] {
            let name = image.tagged();
            let text = refused(&namespace, &name, json!({})).await;
            assert!(
                text.contains(&format!("image {name} {ENDED}: run a newer image")),
                "{kind}: {text}"
            );
        }
        for (image, by) in [
            (&unsigned, "an unsigned mark"),
            (&other, "a statement of another key"),
            (&contradicted, "an unsigned mark"),
        ] {
            let name = image.tagged();
            let text = admitted(&namespace, &name, json!({})).await;
            let warning = format!("Warning: image {name} {ENDED} by {by}\n");
            assert!(text.contains(&warning), "{kind}: {text}");
        }
        for image in [&renewed, &open] {
            let text = admitted(&namespace, &image.tagged(), json!({})).await;
            assert!(!text.contains("Warning"), "{kind}: {text}");
        }
    }
}

#[tokio::test]
async fn a_statement_about_another_image_or_of_another_kind_does_not_count() {
    let namespace = TestNamespace::new("trust", json!({"affix.dev/end-of-life": "enforce"})).await;
    let fixture = Fixture::start(0).await;
    let old = fixture.image("old", &[("trusted", PASSED, ONCE)]).await;
    let good = push(&fixture.registry, "good").await;
    // The bundle of the old image, attached to the good one.
    let layer = fixture.bundle(&old).await;
    let folder = fixture.peer.file("bundle.json");
    std::fs::write(&folder, layer).unwrap();
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let file = format!("bundle.json:{kind}");
    let pinned = good.pinned();
    let args = ["attach", "--artifact-type", kind, &pinned, &file];
    fixture.peer.oras(args).await.unwrap().stdout().unwrap();
    // A date in a predicate of another type, and a document without a valid date.
    fixture
        .state("trusted", &pinned, &document("soon", ONCE))
        .await;
    fixture
        .state(
            "trusted",
            &pinned,
            &document(PASSED, "9998-12-31T00:00:00Z"),
        )
        .await;
    let _webhook = webhook(
        &namespace,
        &fixture.registry,
        &["--lifecycle-trust", &fixture.keys(&["trusted"])],
    )
    .await;
    refused(&namespace, &old.tagged(), json!({})).await;
    let text = admitted(&namespace, &good.tagged(), json!({})).await;
    assert!(!text.contains("Warning"), "{text}");
}

#[tokio::test]
async fn changed_keys_are_used_without_a_restart_and_without_cached_answers() {
    let namespace = TestNamespace::new("trust", json!({"affix.dev/end-of-life": "enforce"})).await;
    let fixture = Fixture::start(0).await;
    let image = fixture.image("other", &[("other", PASSED, ONCE)]).await;
    let keys = fixture.keys(&["trusted"]);
    let _webhook = webhook(&namespace, &fixture.registry, &["--lifecycle-trust", &keys]).await;
    let text = admitted(&namespace, &image.pinned(), json!({})).await;
    assert!(text.contains("by a statement of another key"), "{text}");
    fixture.keys(&["trusted", "other"]);
    wait_for("the new key", async || {
        namespace.try_pod(&image.pinned(), json!({})).await.is_err()
    })
    .await;
    fixture.keys(&["trusted"]);
    wait_for("the end of the key", async || {
        namespace.try_pod(&image.pinned(), json!({})).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn more_bundles_than_the_webhook_reads_leave_an_image_unchecked() {
    let namespace = TestNamespace::new("trust", json!({"affix.dev/end-of-life": "enforce"})).await;
    let fixture = Fixture::start(0).await;
    let image = fixture.image("many", &[("trusted", PASSED, ONCE)]).await;
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    for number in 0..32 {
        let (pinned, annotation) = (image.pinned(), format!("number={number}"));
        let args = [
            "attach",
            "--artifact-type",
            kind,
            "--annotation",
            &annotation,
            &pinned,
        ];
        fixture.peer.oras(args).await.unwrap().stdout().unwrap();
    }
    let flags = ["--unchecked", "refuse", "--lookup-timeout", "10s"];
    let keys = fixture.keys(&["trusted"]);
    let flags = [&flags[..], &["--lifecycle-trust", &keys]].concat();
    let _webhook = webhook(&namespace, &fixture.registry, &flags).await;
    let text = refused(&namespace, &image.tagged(), json!({})).await;
    assert!(
        text.contains("was not checked for end of life: answer too large: see the webhook's log"),
        "{text}"
    );
}
