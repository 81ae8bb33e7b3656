//! What is there already: how much of it is read, and what is said of it.

use affix::api::Origin;
use affix::engine::EngineOptions;
use affix_testbed::hostile::{EntryType, HostileRegistry, Image, Matcher, Op, Quirks};
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

/// A note on the index alone.
fn on_the_index(registry: &HostileRegistry, image: &Image) -> Value {
    let mut spec = note(&registry.reference(&image.name()), "hello");
    spec["targets"] = json!({"scope": "Index"});
    spec
}

/// Referrers that a listing does not tell from ours: all but one annotation of theirs is ours, and the registry lists none of it.
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

/// A registry whose listings show no annotations.
fn silent() -> Quirks {
    Quirks {
        entry_annotations: false,
        ..Quirks::default()
    }
}

#[tokio::test]
async fn an_equal_one_among_more_candidates_than_are_read_is_found_where_its_listing_shows_it() {
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
async fn more_candidates_than_are_read_and_none_of_them_equal_is_a_limit_and_never_a_blind_push() {
    let (registry, image) = registry_and_image(silent()).await;
    strangers(&registry, &image, 9);
    let mut resource = Resource::new(on_the_index(&registry, &image));
    resource.pass().await;
    let (reason, message) = resource.verdict();
    assert_eq!(reason, "LimitExceeded");
    assert!(
        message.contains("9 referrers") && message.contains("more than 8"),
        "{message}"
    );
    assert!(
        registry
            .requests_that(&Matcher::on(Op::ManifestPut))
            .is_empty(),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn as_many_candidates_as_are_read_are_no_limit() {
    let (registry, image) = registry_and_image(silent()).await;
    strangers(&registry, &image, 8);
    let mut resource = Resource::new(on_the_index(&registry, &image));
    resource.ready().await;
    assert_eq!(resource.status.targets[0].origin, Some(Origin::Made));
}

#[tokio::test]
async fn forty_referrers_are_said_as_far_as_they_are_known() {
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
async fn a_limit_of_the_operator_counts_referrers_of_every_type_and_forbids_only_to_add() {
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
        most_referrers: Some(5),
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

    // What is attached stays so, whatever others add.
    let (registry, image) = registry_and_image(Quirks::default()).await;
    let options = EngineOptions {
        most_referrers: Some(5),
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

/// Listings that do not say what an attachment is, with its annotations and without.
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
async fn an_attachment_whose_listing_does_not_say_its_type_is_found_again_without_a_status() {
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
async fn a_mark_whose_listing_does_not_say_its_type_is_ranked_by_what_its_manifest_says() {
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
