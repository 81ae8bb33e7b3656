//! Unusual images and references: the targets of each, or the reason of the refusal.

use affix::api::Origin;
use affix_testbed::hostile::{Account, HostileRegistry, Image, Matcher, Op, Reply, Stage};
use serde_json::{Value, json};

use crate::resource::{CREATED, Resource, TYPE, attach, note};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn registry() -> HostileRegistry {
    HostileRegistry::start().await.unwrap()
}

/// Runs a pass that attaches a note to all of an image, and returns the resource.
async fn passed(registry: &HostileRegistry, image: &str) -> Resource {
    let mut resource = Resource::new(note(&registry.reference(image), "hello"));
    resource.pass().await;
    resource
}

/// Stores an index of `entries` and returns its descriptor.
fn index(registry: &HostileRegistry, tag: &str, entries: &[Value]) -> Value {
    let bytes = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let digest = registry
        .store()
        .put_manifest("team/app", Some(tag), INDEX, bytes.clone());
    json!({"mediaType": INDEX, "digest": digest, "size": bytes.len()})
}

#[tokio::test]
async fn a_single_manifest_with_another_config_is_a_target_without_a_platform() {
    let registry = registry().await;
    let config = registry
        .store()
        .put_blob("team/app", r#"{"os":"linux","architecture":"amd64"}"#);
    let chart = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": config, "size": 37}});
    let digest =
        registry
            .store()
            .put_manifest("team/app", Some("chart"), MANIFEST, chart.to_string());
    let resource = passed(&registry, "team/app:chart").await;
    assert_eq!(
        resource.status.attached.as_deref(),
        Some("1/1"),
        "{:#?}",
        resource.status
    );
    assert_eq!(
        (
            resource.status.targets[0].platform.as_deref(),
            resource.status.targets[0].digest.as_str()
        ),
        (None, digest.as_str())
    );
    assert!(
        registry.requests_that(&Matcher::on(Op::BlobGet)).is_empty(),
        "a config of another kind has no platform"
    );
}

/// Stores a single manifest with `config`.
fn single(registry: &HostileRegistry, tag: &str, config: &str) {
    let digest = registry.store().put_blob("team/app", config.to_owned());
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len()});
    let image = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "config": config});
    registry
        .store()
        .put_manifest("team/app", Some(tag), MANIFEST, image.to_string());
}

#[tokio::test]
async fn a_large_config_has_its_platform_and_one_with_an_endless_platform_has_none() {
    let registry = registry().await;
    let (label, history) = ("l".repeat(1 << 20), "{},".repeat(500_000));
    let large = format!(
        r#"{{"config":{{"Labels":{{"l":"{label}"}}}},"history":[{history}{{}}],"os":"linux","architecture":"amd64"}}"#
    );
    let endless = json!({"os": "o".repeat(3 << 20), "architecture": "amd64"}).to_string();
    let text = json!("\u{7f}".repeat(3 << 20)).to_string();
    for (tag, config, expected) in [
        ("large", large, Some("linux/amd64")),
        ("endless", endless, None),
        ("text", text, None),
    ] {
        single(&registry, tag, &config);
        let resource = passed(&registry, &format!("team/app:{tag}")).await;
        assert_eq!(
            resource.status.attached.as_deref(),
            Some("1/1"),
            "{tag}: {:#?}",
            resource.status
        );
        assert_eq!(
            resource.status.targets[0].platform.as_deref(),
            expected,
            "{tag}"
        );
    }
    // An entry without a platform matches no requested platform.
    let mut spec = note(&registry.reference("team/app:endless"), "chosen");
    spec["targets"] = json!({"platforms": ["linux/amd64"]});
    let mut chosen = Resource::new(spec);
    chosen.pass().await;
    let status = serde_json::to_string(&chosen.status).unwrap();
    assert!(
        status.contains("NoMatchingPlatform") && status.len() < 4096,
        "{} bytes",
        status.len()
    );
}

#[tokio::test]
async fn equal_platforms_windows_versions_and_unnamed_entries_are_targets_each() {
    let registry = registry().await;
    let child = |seed: &str| {
        registry
            .image("team/app", seed)
            .platform("linux/amd64")
            .push()
            .children[0]
            .entry
            .clone()
    };
    let (gzip, zstd, mut server, mut older, mut bare) = (
        child("gzip"),
        child("zstd"),
        child("2022"),
        child("2019"),
        child("bare"),
    );
    server["platform"] =
        json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"});
    older["platform"] =
        json!({"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1"});
    bare.as_object_mut().unwrap().remove("platform");
    index(&registry, "v1", &[gzip, zstd, server, older, bare]);
    let resource = passed(&registry, "team/app:v1").await;
    assert_eq!(
        resource.status.attached.as_deref(),
        Some("6/6"),
        "{:#?}",
        resource.rows()
    );
    let mut spec = note(&registry.reference("team/app:v1"), "chosen");
    spec["targets"] =
        json!({"platforms": ["linux/amd64", "windows/amd64:10.0.20348"], "scope": "Platforms"});
    let mut chosen = Resource::new(spec);
    chosen.ready().await;
    assert_eq!(
        chosen.status.attached.as_deref(),
        Some("3/3"),
        "{:#?}",
        chosen.rows()
    );
}

