//! The selection of targets on nested indexes, for both kinds of registry.

use affix_testbed::hostile::{Fault, HostileRegistry, Image, Matcher, Op, Quirks};
use serde_json::{Value, json};

use crate::resource::{DATE, MARK, Resource, note};

/// An index of two indexes, each with an image and an attestation.
struct Nested {
    root: Image,
    inner: [Image; 2],
}

/// Stores the image. `outer`: the platforms are on the outer entries only.
fn push(registry: &HostileRegistry, outer: bool) -> Nested {
    let inner = ["amd64", "arm64"].map(|arch| {
        let platform = format!("linux/{arch}");
        let image = registry.image("team/app", arch);
        let image = if outer {
            image.unnamed()
        } else {
            image.attestation(&platform).platform(&platform)
        };
        image.push()
    });
    let mut root = registry.image("team/app", "v1");
    for (image, arch) in inner.iter().zip(["amd64", "arm64"]) {
        let mut entry = image.descriptor();
        if outer {
            entry["platform"] = json!({"os": "linux", "architecture": arch});
        }
        root = root.entry(&entry);
        registry.store().delete_tag("team/app", arch);
    }
    Nested {
        root: root.push(),
        inner,
    }
}

fn spec(registry: &HostileRegistry, image: &Image, targets: Value) -> Value {
    json!({
        "image": registry.reference(&image.pinned()), "targets": targets,
        "endOfLife": {"date": "2026-01-01", "artifactType": MARK, "annotation": DATE},
    })
}

fn marked(resource: &Resource) -> Vec<&str> {
    let rows = resource.status.targets.iter();
    let mut marked: Vec<&str> = rows
        .filter(|row| row.attachment.is_some())
        .map(|row| row.digest.as_str())
        .collect();
    marked.sort_unstable();
    marked
}

