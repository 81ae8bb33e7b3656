//! `endOfLife.whenSuperseded` over several passes: the moves of a tag, and their records in status.

use affix::api::{Reason, SupersededState};
use affix_testbed::hostile::{Deletion, Fault, HostileRegistry, Image, Matcher, Op, Quirks};
use serde_json::{Value, json};

use crate::resource::{CREATED, DATE, MARK, Resource, attach};

fn watch(image: &str, more: Value) -> Value {
    let mut when = json!({"gracePeriod": "720h", "settle": "0s"});
    when.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"image": image, "endOfLife": {"whenSuperseded": when, "artifactType": MARK, "annotation": DATE}})
}

/// Stores an image of two platforms. The second platform is the same in every image.
fn push(registry: &HostileRegistry, tag: &str, seed: &str) -> Image {
    let shared = registry
        .image("team/app", "shared-parts")
        .seed("shared")
        .platform("linux/arm64")
        .push();
    let image = registry
        .image("team/app", tag)
        .seed(seed)
        .platform("linux/amd64")
        .entry(&shared.children[0].entry)
        .push();
    registry.store().delete_tag("team/app", "shared-parts");
    image
}

/// Quirks of a registry without the referrers API that deletes manifests.
fn fallback() -> Quirks {
    Quirks {
        deletion: Deletion::Allowed,
        ..Quirks::distribution()
    }
}

fn marks(registry: &HostileRegistry, digest: &str) -> usize {
    registry.store().referrers("team/app", digest).len()
}

#[tokio::test]
async fn a_tag_that_was_edited_has_not_moved() {
    let registry = HostileRegistry::start().await.unwrap();
    let (v1, v2) = (push(&registry, "v1", "one"), push(&registry, "v2", "two"));
    let mut resource = Resource::new(watch(
        &registry.reference("team/app:v1"),
        json!({"unlessTagged": []}),
    ));
    resource.ready().await;
    assert_eq!(
        resource.status.image.as_ref().unwrap().tag.as_deref(),
        Some("v1")
    );

    resource.change(watch(
        &registry.reference("team/app:v2"),
        json!({"unlessTagged": []}),
    ));
    let outcome = resource.ready().await;
    assert_eq!(
        (resource.verdict().0, resource.status.superseded.len()),
        ("Watching", 0),
        "{:#?}",
        resource.status
    );
    assert!(
        outcome
            .notes
            .iter()
            .all(|note| note.reason != Reason::TagMoved),
        "{:#?}",
        outcome.notes
    );
    assert_eq!(marks(&registry, &v1.digest), 0);

    // The followed tag moves.
    push(&registry, "v2", "three");
    resource.ready().await;
    assert_eq!(resource.status.superseded[0].digest, v2.digest);
    assert_eq!(
        (marks(&registry, &v2.digest), marks(&registry, &v1.digest)),
        (1, 0)
    );
}

#[tokio::test]
async fn tags_of_signatures_do_not_count_towards_the_limit() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    for n in 0..510 {
        registry
            .store()
            .put_tag("team/app", &format!("sha256-{n:064x}.sig"), &first.digest);
    }
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    push(&registry, "v1", "two");
    resource.ready().await;
    assert_eq!(marks(&registry, &first.digest), 1, "{:#?}", resource.status);
}

#[tokio::test]
async fn manifests_in_use_stay_unmarked_while_the_tags_are_unreadable() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    // Another tag uses the first image.
    registry.store().put_tag("team/app", "keep", &first.digest);
    push(&registry, "v1", "two");
    resource.ready().await;
    assert!(
        resource
            .rows()
            .iter()
            .all(|row| row.ends_with("Skipped StillInUse")),
        "{:?}",
        resource.rows()
    );

    let third = push(&registry, "v1", "three");
    let fault = registry.fault(Matcher::on(Op::TagList), Fault::status(403));
    resource.pass().await;
    assert_eq!(resource.verdict().0, "AccessDenied");
    assert_eq!(
        resource.status.superseded.last().unwrap().state,
        SupersededState::Failed
    );
    assert_eq!(
        (
            marks(&registry, &first.digest),
            marks(&registry, first.platform("linux/amd64"))
        ),
        (0, 0),
        "{:#?}",
        resource.status
    );

    // The failed move is completed later.
    fault.lift();
    resource.ready().await;
    let second = &resource.status.superseded[1].digest;
    assert_eq!(
        (
            marks(&registry, second),
            marks(&registry, &first.digest),
            marks(&registry, &third.digest)
        ),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn records_of_an_unreadable_image_stay_until_it_is_readable() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    push(&registry, "v1", "two");
    resource.ready().await;
    let rows = resource.status.targets.clone();
    let digest = first.digest.clone();
    let fault = registry.fault(
        Matcher::on(Op::ManifestGet).reference(digest),
        Fault::status(403),
    );
    resource.pass().await;
    assert_eq!(
        (resource.verdict().0, &resource.status.targets),
        ("AccessDenied", &rows)
    );
    assert!(
        resource.status.leftovers.is_empty(),
        "{:#?}",
        resource.status.leftovers
    );
    fault.lift();
    resource.ready().await;
    assert_eq!(resource.status.targets, rows);
}

