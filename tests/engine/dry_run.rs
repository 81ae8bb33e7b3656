//! `dryRun`: status shows the whole plan, and the registry is unchanged.

use affix::api::Origin;
use affix_testbed::hostile::{HostileRegistry, Matcher};
use serde_json::{Value, json};

use crate::resource::{CREATED, Resource, TYPE, attach, note};

fn dry(mut spec: Value) -> Value {
    spec["dryRun"] = json!(true);
    spec
}

#[tokio::test]
async fn a_dry_run_over_existing_attachments_reports_the_adoptions() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    attach(
        &registry,
        &image,
        TYPE,
        json!({CREATED: "2025-01-01T00:00:00Z", "demo/note": "hello"}),
    );
    let spec = note(&registry.reference(&image.name()), "hello");
    let mut resource = Resource::new(dry(spec.clone()));
    resource.pass().await;
    assert_eq!(
        resource.verdict(),
        ("Planned", "dry run: 1 of 2 targets would be attached")
    );
    assert_eq!(
        resource.rows(),
        ["index Attached -", "linux/amd64 Planned -"]
    );
    assert_eq!(resource.status.targets[0].origin, Some(Origin::Adopted));
    assert_eq!(resource.status.attached.as_deref(), Some("1/2"));
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );

    resource.change(spec.clone());
    resource.ready().await;
    resource.change(dry(spec));
    let outcome = resource.pass().await;
    assert_eq!(
        resource.verdict(),
        ("Planned", "dry run: nothing to do: 2 targets attached")
    );
    assert!(!outcome.is_hurried(), "a plan is renewed at the interval");
}

#[tokio::test]
async fn a_dry_run_of_a_changed_spec_removes_nothing_and_reports_the_removals() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let reference = registry.reference(&image.name());
    let mut resource = Resource::new(note(&reference, "one"));
    resource.ready().await;
    let first: Vec<String> = [&image.digest, image.platform("linux/amd64")]
        .map(|digest| resource.attachment(digest).to_owned())
        .into();
    registry.clear();

    resource.change(dry(note(&reference, "two")));
    resource.pass().await;
    assert_eq!(
        resource.verdict(),
        (
            "Planned",
            "dry run: 2 of 2 targets would be attached; 2 attachments would be removed"
        )
    );
    let mut planned: Vec<String> = resource
        .status
        .leftovers
        .iter()
        .map(|leftover| leftover.attachment.clone())
        .collect();
    assert!(
        resource
            .status
            .leftovers
            .iter()
            .all(|leftover| leftover.reason.as_deref() == Some("Planned")),
        "{:#?}",
        resource.status
    );
    planned.sort();
    let mut expected = first.clone();
    expected.sort();
    assert_eq!(planned, expected);
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );

    resource.change(note(&reference, "two"));
    resource.ready().await;
    assert!(
        resource.status.leftovers.is_empty(),
        "{:#?}",
        resource.status.leftovers
    );
    for digest in first {
        assert!(
            registry.store().manifest("team/app", &digest).is_none(),
            "{digest} is still there"
        );
    }
}

#[tokio::test]
async fn a_dry_run_that_waits_for_a_move_of_the_tag_reports_it() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let when = json!({"whenSuperseded": {"gracePeriod": "720h"}});
    let mut resource = Resource::new(dry(
        json!({"image": registry.reference(&image.name()), "endOfLife": when}),
    ));
    resource.pass().await;
    assert_eq!(
        resource.verdict(),
        (
            "Planned",
            "dry run: nothing to do: the tag has left nothing behind yet"
        )
    );
}