#[tokio::test]
async fn references_to_attachments_and_fallback_tags_are_refused() {
    let registry = registry().await;
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let attachment = attach(&registry, &image, TYPE, json!({}));
    registry
        .store()
        .put_tag("team/app", "attachment", &attachment);
    let fallback = image.digest.replace(':', "-");
    registry.store().put_fallback(
        "team/app",
        &image.digest,
        &[json!({"mediaType": MANIFEST, "digest": attachment, "size": 2})],
    );
    for reference in [
        format!("team/app@{attachment}"),
        "team/app:attachment".to_owned(),
        format!("team/app:{fallback}"),
    ] {
        let resource = passed(&registry, &reference).await;
        assert_eq!(
            resource.verdict().0,
            "InvalidReference",
            "{reference}: {:?}",
            resource.verdict()
        );
    }
    assert!(
        registry
            .requests_that(&Matcher::on(Op::ManifestPut))
            .is_empty(),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_missing_manifest_gets_its_attachment_and_a_missing_nested_index_fails_alone() {
    let registry = registry().await;
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .missing("linux/arm64")
        .push();
    let resource = passed(&registry, "team/app:v1").await;
    assert_eq!(
        resource.status.attached.as_deref(),
        Some("3/3"),
        "{:#?}",
        resource.rows()
    );
    let absent = image
        .children
        .iter()
        .find(|child| {
            registry
                .store()
                .manifest("team/app", &child.digest)
                .is_none()
        })
        .unwrap();
    assert_eq!(
        registry.store().referrers("team/app", &absent.digest).len(),
        1
    );

    let gone =
        json!({"mediaType": INDEX, "digest": format!("sha256:{}", "d".repeat(64)), "size": 500});
    index(
        &registry,
        "v2",
        &[image.children[0].entry.clone(), gone.clone()],
    );
    let resource = passed(&registry, "team/app:v2").await;
    let row = resource
        .status
        .targets
        .iter()
        .find(|row| gone["digest"] == row.digest)
        .unwrap();
    assert_eq!(
        (row.reason.as_deref(), resource.verdict().0),
        (Some("NotFound"), "PartiallyAttached"),
        "{:#?}",
        resource.status
    );
    assert_eq!(resource.status.attached.as_deref(), Some("2/3"));
}

#[tokio::test]
async fn nested_indexes_with_too_many_entries_together_exceed_the_limit() {
    let registry = registry().await;
    // Each index is within the limit and has the same entries as the others.
    let child = |nth: usize| json!({"mediaType": MANIFEST, "digest": format!("sha256:{nth:064x}"), "size": 5});
    let children: Vec<Value> = (0..900).map(child).collect();
    let nested: Vec<Value> = (0..900)
        .map(|nth| {
            let children = if nth < 60 { children.as_slice() } else { &[] };
            let bytes = json!({"schemaVersion": 2, "mediaType": INDEX, "annotations": {"nth": nth.to_string()}, "manifests": children});
            let bytes = bytes.to_string();
            let digest = registry.store().put_manifest("team/app", None, INDEX, bytes.clone());
            json!({"mediaType": INDEX, "digest": digest, "size": bytes.len()})
        })
        .collect();
    index(&registry, "v1", &nested);
    let resource = passed(&registry, "team/app:v1").await;
    assert_eq!(resource.verdict().0, "LimitExceeded");
    assert!(
        resource.verdict().1.contains("more than 1000 entries"),
        "{:?}",
        resource.verdict()
    );
    let read = registry.requests_that(&Matcher::on(Op::ManifestGet)).len();
    assert!(read < 900, "{read} manifests were read");
}

#[tokio::test]
async fn a_falsely_reported_blob_is_uploaded_once_its_manifest_is_refused() {
    let registry = registry().await;
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    // Blob stores behind redirects may report any blob as present.
    let elsewhere = Reply::status(307).header("Location", "https://blobs.example.com/x");
    registry.fault(Matcher::on(Op::BlobHead), elsewhere);
    let resource = passed(&registry, &image.name()).await;
    assert_eq!(
        resource.status.attached.as_deref(),
        Some("3/3"),
        "{:#?}\n{}",
        resource.status,
        registry.transcript()
    );
}

#[tokio::test]
async fn t9_a_tag_that_moves_between_two_calls_does_not_change_the_pass() {
    let registry = registry().await;
    let other = registry
        .image("team/app", "other")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let (store, moved) = (registry.store(), other.digest.clone());
    registry.hook_at(
        Stage::After,
        Matcher::on(Op::ManifestGet).reference("v1"),
        move |_| {
            store.put_tag("team/app", "v1", &moved);
            async {}
        },
    );
    let resource = passed(&registry, "team/app:v1").await;
    assert_eq!(
        (
            registry.store().tag("team/app", "v1").as_deref(),
            resource.verdict().0
        ),
        (Some(&*other.digest), "Attached")
    );
    assert_eq!(resource.status.image.as_ref().unwrap().digest, image.digest);
    let attached = |image: &Image| {
        let digests =
            std::iter::once(&image.digest).chain(image.children.iter().map(|child| &child.digest));
        digests
            .map(|digest| registry.store().referrers("team/app", digest).len())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (attached(&image), attached(&other)),
        (vec![1, 1, 1], vec![0, 0, 0]),
        "{}",
        registry.transcript()
    );
    assert_eq!(
        registry
            .requests_that(&Matcher::any().reference("v1"))
            .len(),
        1,
        "a pass resolves the reference once"
    );
}

#[tokio::test]
async fn t25_a_foreign_manifest_that_resembles_ours_in_the_listing_is_not_adopted() {
    let registry = registry().await;
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    // The manifest has more annotations than its listing shows, and a foreign manifest is stored under the digest of an owned one.
    let odd = attach(
        &registry,
        &image,
        TYPE,
        json!({CREATED: "2026-01-01T00:00:00Z", "demo/note": "hello", "demo/more": "x"}),
    );
    registry.quirks(|quirks| quirks.entry_annotations = false);
    let mut spec = note(&registry.reference("team/app:v1"), "hello");
    spec["targets"] = json!({"scope": "Index"});
    let mut resource = Resource::new(spec);
    resource.ready().await;
    let ours = resource.attachment(&image.digest).to_owned();
    assert_eq!(
        (ours != odd, resource.status.targets[0].origin),
        (true, Some(Origin::Made)),
        "{:#?}",
        resource.status
    );
    assert_eq!(
        registry
            .requests_that(&Matcher::on(Op::ManifestGet).reference(&*odd))
            .len(),
        1,
        "the manifest is read before the comparison"
    );
    assert_eq!(
        registry.store().referrers("team/app", &image.digest).len(),
        2,
        "a foreign attachment stays"
    );
}

#[tokio::test]
async fn t15_a_title_outside_its_folder_prevents_the_push() {
    let registry = registry().await;
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    for title in [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "a/",
        "..",
        "c:x",
        "a\\b",
        "a\u{0}b",
    ] {
        let files = json!([{"name": title, "value": "x"}]);
        let artifact = json!({"artifactType": TYPE, "files": files});
        let mut resource = Resource::new(
            json!({"image": registry.reference(&image.name()), "artifact": artifact}),
        );
        resource.pass().await;
        let (reason, message) = resource.verdict();
        assert_eq!(reason, "InvalidSpec", "{title:?}: {message}");
        assert!(
            message.contains("spec.artifact.files[0].name") && message.contains("not a file name"),
            "{title:?}: {message}"
        );
    }
    assert!(registry.requests().is_empty(), "{}", registry.transcript());
}

#[tokio::test]
async fn an_odd_sibling_is_named_in_resolved_and_the_rest_is_attached() {
    let registry = registry().await;
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let entry = |platform: &str| {
        let digest = image.platform(platform);
        let size = registry
            .store()
            .manifest("team/app", digest)
            .unwrap()
            .bytes
            .len();
        json!({"mediaType": MANIFEST, "digest": digest, "size": size, "annotations": null})
    };
    let odd = json!({"mediaType": MANIFEST, "digest": "blake3:00ff", "size": 7});
    let sized =
        json!({"mediaType": MANIFEST, "digest": image.platform("linux/arm64"), "size": "x"});
    index(&registry, "odd", &[odd, entry("linux/amd64"), sized]);
    let mut resource = Resource::new(note(&registry.reference("team/app:odd"), "hello"));
    resource.pass().await;
    assert_eq!(
        resource.status.attached.as_deref(),
        Some("2/2"),
        "{:#?}",
        resource.status
    );
    let resolved = resource.resolved();
    assert!(
        resolved.contains("entry 0 is skipped: digest algorithm \"blake3\" is not supported")
            && resolved.contains("(1 more skipped)"),
        "{resolved}"
    );
}

#[tokio::test]
async fn a_dockercfg_secret_logs_in_and_its_odd_entry_is_named_in_resolved() {
    let registry = HostileRegistry::builder()
        .passwords([Account::new("user", "password")])
        .start()
        .await
        .unwrap();
    registry
        .image("team/app", "v1")
        .platforms(["linux/amd64"])
        .push();
    let mut spec = note(&registry.reference("team/app:v1"), "hello");
    spec["serviceAccountName"] = json!("default");
    let mut resource = Resource::new(spec);
    let config = json!({
        "my_host:8082": {"auth": "dTpw"},
        registry.host(): {"username": "user", "password": "password"},
    });
    resource.secret("odd", &[("password", b"p")]);
    resource.secret("pull", &[(".dockercfg", config.to_string().as_bytes())]);
    resource.sources.image_pull_secrets = Some(vec!["odd".into(), "pull".into()]);
    resource.ready().await;
    let resolved = resource.resolved();
    assert!(
        resolved.contains("the docker config's entry \"my_host:8082\" is skipped")
            && resolved.contains("the Secret \"odd\" has no key .dockerconfigjson"),
        "{resolved}"
    );
}