#[tokio::test]
async fn moves_beyond_the_limit_of_a_pass_are_all_marked_over_several_passes() {
    let registry = HostileRegistry::start().await.unwrap();
    let mut previous = Vec::new();
    for nth in 0..16 {
        let platforms: Vec<String> = (0..15)
            .map(|variant| format!("linux/arm/v{variant}"))
            .collect();
        let image = registry
            .image("team/app", &format!("old-{nth}"))
            .platforms(platforms.iter().map(String::as_str))
            .push();
        registry.store().delete_tag("team/app", &image.tag);
        previous.push(image.digest);
    }
    push(&registry, "v1", "now");
    let mut resource = Resource::new(watch(
        &registry.reference("team/app:v1"),
        json!({"previous": previous}),
    ));
    for pass in 0.. {
        let outcome = resource.pass().await;
        assert!(
            resource.status.targets.len() <= 256 && resource.status.superseded.len() <= 64,
            "pass {pass}"
        );
        if outcome.verdict.ready {
            break;
        }
        assert_eq!(
            resource.verdict().0,
            "Progressing",
            "{}",
            resource.verdict().1
        );
        assert!(
            outcome.is_hurried() && pass < 16,
            "{}",
            resource.verdict().1
        );
    }
    assert!(
        resource
            .status
            .superseded
            .iter()
            .all(|left| left.state == SupersededState::Attached),
        "{:#?}",
        resource.status.superseded
    );
    assert!(previous.iter().all(|digest| marks(&registry, digest) == 1));
    // An unchanged pass removes and adds nothing.
    let at_rest = resource.status.clone();
    registry.clear();
    resource.ready().await;
    assert_eq!(resource.status, at_rest);
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_dry_run_marks_no_image_and_fixes_no_date() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let dry = |grace: &str, dry: bool| {
        let mut spec = watch(
            &registry.reference("team/app:v1"),
            json!({"gracePeriod": grace}),
        );
        spec["dryRun"] = json!(dry);
        spec
    };
    let mut resource = Resource::new(dry("1h", true));
    resource.pass().await;
    assert_eq!(resource.verdict().0, "Planned");
    push(&registry, "v1", "two");
    resource.pass().await;
    assert_eq!(
        resource.rows(),
        [
            "index Planned -",
            "linux/amd64 Planned -",
            "linux/arm64 Skipped StillInUse"
        ]
    );
    let left = &resource.status.superseded[0];
    assert_eq!(
        (left.state, left.date.as_deref()),
        (SupersededState::Planned, Some("2026-11-23T13:00:00Z"))
    );
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );

    resource.change(dry("2h", false));
    resource.ready().await;
    assert_eq!(
        resource.status.superseded[0].date.as_deref(),
        Some("2026-11-23T14:00:00Z")
    );
    assert_eq!(marks(&registry, &first.digest), 1);
}

#[tokio::test]
async fn an_image_without_records_is_not_marked_before_the_tags_are_read_again() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    registry.store().put_tag("team/app", "keep", &first.digest);
    push(&registry, "v1", "two");
    resource.ready().await;
    // As if the records of other images had replaced them.
    resource.status.targets.clear();
    resource.ready().await;
    assert!(
        resource
            .rows()
            .iter()
            .all(|row| row.ends_with("Skipped StillInUse")),
        "{:?}",
        resource.rows()
    );
    assert_eq!(marks(&registry, &first.digest), 0);
}

/// Returns the dates of the marks on a manifest.
fn dates(registry: &HostileRegistry, digest: &str) -> Vec<String> {
    let dates = registry
        .store()
        .referrers("team/app", digest)
        .into_iter()
        .map(|mark| {
            mark.json()["annotations"][DATE]
                .as_str()
                .unwrap()
                .to_owned()
        });
    dates.collect()
}

