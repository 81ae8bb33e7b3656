//! Signed statements by the operator.

use affix::api::TargetState;
use affix_testbed::images::{Image, Index};
use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{host, registries, scriptable};
use crate::support::namespace::Namespace;

const KEY: &str = include_str!("../vectors/signing/cosign/p256.pem");
const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn signed(image: &str, mut attestation: Value) -> Value {
    attestation["cosign"] = json!({"keySecretRef": {"name": "key"}});
    json!({"image": image, "insecure": true, "interval": "1h", "deletionPolicy": "Delete", "attestation": attestation})
}

/// Returns the annotations of the bundles that a registry lists for a subject.
async fn bundles(registry: &Registry, subject: &str) -> Vec<Value> {
    let raw = registry.raw().unwrap();
    let api = raw.referrers("team/app", subject).await.unwrap();
    let listing = match api.status.is_success() {
        true => api,
        false => raw
            .manifest("team/app", &subject.replace(':', "-"))
            .await
            .unwrap(),
    };
    let listing = listing.json().unwrap_or_default();
    let entries = listing["manifests"].as_array().cloned().unwrap_or_default();
    let bundles = entries
        .into_iter()
        .filter(|entry| entry["artifactType"] == BUNDLE);
    bundles.map(|entry| entry["annotations"].clone()).collect()
}

#[tokio::test]
async fn the_statements_of_the_build_are_signed_and_go_with_the_resource() {
    let namespace = Namespace::new("build").await;
    namespace.secret("key", json!({"cosign.key": KEY})).await;
    let _controller = Controller::start(&namespace).await;
    let registries = registries(&namespace.tools).await;
    for (nth, (registry, _)) in registries.iter().enumerate() {
        let index = PLATFORMS
            .iter()
            .fold(Index::new(), |index, platform| {
                index.image(Image::new(platform, platform))
            })
            .attestation(PLATFORMS[0])
            .attestation_with_subject(PLATFORMS[1])
            .attestation(PLATFORMS[2]);
        let raw = registry.raw().unwrap();
        let image = index.push(&raw, "team/app", "built").await.unwrap();
        let name = format!("built-{nth}");
        namespace
            .apply(&name, signed(&image.tagged(), json!({"fromBuild": {}})))
            .await;
        let status = namespace.ready(&name).await;
        assert_eq!(status.attached.as_deref(), Some("3/3"), "{status:#?}");
        for platform in PLATFORMS {
            let digest = image.digest_of(platform).unwrap();
            let row = status.targets.iter().find(|row| row.digest == digest);
            let row = row.unwrap();
            assert_eq!((row.state, row.formats.len()), (TargetState::Attached, 1));
            let kind = row.formats[0].predicate_type.as_deref();
            assert_eq!(kind, Some("https://slsa.dev/provenance/v0.2"));
            let found = bundles(registry, digest).await;
            assert_eq!(found.len(), 1, "{platform}: {found:#?}");
            assert_eq!(
                found[0]["dev.sigstore.bundle.predicateType"],
                "https://slsa.dev/provenance/v0.2"
            );
        }
        assert!(bundles(registry, image.digest()).await.is_empty());
        namespace.delete(&name).await;
        namespace.gone(&name).await;
        for platform in PLATFORMS {
            let digest = image.digest_of(platform).unwrap();
            assert!(bundles(registry, digest).await.is_empty(), "{platform}");
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_watched_predicate_replaces_the_statement_at_once_and_a_broken_one_is_named() {
    let namespace = Namespace::new("vex").await;
    namespace.secret("key", json!({"cosign.key": KEY})).await;
    let _controller = Controller::start(&namespace).await;
    let vex = async |document: &str| {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"vex.json": document},
            "metadata": {"name": "vex", "labels": {"reconcile.fluxcd.io/watch": "Enabled"}},
        });
        namespace.apply_object(map).await;
    };
    vex("{\"version\": 1}").await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let image = host(registry, "v1");
        let name = format!("vex-{nth}");
        let attestation = json!({"predicateType": "openvex",
            "predicates": [{"valueFrom": {"configMapKeyRef": {"name": "vex", "key": "vex.json"}}}]});
        vex("{\"version\": 1}").await;
        namespace
            .apply(
                &name,
                signed(&registry.reference(&image.name()), attestation),
            )
            .await;
        let first = namespace.ready(&name).await.targets[0].attachment.clone();
        vex("{\"version\": 2}").await;
        namespace
            .wait(&name, "Ready with another statement", |object| {
                let status = object.status.as_ref();
                status.is_some_and(|status| {
                    crate::support::namespace::is_ready(object)
                        && status.targets[0].attachment != first
                })
            })
            .await;
        let listed = registry.store().referrers(&image.repository, &image.digest);
        assert_eq!(listed.len(), 1, "{}", registry.transcript());
        vex("[]").await;
        let message = namespace
            .refused(&name, affix::api::Reason::StatementInvalid)
            .await;
        assert!(
            message.contains("spec.attestation.predicates[0]"),
            "{message}"
        );
        let listed = registry.store().referrers(&image.repository, &image.digest);
        assert_eq!(listed.len(), 1, "the statement stays");
        namespace.delete(&name).await;
        namespace.gone(&name).await;
    }
    namespace.check_rules().await;
}
