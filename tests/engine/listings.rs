//! Existing referrers: the number that a pass reads, and the remarks on them.

use std::time::Duration;

use affix::api::Origin;
use affix::engine::EngineOptions;
use affix_testbed::hostile::{
    Deletion, EntryType, Fault, HostileRegistry, Image, Lag, Matcher, OciSubject, Op, Quirks,
};
use serde_json::{Value, json};

use crate::resource::{CREATED, DATE, MARK, Resource, TYPE, attach, mark, note};

async fn registry_and_image(quirks: Quirks) -> (HostileRegistry, Image) {
    let registry = HostileRegistry::builder()
        .quirks(quirks)
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    (registry, image)
}

/// Returns the spec of a note on the index only.
fn on_the_index(registry: &HostileRegistry, image: &Image) -> Value {
    let mut spec = note(&registry.reference(&image.name()), "hello");
    spec["targets"] = json!({"scope": "Index"});
    spec
}

/// Stores foreign referrers that a listing does not distinguish from owned ones: one annotation differs, and the registry lists no annotations.
fn strangers(registry: &HostileRegistry, image: &Image, count: usize) {
    for nth in 0..count {
        attach(
            registry,
            image,
            TYPE,
            json!({CREATED: format!("2026-01-01T00:00:{nth:02}Z"), "demo/note": "hello", "demo/more": "x"}),
        );
    }
}

/// Both kinds of registry, with listings that show no annotations.
fn both() -> [Quirks; 2] {
    let without_api = Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    };
    [silent(), without_api]
}

/// Lists the referrers of the index in its fallback tag, without their annotations.
fn list_in_fallback_tag(registry: &HostileRegistry, image: &Image) {
    let store = registry.store();
    let referrers = store.referrers("team/app", &image.digest);
    let entries: Vec<Value> = referrers
        .iter()
        .map(|manifest| {
            let mut entry = manifest.descriptor();
            entry["artifactType"] = manifest.json()["artifactType"].clone();
            entry
        })
        .collect();
    store.put_fallback("team/app", &image.digest, &entries);
}

/// A registry whose listings show no annotations.
fn silent() -> Quirks {
    Quirks {
        entry_annotations: false,
        ..Quirks::default()
    }
}

#[tokio::test]
async fn an_equal_attachment_is_found_among_too_many_candidates_by_its_listing() {
    let (registry, image) = registry_and_image(Quirks::default()).await;
    for nth in 0..50 {
        attach(
            &registry,
            &image,
            TYPE,
            json!({CREATED: format!("2026-01-01T00:00:{nth:02}Z")}),
        );
    }
    let equal = attach(
        &registry,
        &image,
        TYPE,
        json!({CREATED: "2025-01-01T00:00:00Z", "demo/note": "hello"}),
    );
    let mut resource = Resource::new(on_the_index(&registry, &image));
    resource.ready().await;
    assert_eq!(
        (
            resource.attachment(&image.digest),
            resource.status.targets[0].origin
        ),
        (equal.as_str(), Some(Origin::Adopted))
    );
    let read = registry.requests_that(&Matcher::on(Op::ManifestGet)).len();
    assert!(read <= 1 + 8, "{}", registry.transcript());
    assert!(
        resource
            .resolved()
            .contains("43 more referrers of this type that were not read"),
        "{}",
        resource.resolved()
    );
}

#[tokio::test]
async fn any_number_of_foreign_referrers_of_the_type_is_read_in_waves() {
    for quirks in both() {
        for count in [8, 9, 40] {
            let (registry, image) = registry_and_image(quirks.clone()).await;
            strangers(&registry, &image, count);
            list_in_fallback_tag(&registry, &image);
            let mut resource = Resource::new(on_the_index(&registry, &image));
            resource.ready().await;
            assert_eq!(resource.status.targets[0].origin, Some(Origin::Made));
            let referrers = registry.store().referrers("team/app", &image.digest);
            assert_eq!(referrers.len(), count + 1, "{}", registry.transcript());
        }
    }
}

#[tokio::test]
async fn referrers_that_are_larger_than_a_pass_together_are_read_in_waves() {
    // 36 MiB, and a pass may read 32 MiB of images.
    let text = "x".repeat(400 << 10);
    for quirks in both() {
        let (registry, image) = registry_and_image(quirks).await;
        for nth in 0..30 {
            let large = json!({"demo/note": "hello", "nth": nth.to_string(), "a": text, "b": text, "c": text});
            attach(&registry, &image, TYPE, large);
        }
        list_in_fallback_tag(&registry, &image);
        let mut resource = Resource::new(on_the_index(&registry, &image));
        resource.ready().await;
        assert_eq!(resource.status.targets[0].origin, Some(Origin::Made));
    }
}

