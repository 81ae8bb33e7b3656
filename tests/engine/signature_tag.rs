//! Signatures in the format `Tag`: layers of the manifest under the tag `sha256-<hex>.sig`, which other writers share.

use affix::api::{ImageAttachmentStatus, Origin, Reason, SignatureFormat, TargetState};
use affix_testbed::hostile::{
    Deletion, Fault, HostileRegistry, Image, ImmutableTags, Matcher, Op, Quirks, Refusal,
};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::kills::{Forgets, Saved, dropped_after};
use crate::resource::Resource;

const KEY: &[u8] = include_bytes!("../vectors/signing/cosign/p256.pem");
const OTHER: &[u8] = include_bytes!("../vectors/signing/cosign/ed25519.pem");
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Starts a registry with the referrers API and one without it.
async fn both() -> [HostileRegistry; 2] {
    let without_api = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::builder()
            .quirks(without_api)
            .start()
            .await
            .unwrap(),
    ]
}

fn image(registry: &HostileRegistry) -> Image {
    registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push()
}

/// Returns the spec of a signature in `formats`.
fn signed(registry: &HostileRegistry, formats: Value) -> Value {
    json!({
        "image": registry.reference("team/app:v1"),
        "signature": {"cosign": {"keySecretRef": {"name": "key"}, "formats": formats}},
    })
}

fn resource(spec: Value) -> Resource {
    let mut resource = Resource::new(spec);
    resource.secret("key", &[("cosign.key", KEY)]);
    resource
}

fn tag_of(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// Returns the manifest under the signature tag of a digest.
fn manifest(registry: &HostileRegistry, digest: &str) -> Option<Value> {
    let found = registry.store().manifest("team/app", &tag_of(digest))?;
    Some(found.json())
}

fn layers(registry: &HostileRegistry, digest: &str) -> Vec<Value> {
    let found = manifest(registry, digest);
    found.map_or_else(Vec::new, |found| {
        found["layers"].as_array().unwrap().clone()
    })
}

/// Stores a signature tag with a layer of another writer, and returns that layer as it is written.
fn foreign(registry: &HostileRegistry, digest: &str) -> String {
    let store = registry.store();
    let text = store.put_blob("team/app", "signed by another");
    let layer = format!(
        r#"{{ "size":17,  "digest":"{text}","x-unknown": {{"b":1.50}},"mediaType":"{LAYER}","annotations":{{"dev.cosignproject.cosign/signature":"Zm9yZWlnbg=="}} }}"#
    );
    let config = format!(
        r#"{{"x-config":1.50,"rootfs":{{"type":"layers","diff_ids":["{text}"],"y":[ ]}},"history":[{{"created_by":"another"}}]}}"#
    );
    let size = config.len();
    let config = store.put_blob("team/app", config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"x-top":{{ "deep":[ ] }},"config":{{"mediaType":"{CONFIG}","x-ref": 7,"digest":"{config}","size":{size}}},"layers":[{layer}],"mediaType":"{MANIFEST}"}}"#
    );
    store.put_manifest("team/app", Some(&tag_of(digest)), MANIFEST, manifest);
    layer
}

/// Returns `format state origin` of each format of a target.
fn formats(status: &ImageAttachmentStatus, digest: &str) -> Vec<String> {
    let row = status.targets.iter().find(|row| row.digest == digest);
    row.unwrap()
        .formats
        .iter()
        .map(|format| format!("{:?} {:?} {:?}", format.format, format.state, format.origin))
        .collect()
}