#[tokio::test]
async fn a_resource_without_status_recovers_dates_from_existing_marks() {
    for targets in [json!({}), json!({"scope": "Platforms"})] {
        let registry = HostileRegistry::start().await.unwrap();
        let spec = |more: Value| {
            let mut spec = watch(&registry.reference("team/app:v1"), more);
            spec["targets"] = targets.clone();
            spec
        };
        let mut resource = Resource::new(spec(json!({})));
        // Each image has a platform of its own. All images but the last share another one.
        let mut left = Vec::new();
        for seed in ["one", "two", "three"] {
            left.push(push(&registry, "v1", seed));
            resource.ready().await;
            resource.later(3600);
        }
        registry
            .image("team/app", "v1")
            .seed("now")
            .platform("linux/amd64")
            .push();
        resource.ready().await;
        let shared = left[0].children[1].digest.as_str();
        let roots = if targets == json!({}) { 1 } else { 0 };
        let subjects: Vec<&str> = left
            .iter()
            .map(|image| image.platform("linux/amd64"))
            .chain([shared])
            .collect();
        let before: Vec<Vec<String>> = subjects
            .iter()
            .map(|digest| dates(&registry, digest))
            .collect();
        assert_eq!(
            before.iter().map(Vec::len).collect::<Vec<_>>(),
            [1; 4],
            "{before:?} {:#?}",
            resource.status
        );
        assert!(
            before[3] == before[2] && before[2] != before[0],
            "{before:?}"
        );

        // In either order.
        for order in [[0, 1, 2], [2, 1, 0]] {
            let previous: Vec<&str> = order
                .iter()
                .map(|nth: &usize| left[*nth].digest.as_str())
                .collect();
            let mut anew = Resource::new(spec(json!({"previous": previous})));
            anew.later(7 * 86_400);
            anew.ready().await;
            let after: Vec<Vec<String>> = subjects
                .iter()
                .map(|digest| dates(&registry, digest))
                .collect();
            assert_eq!(after, before, "{order:?}: {:#?}", anew.status);
            assert!(
                left.iter()
                    .all(|image| marks(&registry, &image.digest) == roots),
                "{order:?}"
            );
            registry.clear();
            anew.later(60);
            anew.ready().await;
            assert!(
                registry.requests_that(&Matcher::writes()).is_empty(),
                "{}",
                registry.transcript()
            );
        }
    }
}

#[tokio::test]
async fn a_move_recovers_no_date_that_an_earlier_pass_could_not_have_fixed() {
    let registry = HostileRegistry::start().await.unwrap();
    let old = push(&registry, "v1", "one");
    push(&registry, "v1", "two");
    for annotations in [
        json!({CREATED: "2026-01-01T00:00:00Z", DATE: "2099-01-01T00:00:00Z"}),
        json!({CREATED: "2026-01-01T00:00:00Z", DATE: "2026-02-01T00:00:00Z", "more": "of another resource"}),
        json!({CREATED: "2026-01-01T00:00:00Z", DATE: "soon"}),
        json!({CREATED: "2027-01-01T00:00:00Z", DATE: "2026-02-01T00:00:00Z"}),
    ] {
        attach(&registry, &old, MARK, annotations);
    }
    let mut resource = Resource::new(watch(
        &registry.reference("team/app:v1"),
        json!({"previous": [old.digest]}),
    ));
    resource.ready().await;
    assert_eq!(
        resource.status.superseded[0].date.as_deref(),
        Some("2026-12-23T12:00:00Z")
    );
    // An unreadable listing is not an empty one: no move gets a date, and no image is marked.
    let fault = registry.fault(Matcher::on(Op::ReferrersList), Fault::status(403));
    let mut anew = Resource::new(watch(
        &registry.reference("team/app:v1"),
        json!({"previous": [old.digest]}),
    ));
    anew.later(60);
    anew.pass().await;
    assert_eq!(
        (anew.verdict().0, anew.status.superseded[0].date.as_deref()),
        ("AccessDenied", None),
        "{:#?}",
        anew.status
    );
    fault.lift();
    anew.ready().await;
    assert_eq!(
        anew.status.superseded[0].date.as_deref(),
        Some("2026-12-23T12:00:00Z")
    );
}