#[tokio::test]
async fn an_equal_attachment_is_found_in_any_wave() {
    for quirks in both() {
        let (registry, image) = registry_and_image(quirks).await;
        strangers(&registry, &image, 30);
        let equal = attach(
            &registry,
            &image,
            TYPE,
            json!({CREATED: "2026-01-01T00:00:00Z", "demo/note": "hello"}),
        );
        list_in_fallback_tag(&registry, &image);
        let mut resource = Resource::new(on_the_index(&registry, &image));
        resource.ready().await;
        assert_eq!(resource.attachment(&image.digest), equal);
        assert_eq!(resource.status.targets[0].origin, Some(Origin::Adopted));
    }
}

#[tokio::test]
async fn candidates_in_flight_are_limited_to_one_wave() {
    let (registry, image) = registry_and_image(silent()).await;
    strangers(&registry, &image, 40);
    registry.fault(
        Matcher::on(Op::ManifestGet),
        Fault::Delay(Duration::from_millis(20)),
    );
    let mut resource = Resource::new(on_the_index(&registry, &image));
    resource.ready().await;
    let most = registry.most_at_once();
    assert!(most <= 8 + 1, "{most} requests at once");
}

#[tokio::test]
async fn twelve_marks_without_a_time_do_not_block_a_mark() {
    for quirks in both() {
        let (registry, image) = registry_and_image(quirks).await;
        for nth in 0..12 {
            attach(
                &registry,
                &image,
                MARK,
                json!({DATE: "2027-01-01", "nth": nth.to_string()}),
            );
        }
        list_in_fallback_tag(&registry, &image);
        let reference = registry.reference(&image.pinned());
        let mut resource = Resource::new(mark(&reference, "2026-01-01", "Report"));
        resource.ready().await;
        assert_eq!(resource.status.targets[0].origin, Some(Origin::Made));
        // A foreign mark whose time the listing hides still outranks the mark of this resource.
        resource.later(60);
        let newer = json!({CREATED: "2026-11-23T12:00:30Z", DATE: "2028-01-01"});
        attach(&registry, &image, MARK, newer);
        list_in_fallback_tag(&registry, &image);
        resource.pass().await;
        assert_eq!(resource.verdict().0, "Conflict");
    }
}

#[tokio::test]
async fn forty_referrers_are_reported_as_far_as_they_are_known() {
    for (quirks, words) in [
        (Quirks::default(), "40 referrers of this type alone"),
        (Quirks::distribution(), "41 referrers;"),
    ] {
        let (registry, image) = registry_and_image(quirks).await;
        let mut entries = Vec::new();
        for nth in 0..41 {
            let artifact_type = if nth == 0 {
                "application/vnd.other"
            } else {
                TYPE
            };
            let annotations =
                json!({CREATED: "2026-01-01T00:00:00Z", "demo/note": format!("another {nth}")});
            let digest = attach(&registry, &image, artifact_type, annotations.clone());
            let size = registry
                .store()
                .manifest("team/app", &digest)
                .unwrap()
                .bytes
                .len();
            entries.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
                "artifactType": artifact_type, "annotations": annotations,
            }));
        }
        registry
            .store()
            .put_fallback("team/app", &image.digest, &entries);
        let mut resource = Resource::new(on_the_index(&registry, &image));
        resource.ready().await;
        assert!(
            resource.resolved().contains(words),
            "{words}: {}",
            resource.resolved()
        );
    }
}

#[tokio::test]
async fn the_referrers_limit_counts_every_type_and_prevents_only_additions() {
    let (registry, image) = registry_and_image(Quirks::default()).await;
    for nth in 0..5 {
        attach(
            &registry,
            &image,
            "application/vnd.other",
            json!({CREATED: "2026-01-01T00:00:00Z", "nth": nth.to_string()}),
        );
    }
    let options = EngineOptions {
        max_referrers: Some(5),
        ..EngineOptions::default()
    };
    let mut resource = Resource::with(on_the_index(&registry, &image), options);
    resource.pass().await;
    let (reason, message) = resource.verdict();
    assert_eq!(reason, "LimitExceeded");
    assert!(message.contains("5 referrers"), "{message}");
    assert!(
        registry
            .requests_that(&Matcher::on(Op::ManifestPut))
            .is_empty(),
        "{}",
        registry.transcript()
    );

    // An attached target stays attached when others add referrers.
    let (registry, image) = registry_and_image(Quirks::default()).await;
    let options = EngineOptions {
        max_referrers: Some(5),
        ..EngineOptions::default()
    };
    let mut resource = Resource::with(on_the_index(&registry, &image), options);
    resource.ready().await;
    for nth in 0..9 {
        attach(
            &registry,
            &image,
            "application/vnd.other",
            json!({CREATED: "2026-01-01T00:00:00Z", "nth": nth.to_string()}),
        );
    }
    resource.ready().await;
}