#[tokio::test]
async fn both_formats_are_made_once_and_a_restored_resource_adopts_both() {
    for registry in both().await {
        let image = image(&registry);
        let spec = signed(&registry, json!(["Tag", "Bundle"]));
        let mut first = resource(spec.clone());
        first.ready().await;
        assert_eq!(first.status.attached.as_deref(), Some("3/3"));
        let all = [
            image.digest.as_str(),
            image.platform("linux/amd64"),
            image.platform("linux/arm64"),
        ];
        for digest in all {
            let layers = layers(&registry, digest);
            assert_eq!(layers.len(), 1, "{}", registry.transcript());
            let text = registry
                .store()
                .blob("team/app", layers[0]["digest"].as_str().unwrap())
                .unwrap();
            let text: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(text["critical"]["image"]["docker-manifest-digest"], digest);
            assert_eq!(
                text["critical"]["identity"]["docker-reference"],
                registry.reference("team/app:v1")
            );
            assert_eq!(
                formats(&first.status, digest),
                ["Bundle Attached Some(Made)", "Tag Attached Some(Made)"]
            );
            let row = first.status.targets.iter().find(|row| row.digest == digest);
            let row = row.unwrap();
            assert_eq!(row.formats[0].reference, row.attachment);
            assert_eq!(row.formats[1].reference.as_deref(), Some(&*tag_of(digest)));
        }
        registry.clear();
        // A verification and a pass at the interval write nothing.
        first.later(60);
        first.ready().await;
        assert!(registry.requests_that(&Matcher::writes()).is_empty());
        registry.clear();
        assert_eq!(first.look().await.requests, 1, "{}", registry.transcript());
        let mut restored = resource(spec);
        restored.later(120);
        for _ in 0..2 {
            restored.ready().await;
            for digest in all {
                assert_eq!(layers(&registry, digest).len(), 1);
                assert_eq!(registry.store().referrers("team/app", digest).len(), 1);
                assert_eq!(
                    formats(&restored.status, digest),
                    [
                        "Bundle Attached Some(Adopted)",
                        "Tag Attached Some(Adopted)"
                    ]
                );
            }
        }
    }
}