#[tokio::test]
async fn the_last_image_of_a_line_is_marked_once_its_fixed_tag_is_gone() {
    for quirks in [Quirks::default(), fallback()] {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        // A floating and a fixed tag on one index.
        let first = push(&registry, "v1", "one");
        registry
            .store()
            .put_tag("team/app", "v1.0.1", &first.digest);
        let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
        resource.ready().await;
        push(&registry, "v1", "two");
        resource.ready().await;
        let left = &resource.status.superseded[0];
        assert_eq!(
            (left.state, left.tag.as_deref()),
            (SupersededState::StillInUse, Some("v1.0.1"))
        );
        assert_eq!(resource.verdict().0, "Watching");
        assert!(
            resource.verdict().1.contains("still in use"),
            "{}",
            resource.verdict().1
        );
        assert_eq!(marks(&registry, &first.digest), 0);
        let fixed = left.date.clone();

        // At the interval nothing is read, and the status stays.
        let before = resource.status.clone();
        registry.clear();
        resource.look().await;
        assert_eq!(resource.status, before);
        assert!(registry.requests_that(&Matcher::on(Op::TagList)).is_empty());

        registry.store().delete_tag("team/app", "v1.0.1");
        resource.ready().await;
        let left = &resource.status.superseded[0];
        assert_eq!(
            (left.state, left.tag.as_deref(), &left.date),
            (SupersededState::Attached, None, &fixed)
        );
        assert_eq!(
            (
                marks(&registry, &first.digest),
                marks(&registry, first.platform("linux/amd64")),
                marks(&registry, first.platform("linux/arm64"))
            ),
            (1, 1, 0)
        );

        // A tag that comes back takes the marks away.
        registry.store().put_tag("team/app", "again", &first.digest);
        resource.ready().await;
        let left = &resource.status.superseded[0];
        assert_eq!(
            (left.state, left.tag.as_deref(), &left.date),
            (SupersededState::StillInUse, Some("again"), &fixed)
        );
        assert_eq!(marks(&registry, &first.digest), 0);
    }
}

#[tokio::test]
async fn an_image_in_use_stays_unmarked_while_a_verification_cannot_read_the_tags() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    registry.store().put_tag("team/app", "keep", &first.digest);
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    push(&registry, "v1", "two");
    resource.ready().await;
    let before = resource.status.superseded.clone();
    let fault = registry.fault(Matcher::on(Op::TagList), Fault::status(403));
    registry.store().delete_tag("team/app", "keep");
    resource.pass().await;
    assert_eq!(resource.status.superseded, before);
    assert!(
        resource.resolved().contains("tags could not be read"),
        "{}",
        resource.resolved()
    );
    assert_eq!(marks(&registry, &first.digest), 0);
    fault.lift();
    resource.ready().await;
    assert_eq!(marks(&registry, &first.digest), 1);
}

#[tokio::test]
async fn a_mark_on_the_image_that_the_tag_names_is_reported() {
    for (quirks, scope) in [
        (Quirks::default(), "All"),
        (Quirks::default(), "Platforms"),
        (fallback(), "All"),
    ] {
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let spec = || {
            let mut spec = watch(&registry.reference("team/app:v1"), json!({}));
            spec["targets"] = json!({"scope": scope});
            spec
        };
        let first = push(&registry, "v1", "one");
        let mut former = Resource::new(spec());
        former.ready().await;
        push(&registry, "v1", "two");
        former.ready().await;
        // The tag is rolled back, and the cluster is restored without status.
        registry.store().put_tag("team/app", "v1", &first.digest);
        let mut restored = Resource::new(spec());
        let outcome = restored.ready().await;
        let event = outcome
            .notes
            .iter()
            .find(|event| event.reason == Reason::StillInUse)
            .expect("an event");
        for text in [event.message.as_str(), restored.resolved()] {
            assert!(
                text.contains("v1 names an image with an end-of-life mark")
                    && text.contains("2026-12-23T12:00:00Z"),
                "{text}"
            );
        }
        // The note stays while nothing changes.
        restored.look().await;
        assert!(restored.resolved().contains("end-of-life mark"));

        // The former cluster removes its marks, and the note goes.
        former.ready().await;
        assert!(
            !former.resolved().contains("end-of-life mark"),
            "this resource removes its own mark: {}",
            former.resolved()
        );
        restored.ready().await;
        assert!(
            !restored.resolved().contains("end-of-life mark"),
            "{}",
            restored.resolved()
        );
    }
}