#[tokio::test]
async fn an_index_without_a_selected_platform_gets_no_mark() {
    for quirks in [Quirks::default(), Quirks::distribution()] {
        for outer in [false, true] {
            let registry = HostileRegistry::builder()
                .quirks(quirks.clone())
                .start()
                .await
                .unwrap();
            let Nested { root, inner } = push(&registry, outer);
            let platform = inner[0].children.last().unwrap();
            let mut expected = [&root.digest, &inner[0].digest, &platform.digest];
            expected.sort_unstable();
            for targets in [
                json!({"platforms": ["linux/amd64"]}),
                json!({"excludePlatforms": ["linux/arm64"]}),
                json!({"digests": [platform.digest]}),
            ] {
                let mut resource = Resource::new(spec(&registry, &root, targets));
                resource.ready().await;
                assert_eq!(marked(&resource), expected, "{:#?}", resource.status);
                assert_eq!(resource.status.attached.as_deref(), Some("3/3"));
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_marked_where_nothing_is_selected() {
    for quirks in [Quirks::default(), Quirks::distribution()] {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let Nested { root, .. } = push(&registry, false);
        let other = format!("sha256:{}", "0".repeat(64));
        for targets in [
            json!({"platforms": ["linux/s390x"]}),
            json!({"excludePlatforms": ["linux"]}),
            json!({"digests": [other]}),
        ] {
            let mut resource = Resource::new(spec(&registry, &root, targets.clone()));
            resource.pass().await;
            assert_eq!(resource.verdict().0, "NoMatchingPlatform", "{targets}");

            let mut ignoring = targets;
            ignoring["missing"] = json!("Ignore");
            resource.change(spec(&registry, &root, ignoring.clone()));
            resource.ready().await;
            assert_eq!(
                resource.status.attached.as_deref(),
                Some("0/0"),
                "{ignoring}"
            );
            assert!(
                resource.resolved().contains("nothing is attached"),
                "{}",
                resource.resolved()
            );
            // A later pass at the interval finds nothing changed.
            resource.look().await;
            assert_eq!(resource.verdict().0, "Attached");
            assert!(marked(&resource).is_empty());
        }
        assert!(
            registry
                .store()
                .referrers("team/app", &root.digest)
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_narrower_selection_takes_its_marks_away() {
    let registry = HostileRegistry::start().await.unwrap();
    let Nested { root, inner } = push(&registry, false);
    let mut resource = Resource::new(spec(&registry, &root, json!({})));
    resource.ready().await;
    assert_eq!(marked(&resource).len(), 5);
    resource.change(spec(
        &registry,
        &root,
        json!({"platforms": ["linux/amd64"]}),
    ));
    resource.ready().await;
    assert_eq!(marked(&resource).len(), 3);
    let arm = registry.store().referrers("team/app", &inner[1].digest);
    assert!(arm.is_empty(), "{arm:?}");
}

#[tokio::test]
async fn tagged_indexes_that_hold_a_platform_are_targets_where_parents_are_wanted() {
    for quirks in [Quirks::default(), Quirks::distribution()] {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let platforms = ["linux/amd64", "linux/arm64"];
        let first = registry.image("team/app", "v1").platforms(platforms).push();
        let vulnerable = first.child("linux/amd64").unwrap();
        let second = registry
            .image("team/app", "v2")
            .entry(&vulnerable.entry)
            .push();
        let outer = registry
            .image("team/app", "all")
            .entry(&second.descriptor())
            .push();
        let other = registry.image("team/app", "v3").platforms(platforms).push();
        let gone = registry
            .image("team/app", "old")
            .seed("old")
            .entry(&vulnerable.entry)
            .platform("linux/s390x")
            .push();
        registry.store().delete_tag("team/app", "old");
        let image = registry.reference(&format!("team/app@{}", vulnerable.digest));
        let spec = |targets: Value| {
            json!({
                "image": image, "targets": targets,
                "endOfLife": {"date": "2026-01-01", "artifactType": MARK, "annotation": DATE},
            })
        };
        let mut resource = Resource::new(spec(json!({})));
        resource.ready().await;
        assert_eq!(marked(&resource), [&vulnerable.digest]);

        resource.change(spec(json!({"parents": "Tagged"})));
        resource.ready().await;
        let mut expected = [
            &vulnerable.digest,
            &first.digest,
            &second.digest,
            &outer.digest,
        ];
        expected.sort_unstable();
        assert_eq!(marked(&resource), expected, "{:#?}", resource.status);
        for unmarked in [
            &other.digest,
            &gone.digest,
            &first.platform("linux/arm64").to_owned(),
        ] {
            let marks = registry.store().referrers("team/app", unmarked);
            assert!(marks.is_empty(), "{unmarked}: {marks:?}");
        }

        // The scope applies to the parents too.
        let mut indexes = Resource::new(spec(json!({"parents": "Tagged", "scope": "Index"})));
        indexes.ready().await;
        assert_eq!(marked(&indexes).len(), 3, "{:#?}", indexes.status);
    }
}

#[tokio::test]
async fn nothing_is_attached_while_the_parents_are_unknown() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let mut spec = note(
        &registry.reference(&format!("team/app@{}", image.platform("linux/amd64"))),
        "hello",
    );
    spec["targets"] = json!({"parents": "Tagged"});
    let mut resource = Resource::new(spec.clone());
    let fault = registry.fault(Matcher::on(Op::TagList), Fault::status(403));
    resource.pass().await;
    assert_eq!(resource.verdict().0, "AccessDenied");
    assert!(registry.requests_that(&Matcher::writes()).is_empty());
    fault.lift();
    for nth in 0..500 {
        registry
            .store()
            .put_tag("team/app", &format!("t{nth}"), &image.digest);
    }
    resource.pass().await;
    assert_eq!(resource.verdict().0, "LimitExceeded");
    assert!(registry.requests_that(&Matcher::writes()).is_empty());
    registry.store().delete_tag("team/app", "t0");
    resource.ready().await;
    assert_eq!(resource.status.attached.as_deref(), Some("2/2"));
}