#[tokio::test]
async fn a_foreign_layer_and_unknown_fields_survive_signing_and_removal() {
    for registry in both().await {
        let image = image(&registry);
        let theirs = foreign(&registry, &image.digest);
        let mut resource = resource(signed(&registry, json!(["Tag"])));
        resource.ready().await;
        let raw = || {
            let raw = registry.store().raw_tag("team/app", &tag_of(&image.digest));
            String::from_utf8(raw.unwrap().to_vec()).unwrap()
        };
        let written = raw();
        for kept in [theirs.as_str(), r#""x-top":{ "deep":[ ] }"#, r#""x-ref":7"#] {
            assert!(written.contains(kept), "{kept} in {written}");
        }
        assert_eq!(layers(&registry, &image.digest).len(), 2);
        let config = |written: &str| {
            let written: Value = serde_json::from_str(written).unwrap();
            let config = written["config"]["digest"].as_str().unwrap();
            let config = registry.store().blob("team/app", config).unwrap();
            String::from_utf8(config.to_vec()).unwrap()
        };
        let text = config(&written);
        assert!(
            text.contains(r#""x-config":1.50"#) && text.contains(r#""y":[ ]"#),
            "{text}"
        );
        // Without the key the resource signs with another one: its own layer goes, the foreign one stays.
        resource.later(60);
        resource.secret("key", &[("cosign.key", OTHER)]);
        resource.ready().await;
        let after = layers(&registry, &image.digest);
        assert_eq!(after.len(), 2, "{}", registry.transcript());
        assert!(raw().contains(&theirs));
        assert_eq!(
            serde_json::from_str::<Value>(&config(&raw())).unwrap()["rootfs"]["diff_ids"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert!(resource.status.leftovers.is_empty());
        // Back to bundles alone: the tag keeps the foreign layer only.
        resource.later(60);
        resource.change(signed(&registry, json!(["Bundle"])));
        resource.ready().await;
        assert_eq!(layers(&registry, &image.digest).len(), 1);
        assert!(raw().contains(&theirs) && resource.status.targets[0].formats.is_empty());
        assert_eq!(
            registry.store().referrers("team/app", &image.digest).len(),
            1
        );
        // And to the tag alone.
        resource.later(60);
        resource.change(signed(&registry, json!(["Tag"])));
        resource.ready().await;
        assert_eq!(layers(&registry, &image.digest).len(), 2);
        assert_eq!(
            registry.store().referrers("team/app", &image.digest).len(),
            0
        );
    }
}

#[tokio::test]
async fn an_equal_layer_of_another_writer_is_adopted_and_another_identity_is_not() {
    for registry in both().await {
        let image = image(&registry);
        let mut theirs = resource(signed(&registry, json!(["Tag"])));
        theirs.ready().await;
        let mut ours = resource(signed(&registry, json!(["Bundle", "Tag"])));
        ours.later(60);
        ours.ready().await;
        assert_eq!(
            formats(&ours.status, &image.digest),
            ["Bundle Attached Some(Made)", "Tag Attached Some(Adopted)"]
        );
        assert_eq!(layers(&registry, &image.digest).len(), 1);
        let mut spec = signed(&registry, json!(["Tag"]));
        spec["signature"]["cosign"]["identity"] = json!("Repository");
        let mut other = resource(spec);
        other.ready().await;
        assert_eq!(layers(&registry, &image.digest).len(), 2);
        let row = &other.status.targets[0];
        assert_eq!(row.origin, Some(Origin::Made));
        assert_eq!(row.formats[0].format, SignatureFormat::Tag);
    }
}

#[tokio::test]
async fn the_previous_layer_stays_for_the_overlap_and_goes_after_it() {
    for registry in both().await {
        let image = image(&registry);
        let mut spec = signed(&registry, json!(["Bundle", "Tag"]));
        spec["signature"]["overlap"] = json!("1h");
        let mut resource = resource(spec);
        resource.ready().await;
        resource.later(600);
        resource.secret("key", &[("cosign.key", OTHER)]);
        resource.ready().await;
        assert_eq!(layers(&registry, &image.digest).len(), 2);
        assert_eq!(resource.status.leftovers.len(), 6);
        resource.later(3599);
        resource.ready().await;
        assert_eq!(layers(&registry, &image.digest).len(), 2);
        resource.later(1);
        assert!(resource.look().await.verdict.ready);
        assert_eq!(layers(&registry, &image.digest).len(), 1);
        assert!(resource.status.leftovers.is_empty());
    }
}

#[tokio::test]
async fn a_dry_run_plans_both_formats_and_writes_nothing() {
    for registry in both().await {
        let image = image(&registry);
        let mut bundles = resource(signed(&registry, json!(["Bundle"])));
        bundles.ready().await;
        registry.clear();
        let mut spec = signed(&registry, json!(["Bundle", "Tag"]));
        spec["dryRun"] = json!(true);
        bundles.change(spec);
        bundles.pass().await;
        assert_eq!(bundles.verdict().0, "Planned");
        assert_eq!(
            formats(&bundles.status, &image.digest),
            ["Bundle Attached Some(Made)", "Tag Planned None"]
        );
        assert_eq!(bundles.status.targets[0].state, TargetState::Planned);
        assert!(registry.requests_that(&Matcher::writes()).is_empty());
    }
}

/// Returns the reason and the message of the first target.
fn cause(resource: &Resource) -> (&str, &str) {
    let row = &resource.status.targets[0];
    (
        row.reason.as_deref().unwrap_or_default(),
        row.message.as_deref().unwrap_or_default(),
    )
}

#[tokio::test]
async fn a_tag_that_holds_something_else_is_refused_and_stays() {
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"});
    let config = json!({"mediaType": CONFIG, "size": 2, "digest": empty["digest"]});
    let artifact =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty]});
    let plain = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 2, "digest": empty["digest"]}]});
    let layer = json!({"mediaType": LAYER, "size": 2, "digest": empty["digest"], "annotations": {"dev.cosignproject.cosign/signature": "eA=="}});
    let crowded = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": vec![layer.clone(); 10_000]});
    let mut padded = layer;
    padded["annotations"]["padding"] = json!("x".repeat(5 << 20));
    let large =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [padded]});
    for (held, reason, says) in [
        (index, Reason::FallbackTagConflict, "image.index"),
        (artifact, Reason::FallbackTagConflict, "oci.empty"),
        (plain, Reason::FallbackTagConflict, "an image"),
        (json!("text"), Reason::FallbackTagConflict, "malformed"),
        (crowded, Reason::LimitExceeded, "the limit is"),
        (large, Reason::LimitExceeded, "4194304"),
    ] {
        for registry in both().await {
            let image = image(&registry);
            let media_type = held["mediaType"].as_str().unwrap_or(MANIFEST);
            let store = registry.store();
            store.put_blob("team/app", "{}");
            let tag = tag_of(&image.digest);
            store.put_manifest("team/app", Some(&tag), media_type, held.to_string());
            let before = store.tag("team/app", &tag);
            let mut resource = resource(signed(&registry, json!(["Bundle", "Tag"])));
            let outcome = resource.pass().await;
            let (found, message) = cause(&resource);
            assert_eq!(found, reason.as_str(), "{message}");
            assert!(
                message.contains(says) && message.contains(&tag),
                "{message}"
            );
            assert_eq!(store.tag("team/app", &tag), before);
            // The other targets and the other format are done.
            assert_eq!(resource.status.attached.as_deref(), Some("2/3"));
            assert_eq!(store.referrers("team/app", &image.digest).len(), 1);
            assert!(!outcome.verdict.ready);
        }
    }
}

