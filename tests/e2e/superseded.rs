//! `endOfLife.whenSuperseded`: what a tag leaves behind is marked, and only what nothing uses any more.

use std::time::Duration;

use affix::api::{ImageAttachmentStatus, TargetState};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use serde_json::{Value, json};

use crate::controller::Controller;
use crate::images::{END_OF_LIFE, LIFECYCLE, registries, summary};
use crate::namespace::Namespace;
use crate::readers;

/// The index `a1a1` of scenario 1: `b1b1` for amd64 with a flaw, `c1c1` for arm64.
fn old() -> Index {
    Index::new().image(Image::new("linux/amd64", "b1b1")).image(Image::new("linux/arm64", "c1c1"))
}

/// The index `z1z1`: `r1r1` for amd64, and the same `c1c1`.
fn new() -> Index {
    Index::new().image(Image::new("linux/amd64", "r1r1")).image(Image::new("linux/arm64", "c1c1"))
}

async fn push(registry: &Registry, index: Index, tag: &str) -> Pushed {
    index.push(&registry.raw().unwrap(), "team/app", tag).await.unwrap()
}

fn watch(image: &str, more: Value) -> Value {
    let mut when = json!({"gracePeriod": "720h", "settle": "0s"});
    when.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({
        "image": image, "insecure": true, "interval": "1s",
        "endOfLife": {"whenSuperseded": when, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE},
    })
}

fn reason(status: &ImageAttachmentStatus) -> String {
    status.conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.reason.clone()).unwrap_or_default()
}

/// Waits until `holds` holds of a resource's status.
async fn until(namespace: &Namespace, name: &str, holds: impl Fn(&ImageAttachmentStatus) -> bool) -> ImageAttachmentStatus {
    let object = namespace.wait(name, "as it should be", |object| object.status.as_ref().is_some_and(&holds)).await;
    object.status.unwrap()
}

/// Whether the move is done and all that is in status is at rest.
fn moved(status: &ImageAttachmentStatus) -> bool {
    reason(status) == "Attached" && status.superseded.iter().any(|left| left.state == TargetState::Attached)
}

async fn marks(registry: &Registry, namespace: &Namespace, image: &Pushed, digest: &str) -> usize {
    let peer = Peer::of(&namespace.tools, registry).unwrap();
    let (_, seen) = readers::all(&peer, image, digest, LIFECYCLE).await.into_iter().next().unwrap();
    seen.len()
}

#[tokio::test]
async fn what_the_tag_leaves_is_marked_and_what_the_new_index_shares_is_not() {
    let namespace = Namespace::new("superseded").await;
    let registries = registries(&namespace.tools).await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let name = format!("app-{nth}");
        namespace.apply(&name, watch(&a1a1.tagged(), json!({}))).await;
        let status = until(&namespace, &name, |status| reason(status) == "Watching").await;
        assert!(status.targets.is_empty() && status.superseded.is_empty(), "{status:?}");

        push(registry, new(), "v1").await;
        let status = until(&namespace, &name, moved).await;
        assert_eq!(
            summary(&status.targets),
            ["Index - Attached -", "Platform linux/amd64 Attached -", "Platform linux/arm64 Skipped StillInUse"]
        );
        let left = &status.superseded[0];
        assert_eq!((left.digest.as_str(), status.superseded.len()), (a1a1.digest(), 1));
        let grace = Duration::from_secs(720 * 3600);
        let date = (left.moved_at.0 + grace).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        assert_eq!(left.date.as_deref(), Some(date.as_str()));
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 1);
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest_of("linux/amd64").unwrap()).await, 1);
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest_of("linux/arm64").unwrap()).await, 0);

        // The tag moves back: what affix marked is in use again.
        push(registry, old(), "v1").await;
        let back = a1a1.digest().to_owned();
        until(&namespace, &name, |status| moved(status) && status.superseded.iter().all(|left| left.digest != back)).await;
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest_of("linux/amd64").unwrap()).await, 0);
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn a_move_while_the_operator_is_down_counts_and_what_another_tag_reaches_is_in_use() {
    let namespace = Namespace::new("down").await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let controller = Controller::start(&namespace).await;
        let a1a1 = push(registry, old(), "v1").await;
        let name = format!("app-{nth}");
        namespace.apply(&name, watch(&a1a1.tagged(), json!({}))).await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        controller.kill().await;

        push(registry, new(), "v1").await;
        push(registry, old(), "v1-keep").await;
        let controller = Controller::start(&namespace).await;
        let status = until(&namespace, &name, |status| status.superseded.iter().any(|left| left.state == TargetState::Attached)).await;
        assert!(status.targets.iter().all(|row| row.reason.as_deref() == Some("StillInUse")), "{:?}", summary(&status.targets));
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);
        drop(controller);
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_move_that_has_not_settled_marks_nothing_and_a_move_back_leaves_no_trace() {
    let namespace = Namespace::new("settle").await;
    let registry = Registry::ociregistry(&namespace.tools).start().await.unwrap();
    let controller = Controller::start(&namespace).await;
    let a1a1 = push(&registry, old(), "v1").await;
    namespace.apply("app", watch(&a1a1.tagged(), json!({"settle": "10m"}))).await;
    until(&namespace, "app", |status| reason(status) == "Watching").await;
    push(&registry, new(), "v1").await;
    let status = until(&namespace, "app", |status| !status.superseded.is_empty()).await;
    assert_eq!((status.superseded[0].state, status.superseded[0].date.clone()), (TargetState::Pending, None));
    assert_eq!(reason(&status), "Watching");
    push(&registry, old(), "v1").await;
    let status = until(&namespace, "app", |status| status.image.as_ref().is_some_and(|image| image.digest == a1a1.digest())).await;
    assert!(status.superseded.iter().all(|left| left.digest != a1a1.digest()), "{status:?}");
    assert_eq!(marks(&registry, &namespace, &a1a1, a1a1.digest()).await, 0);
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn digests_that_the_tag_is_known_to_have_left_are_marked_on_the_first_day() {
    let namespace = Namespace::new("previous").await;
    let registry = Registry::ociregistry(&namespace.tools).start().await.unwrap();
    let controller = Controller::start(&namespace).await;
    let a1a1 = push(&registry, old(), "v1").await;
    let z1z1 = push(&registry, new(), "v1").await;
    namespace.apply("app", watch(&z1z1.tagged(), json!({"previous": [a1a1.digest()]}))).await;
    let status = until(&namespace, "app", moved).await;
    assert_eq!(status.superseded[0].digest, a1a1.digest());
    assert_eq!(
        summary(&status.targets),
        ["Index - Attached -", "Platform linux/amd64 Attached -", "Platform linux/arm64 Skipped StillInUse"]
    );
    namespace.check_rules().await;
    drop(controller);
}
