//! Changes of a set's template reach many children in steps, which end when the set is suspended or deleted; and two controllers at work.

use affix_testbed::control_plane::ControllerManager;
use affix_testbed::hostile::{HostileRegistry, Image, Matcher, Op};
use affix_testbed::tools::{Tool, Tools};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::{Sets, notes, release};
use crate::support::controller::Controller;
use crate::support::images::{SIGNATURE, listed, manifests, with};
use crate::support::namespace::{Namespace, PATIENCE, POLL};

/// More children than two steps change.
const RELEASES: usize = 45;

/// A registry with many releases of one platform each.
async fn registry() -> HostileRegistry {
    let registry = HostileRegistry::start().await.unwrap();
    for minor in 0..RELEASES {
        let image = registry.image("team/app", &format!("v1.{minor}.0"));
        image.push_single();
    }
    registry
}

/// A set with this note. Only its changes trigger passes.
fn set(registry: &HostileRegistry, note: &str) -> Value {
    let artifact = json!({"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/note": note}});
    let more = json!({"interval": "1h", "immutable": true});
    with(
        notes(
            registry,
            json!({"artifact": artifact, "deletionPolicy": "Delete"}),
        ),
        more,
    )
}

/// Returns the number of children with this note.
async fn with_note(sets: &Sets<'_>, note: &str) -> usize {
    let children = sets.children("releases").await.into_iter();
    let has_note = |child: &affix::api::ImageAttachment| {
        let annotations = child.spec.artifact.as_ref().unwrap().annotations.clone();
        annotations
            .get("demo.affix.dev/note")
            .is_some_and(|text| text == note)
    };
    children.filter(has_note).count()
}

/// Waits until some children have this note. Returns their number.
async fn begun(sets: &Sets<'_>, note: &str) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = with_note(sets, note).await;
        if count > 0 {
            return count;
        }
        assert!(Instant::now() < deadline, "no child changes");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_changed_template_reaches_the_children_in_steps_and_suspend_stops_it() {
    let namespace = Namespace::new("set-rollout").await;
    let sets = Sets::of(&namespace);
    let registry = registry().await;
    let _controller = Controller::start(&namespace).await;
    let all = format!("{RELEASES}/{RELEASES}");
    sets.apply("releases", set(&registry, "first")).await;
    sets.ready("releases", &all).await;
    let began = Instant::now();
    sets.apply("releases", set(&registry, "second")).await;
    sets.ready("releases", &all).await;
    // Two pauses lie between three steps, however fast the machine is.
    assert!(
        began.elapsed() > Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(with_note(&sets, "second").await, RELEASES);

    // On a slow machine the change may reach every child before the suspension reaches the API server. Then the next change is suspended.
    let mut notes = (3..10).map(|number| format!("note {number}"));
    let (note, changed) = loop {
        let note = notes.next().expect("no change is stopped");
        sets.apply("releases", set(&registry, &note)).await;
        begun(&sets, &note).await;
        let suspended = with(set(&registry, &note), json!({"suspend": true}));
        sets.apply("releases", suspended).await;
        sets.wait("releases", "suspended", |set| {
            set.status.as_ref().map(|status| status.observed_generation) == set.metadata.generation
        })
        .await;
        let changed = with_note(&sets, &note).await;
        if changed < RELEASES {
            break (note, changed);
        }
    };
    sleep(Duration::from_secs(3)).await;
    assert_eq!(with_note(&sets, &note).await, changed);
    sets.apply("releases", set(&registry, &note)).await;
    sets.ready("releases", &all).await;
    assert_eq!(with_note(&sets, &note).await, RELEASES);
    sets.check_rules().await;
}

#[tokio::test]
async fn a_set_that_is_deleted_during_a_change_leaves_its_orphans_alone() {
    let namespace = Namespace::new("set-leaves").await;
    let sets = Sets::of(&namespace);
    let registry = registry().await;
    let tools = Tools::with(&[Tool::ControllerManager]).await.unwrap();
    let mut manager = ControllerManager::start(&tools, namespace.plane)
        .await
        .unwrap();
    let _controller = Controller::start(&namespace).await;
    sets.apply("releases", set(&registry, "first")).await;
    sets.ready("releases", &format!("{RELEASES}/{RELEASES}"))
        .await;
    sets.apply("releases", set(&registry, "second")).await;
    begun(&sets, "second").await;
    sets.delete("releases", DeleteParams::orphan()).await;
    let deadline = Instant::now() + PATIENCE;
    while sets.find("releases").await.is_some() {
        assert!(Instant::now() < deadline, "the set is not deleted");
        sleep(POLL).await;
    }
    // Longer than two steps and than the garbage collector takes for children whose owner is gone.
    for _ in 0..10 {
        sleep(Duration::from_millis(500)).await;
        let children = sets.children("releases").await;
        assert_eq!(children.len(), RELEASES);
        let owned = children
            .iter()
            .filter(|child| !child.owner_references().is_empty());
        assert_eq!(owned.count(), 0);
        assert!(
            children
                .iter()
                .all(|child| child.metadata.deletion_timestamp.is_none())
        );
    }
    manager.stop().await.unwrap();
}

#[tokio::test]
async fn two_controllers_make_each_child_once_and_come_to_rest() {
    let namespace = Namespace::new("set-both").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let images: Vec<Image> = (0..8)
        .map(|minor| release(&registry, &format!("v1.{minor}.0")))
        .collect();
    // Without leader election, as when an operator was installed twice.
    let controllers = [
        Controller::start(&namespace).await,
        Controller::start(&namespace).await,
    ];
    let spec = with(notes(&registry, json!({})), json!({"immutable": true}));
    sets.apply("releases", spec).await;
    sets.ready("releases", "8/8").await;
    let child = sets.child("releases", &images[0].digest).await.unwrap();
    namespace.delete(&child.name_any()).await;
    sets.wait("releases", "whole again", |set| {
        set.status.as_ref().unwrap().ready.as_deref() == Some("8/8")
    })
    .await;
    let last = release(&registry, "v1.8.0");
    sets.ready("releases", "9/9").await;
    // Two passes at once may both attach. The next look at each child removes the second attachment.
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        let all = images.iter().chain([&last]).flat_map(manifests);
        let counts: Vec<usize> = all
            .map(|manifest| listed(&registry, manifest).len())
            .collect();
        if counts.iter().all(|count| *count == 1) {
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        for child in sets.children("releases").await {
            let name = child.name_any();
            namespace.request(&name, &format!("round {round}")).await;
        }
    }
    sets.ready("releases", "9/9").await;
    // At rest both only list the tags: neither undoes the work of the other.
    let versions = async || -> Vec<Option<String>> {
        let children = sets.children("releases").await.into_iter();
        let versions = children.map(|child| child.metadata.resource_version);
        versions
            .chain([sets.get("releases").await.metadata.resource_version])
            .collect()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = versions().await;
        registry.clear();
        while registry.count(Op::TagList) < 6 {
            assert!(Instant::now() < deadline, "the tags are not listed");
            sleep(POLL).await;
        }
        let others =
            registry.requests_that(&Matcher::any().when(|request| request.op != Op::TagList));
        if versions().await == before && others.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{}", registry.transcript());
    }
    drop(controllers);
    sets.check_rules().await;
}