#[tokio::test]
async fn a_registry_that_forbids_the_write_is_an_immutable_tag() {
    for refusal in [Refusal::TagInvalid, Refusal::Forbidden] {
        let registry = HostileRegistry::start().await.unwrap();
        let image = image(&registry);
        let theirs = foreign(&registry, &image.digest);
        registry.quirks(|quirks| {
            quirks.immutable_tags = Some(ImmutableTags {
                pattern: "sha256-*".to_owned(),
                refusal,
            });
        });
        let mut resource = resource(signed(&registry, json!(["Tag"])));
        resource.pass().await;
        let (reason, message) = cause(&resource);
        assert_eq!(reason, "ImmutableTag", "{message}");
        assert!(message.contains("exempt tags"), "{message}");
        let raw = registry.store().raw_tag("team/app", &tag_of(&image.digest));
        assert!(String::from_utf8_lossy(&raw.unwrap()).contains(&theirs));
        assert_eq!(resource.status.attached.as_deref(), Some("2/3"));
    }
}

#[tokio::test]
async fn a_write_that_fails_leaves_no_record_and_the_next_pass_signs_once() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = image(&registry);
    let mut resource = resource(signed(&registry, json!(["Tag"])));
    for status in [400, 503] {
        let writes = Matcher::on(Op::ManifestPut).reference("*.sig");
        let fault = registry.fault(writes, Fault::status(status));
        assert!(!resource.pass().await.verdict.ready);
        assert!(resource.status.leftovers.is_empty());
        fault.lift();
        resource.later(60);
    }
    resource.ready().await;
    assert_eq!(layers(&registry, &image.digest).len(), 1);
    assert!(resource.status.leftovers.is_empty());
}

#[tokio::test]
async fn the_tag_format_adds_two_requests_for_each_target_and_its_proofs() {
    for registry in both().await {
        image(&registry);
        let spec = signed(&registry, json!(["Tag"]));
        let mut resource = resource(spec);
        resource.ready().await;
        let blobs = registry
            .requests()
            .iter()
            .filter(|request| request.path.contains("/blobs/"))
            .count();
        let all = registry.requests().len();
        // The index, and for each target the read, the write, and two reads as proofs.
        assert!(all - blobs <= 1 + 3 * (2 + 2), "{}", registry.transcript());
        // The text and the config of each target.
        assert!(blobs <= 3 * 2 * 2, "{}", registry.transcript());
    }
}

