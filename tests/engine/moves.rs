//! `endOfLife.whenSuperseded` over several passes: what is a move, what is not, and what is remembered of it.

use affix::api::{Reason, TargetState};
use affix_testbed::hostile::{Fault, HostileRegistry, Image, Matcher, Op};
use serde_json::{Value, json};

use crate::resource::{DATE, MARK, Resource};

fn watch(image: &str, more: Value) -> Value {
    let mut when = json!({"gracePeriod": "720h", "settle": "0s"});
    when.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"image": image, "endOfLife": {"whenSuperseded": when, "artifactType": MARK, "annotation": DATE}})
}

/// An image of two platforms, whose second is the same in every image.
fn push(registry: &HostileRegistry, tag: &str, seed: &str) -> Image {
    let shared = registry.image("team/app", "shared-parts").seed("shared").platform("linux/arm64").push();
    let image = registry.image("team/app", tag).seed(seed).platform("linux/amd64").entry(&shared.children[0].entry).push();
    registry.store().delete_tag("team/app", "shared-parts");
    image
}

fn marks(registry: &HostileRegistry, digest: &str) -> usize {
    registry.store().referrers("team/app", digest).len()
}

#[tokio::test]
async fn a_tag_that_was_edited_has_not_moved() {
    let registry = HostileRegistry::start().await.unwrap();
    let (v1, v2) = (push(&registry, "v1", "one"), push(&registry, "v2", "two"));
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({"unlessTagged": []})));
    resource.ready().await;
    assert_eq!(resource.status.image.as_ref().unwrap().tag.as_deref(), Some("v1"));

    resource.change(watch(&registry.reference("team/app:v2"), json!({"unlessTagged": []})));
    let outcome = resource.ready().await;
    assert_eq!((resource.verdict().0, resource.status.superseded.len()), ("Watching", 0), "{:#?}", resource.status);
    assert!(outcome.notes.iter().all(|note| note.reason != Reason::TagMoved), "{:#?}", outcome.notes);
    assert_eq!(marks(&registry, &v1.digest), 0);

    // The tag that is followed now does move.
    push(&registry, "v2", "three");
    resource.ready().await;
    assert_eq!(resource.status.superseded[0].digest, v2.digest);
    assert_eq!((marks(&registry, &v2.digest), marks(&registry, &v1.digest)), (1, 0));
}

#[tokio::test]
async fn what_is_still_in_use_stays_spared_while_the_tags_cannot_be_read_for_a_later_move() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    // Another tag keeps the first image in use.
    registry.store().put_tag("team/app", "keep", &first.digest);
    push(&registry, "v1", "two");
    resource.ready().await;
    assert!(resource.rows().iter().all(|row| row.ends_with("Skipped StillInUse")), "{:?}", resource.rows());

    let third = push(&registry, "v1", "three");
    let fault = registry.fault(Matcher::on(Op::TagList), Fault::status(403));
    resource.pass().await;
    assert_eq!(resource.verdict().0, "AccessDenied");
    assert_eq!(resource.status.superseded.last().unwrap().state, TargetState::Failed);
    assert_eq!((marks(&registry, &first.digest), marks(&registry, first.platform("linux/amd64"))), (0, 0), "{:#?}", resource.status);

    // What failed is finished later.
    fault.lift();
    resource.ready().await;
    let second = &resource.status.superseded[1].digest;
    assert_eq!((marks(&registry, second), marks(&registry, &first.digest), marks(&registry, &third.digest)), (1, 0, 0));
}

#[tokio::test]
async fn rows_of_an_image_that_cannot_be_read_stay_until_it_can() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    push(&registry, "v1", "two");
    resource.ready().await;
    let rows = resource.status.targets.clone();
    let digest = first.digest.clone();
    let fault = registry.fault(Matcher::on(Op::ManifestGet).reference(digest), Fault::status(403));
    resource.pass().await;
    assert_eq!((resource.verdict().0, &resource.status.targets), ("AccessDenied", &rows));
    assert!(resource.status.leftovers.is_empty(), "{:#?}", resource.status.leftovers);
    fault.lift();
    resource.ready().await;
    assert_eq!(resource.status.targets, rows);
}

#[tokio::test]
async fn more_moves_than_status_has_rows_for_are_all_marked_a_few_at_a_time() {
    let registry = HostileRegistry::start().await.unwrap();
    let mut previous = Vec::new();
    for nth in 0..16 {
        let platforms: Vec<String> = (0..15).map(|variant| format!("linux/arm/v{variant}")).collect();
        let image = registry.image("team/app", &format!("old-{nth}")).platforms(platforms.iter().map(String::as_str)).push();
        registry.store().delete_tag("team/app", &image.tag);
        previous.push(image.digest);
    }
    push(&registry, "v1", "now");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({"previous": previous})));
    for pass in 0.. {
        let outcome = resource.pass().await;
        assert!(resource.status.targets.len() <= 256 && resource.status.superseded.len() <= 64, "pass {pass}");
        if outcome.verdict.ready {
            break;
        }
        assert_eq!(resource.verdict().0, "Progressing", "{}", resource.verdict().1);
        assert!(outcome.is_hurried() && pass < 16, "{}", resource.verdict().1);
    }
    assert!(resource.status.superseded.iter().all(|left| left.state == TargetState::Attached), "{:#?}", resource.status.superseded);
    assert!(previous.iter().all(|digest| marks(&registry, digest) == 1));
    // At rest nothing is taken away again and nothing is added.
    let at_rest = resource.status.clone();
    registry.clear();
    resource.ready().await;
    assert_eq!(resource.status, at_rest);
    assert!(registry.requests_that(&Matcher::writes()).is_empty(), "{}", registry.transcript());
}

#[tokio::test]
async fn a_dry_run_marks_nothing_and_fixes_no_date() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let dry = |grace: &str, dry: bool| {
        let mut spec = watch(&registry.reference("team/app:v1"), json!({"gracePeriod": grace}));
        spec["dryRun"] = json!(dry);
        spec
    };
    let mut resource = Resource::new(dry("1h", true));
    resource.pass().await;
    assert_eq!(resource.verdict().0, "Planned");
    push(&registry, "v1", "two");
    resource.pass().await;
    assert_eq!(resource.rows(), ["index Planned -", "linux/amd64 Planned -", "linux/arm64 Skipped StillInUse"]);
    let left = &resource.status.superseded[0];
    assert_eq!((left.state, left.date.as_deref()), (TargetState::Planned, Some("2026-11-23T13:00:00Z")));
    assert!(registry.requests_that(&Matcher::writes()).is_empty(), "{}", registry.transcript());

    resource.change(dry("2h", false));
    resource.ready().await;
    assert_eq!(resource.status.superseded[0].date.as_deref(), Some("2026-11-23T14:00:00Z"));
    assert_eq!(marks(&registry, &first.digest), 1);
}

#[tokio::test]
async fn an_image_whose_rows_are_lost_is_not_marked_before_the_tags_were_asked_again() {
    let registry = HostileRegistry::start().await.unwrap();
    let first = push(&registry, "v1", "one");
    let mut resource = Resource::new(watch(&registry.reference("team/app:v1"), json!({})));
    resource.ready().await;
    registry.store().put_tag("team/app", "keep", &first.digest);
    push(&registry, "v1", "two");
    resource.ready().await;
    // As where other images took its place for a while.
    resource.status.targets.clear();
    resource.ready().await;
    assert!(resource.rows().iter().all(|row| row.ends_with("Skipped StillInUse")), "{:?}", resource.rows());
    assert_eq!(marks(&registry, &first.digest), 0);
}