/// Returns listings without the artifact type, with and without annotations.
fn untyped() -> impl Iterator<Item = Quirks> {
    [true, false].into_iter().flat_map(|entry_annotations| {
        [EntryType::ConfigMediaType, EntryType::Absent].map(|entry_type| Quirks {
            entry_annotations,
            entry_type,
            ..Quirks::go_containerregistry()
        })
    })
}

#[tokio::test]
async fn an_attachment_listed_without_its_type_is_found_without_status() {
    for quirks in untyped() {
        let (registry, image) = registry_and_image(quirks.clone()).await;
        let spec = note(&registry.reference(&image.name()), "hello");
        Resource::new(spec.clone()).ready().await;
        let mut anew = Resource::new(spec);
        anew.later(60);
        anew.ready().await;
        assert!(
            anew.status
                .targets
                .iter()
                .all(|row| row.origin == Some(Origin::Adopted)),
            "{quirks:?}: {:#?}",
            anew.status.targets
        );
        for digest in [&image.digest, image.platform("linux/amd64")] {
            assert_eq!(
                registry.store().referrers("team/app", digest).len(),
                1,
                "{quirks:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_mark_listed_without_its_type_is_ranked_by_its_manifest() {
    for quirks in untyped() {
        let (registry, image) = registry_and_image(quirks.clone()).await;
        let mut resource = Resource::new(mark(
            &registry.reference(&image.pinned()),
            "2026-01-01",
            "Report",
        ));
        resource.ready().await;
        resource.later(60);
        let another = json!({CREATED: "2026-11-23T12:00:30Z", DATE: "2027-01-01"});
        attach(&registry, &image, "application/vnd.other", another.clone());
        resource.ready().await;
        let foreign = attach(&registry, &image, MARK, another);
        resource.pass().await;
        let (reason, message) = resource.verdict();
        assert_eq!(reason, "Conflict", "{quirks:?}");
        assert!(message.contains(&foreign), "{quirks:?}: {message}");
    }
}

/// A registry that acknowledges no subject, and whose listing lags.
fn lagging(lag: Duration) -> Quirks {
    Quirks {
        oci_subject: OciSubject::Never,
        listing_lag: Lag::time(lag),
        ..Quirks::default()
    }
}

#[tokio::test]
async fn a_single_run_waits_for_a_listing_that_lags_within_its_time_limit() {
    let waiting = EngineOptions {
        wait_until_listed: true,
        ..EngineOptions::default()
    };
    let (registry, image) = registry_and_image(lagging(Duration::from_millis(1500))).await;
    let mut resource = Resource::with(on_the_index(&registry, &image), waiting.clone());
    resource.ready().await;

    let (registry, image) = registry_and_image(lagging(Duration::from_hours(1))).await;
    let mut spec = on_the_index(&registry, &image);
    spec["timeout"] = json!("2s");
    let mut resource = Resource::with(spec, waiting);
    resource.pass().await;
    let (reason, message) = resource.verdict();
    assert_eq!(reason, "Progressing");
    assert!(message.contains("does not list yet"), "{message}");
}

#[tokio::test]
async fn the_controller_looks_at_a_lagging_listing_in_its_next_pass() {
    let (registry, image) = registry_and_image(lagging(Duration::from_millis(300))).await;
    let mut resource = Resource::new(on_the_index(&registry, &image));
    let outcome = resource.pass().await;
    assert!(outcome.is_hurried());
    assert_eq!(resource.verdict().0, "Progressing");
    tokio::time::sleep(Duration::from_millis(400)).await;
    resource.ready().await;
}

#[tokio::test]
async fn status_claims_no_referrers_mode_after_a_failed_listing() {
    for mode in ["Auto", "API"] {
        let (registry, image) = registry_and_image(Quirks::default()).await;
        let fault = registry.fault(Matcher::on(Op::ReferrersList), Fault::status(403));
        let mut spec = on_the_index(&registry, &image);
        spec["referrersMode"] = json!(mode);
        let mut resource = Resource::new(spec);
        resource.pass().await;
        assert_eq!(resource.status.referrers_mode, None, "{mode}");
        fault.lift();
        resource.ready().await;
        assert!(resource.status.referrers_mode.is_some(), "{mode}");
    }
}