#[tokio::test]
async fn a_deleted_resource_takes_off_its_own_layers_and_bundles_only() {
    for registry in both().await {
        let image = image(&registry);
        let theirs = foreign(&registry, &image.digest);
        let mut resource = resource(signed(&registry, json!(["Bundle", "Tag"])));
        resource.ready().await;
        let deleted = resource.delete().await;
        assert_eq!((deleted.gone, deleted.kept), (6, 0), "{deleted:?}");
        assert!(deleted.failed.is_none());
        for digest in [image.digest.as_str(), image.platform("linux/arm64")] {
            assert!(registry.store().referrers("team/app", digest).is_empty());
            let foreign = usize::from(digest == image.digest);
            assert_eq!(layers(&registry, digest).len(), foreign);
        }
        let raw = registry.store().raw_tag("team/app", &tag_of(&image.digest));
        assert!(String::from_utf8_lossy(&raw.unwrap()).contains(&theirs));
    }
}

#[tokio::test]
async fn detach_removes_equal_layers_of_any_owner_and_no_others() {
    for registry in both().await {
        let image = image(&registry);
        foreign(&registry, &image.digest);
        let spec = signed(&registry, json!(["Bundle", "Tag"]));
        resource(spec.clone()).ready().await;
        let mut other = resource(spec.clone());
        other.secret("key", &[("cosign.key", OTHER)]);
        other.ready().await;
        assert_eq!(layers(&registry, &image.digest).len(), 3);
        let removed = resource(spec).detach().await;
        assert_eq!(
            removed.verdict.reason,
            Reason::Removed,
            "{:?}",
            removed.verdict
        );
        assert_eq!(layers(&registry, &image.digest).len(), 2);
        assert_eq!(
            registry.store().referrers("team/app", &image.digest).len(),
            1
        );
        other.later(60);
        registry.clear();
        other.ready().await;
        assert!(registry.requests_that(&Matcher::writes()).is_empty());
    }
}

/// Kills a pass after `polls` polls and runs another one. Returns whether the first pass was complete before the kill.
async fn killed_after(polls: u32, quirks: &Quirks, remembers: bool) -> bool {
    let registry = HostileRegistry::builder()
        .quirks(quirks.clone())
        .start()
        .await
        .unwrap();
    let image = image(&registry);
    let mut spec = signed(&registry, json!(["Bundle", "Tag"]));
    spec["targets"] = json!({"scope": "Index"});
    let ended = {
        let (first, saved) = (resource(spec.clone()), Saved::default());
        let known = saved.get();
        let ended = if remembers {
            dropped_after(polls, first.pass_over(&known, &saved)).await
        } else {
            dropped_after(polls, first.pass_over(&known, &Forgets)).await
        };
        let known = saved.get();
        let outcome = first.pass_over(&known, &saved).await;
        assert!(outcome.verdict.ready, "after {polls} polls: {outcome:#?}");
        ended.is_some()
    };
    let made = layers(&registry, &image.digest).len();
    let transcript = registry.transcript();
    assert_eq!(made, 1, "layers after {polls} polls\n{transcript}");
    let has_api = *quirks == Quirks::default();
    let listed = match has_api {
        true => registry.store().referrers("team/app", &image.digest).len(),
        false => registry
            .store()
            .fallback_entries("team/app", &image.digest)
            .len(),
    };
    assert_eq!(listed, 1, "bundles after {polls} polls\n{transcript}");
    ended
}

#[tokio::test]
async fn t18_after_a_kill_each_target_has_one_layer_and_one_bundle() {
    for quirks in [Quirks::default(), Quirks::distribution()] {
        for remembers in [true, false] {
            let kills = futures::stream::iter(0..2000)
                .map(|polls| {
                    let quirks = quirks.clone();
                    async move { (polls, killed_after(polls, &quirks, remembers).await) }
                })
                .buffered(8);
            let mut kills = std::pin::pin!(kills);
            let mut last = 0;
            while let Some((polls, ended)) = kills.next().await {
                last = polls;
                if ended {
                    break;
                }
            }
            assert!(last > 10 && last < 1999, "a pass of {last} polls");
        }
    }
}
