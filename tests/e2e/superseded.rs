//! `endOfLife.whenSuperseded`: what a tag leaves behind is marked, and only what nothing uses any more.

use std::time::Duration;

use affix::api::{ImageAttachmentStatus, SupersededState};
use affix_testbed::hostile::{Fault, Matcher, Op, Stage};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::controller::Controller;
use crate::support::images::{
    END_OF_LIFE, LIFECYCLE, host, listed, manifests, registries, scriptable, summary, with,
};
use crate::support::namespace::Namespace;
use crate::support::readers;

/// The index `a1a1` of scenario 1: `b1b1` for amd64 with a flaw, `c1c1` for arm64.
fn old() -> Index {
    Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"))
}

/// The index `z1z1`: `r1r1` for amd64, and the same `c1c1`.
fn new() -> Index {
    Index::new()
        .image(Image::new("linux/amd64", "r1r1"))
        .image(Image::new("linux/arm64", "c1c1"))
}

async fn push(registry: &Registry, index: Index, tag: &str) -> Pushed {
    index
        .push(&registry.raw().unwrap(), "team/app", tag)
        .await
        .unwrap()
}

fn watch(image: &str, more: Value) -> Value {
    let mut when = json!({"gracePeriod": "720h", "settle": "0s"});
    when.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "image": image, "insecure": true, "interval": "1s",
        "endOfLife": {"whenSuperseded": when, "artifactType": LIFECYCLE, "annotation": END_OF_LIFE},
    })
}

fn reason(status: &ImageAttachmentStatus) -> String {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .map(|ready| ready.reason.clone())
        .unwrap_or_default()
}

/// Waits until `holds` holds of a resource's status.
async fn until(
    namespace: &Namespace,
    name: &str,
    holds: impl Fn(&ImageAttachmentStatus) -> bool,
) -> ImageAttachmentStatus {
    let object = namespace
        .wait(name, "as it should be", |object| {
            object.status.as_ref().is_some_and(&holds)
        })
        .await;
    object.status.unwrap()
}

/// Whether the move is done and all that is in status is at rest.
fn moved(status: &ImageAttachmentStatus) -> bool {
    reason(status) == "Attached"
        && status
            .superseded
            .iter()
            .any(|left| left.state == SupersededState::Attached)
}

async fn marks(registry: &Registry, namespace: &Namespace, image: &Pushed, digest: &str) -> usize {
    let peer = Peer::of(&namespace.tools, registry).unwrap();
    let (_, seen) = readers::all(&peer, image, digest, LIFECYCLE)
        .await
        .into_iter()
        .next()
        .unwrap();
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
        namespace
            .apply(&name, watch(&a1a1.tagged(), json!({})))
            .await;
        let status = until(&namespace, &name, |status| reason(status) == "Watching").await;
        assert!(
            status.targets.is_empty() && status.superseded.is_empty(),
            "{status:?}"
        );

        push(registry, new(), "v1").await;
        let status = until(&namespace, &name, moved).await;
        assert_eq!(
            summary(&status.targets),
            [
                "Index - Attached -",
                "Platform linux/amd64 Attached -",
                "Platform linux/arm64 Skipped StillInUse"
            ]
        );
        let left = &status.superseded[0];
        assert_eq!(
            (left.digest.as_str(), status.superseded.len()),
            (a1a1.digest(), 1)
        );
        let grace = Duration::from_secs(720 * 3600);
        let date = (left.moved_at.0 + grace)
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        assert_eq!(left.date.as_deref(), Some(date.as_str()));
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 1);
        assert_eq!(
            marks(
                registry,
                &namespace,
                &a1a1,
                a1a1.digest_of("linux/amd64").unwrap()
            )
            .await,
            1
        );
        assert_eq!(
            marks(
                registry,
                &namespace,
                &a1a1,
                a1a1.digest_of("linux/arm64").unwrap()
            )
            .await,
            0
        );

        // The tag moves back: what affix marked is in use again.
        push(registry, old(), "v1").await;
        let back = a1a1.digest().to_owned();
        until(&namespace, &name, |status| {
            moved(status) && status.superseded.iter().all(|left| left.digest != back)
        })
        .await;
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);
        assert_eq!(
            marks(
                registry,
                &namespace,
                &a1a1,
                a1a1.digest_of("linux/amd64").unwrap()
            )
            .await,
            0
        );
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
        namespace
            .apply(&name, watch(&a1a1.tagged(), json!({})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        controller.kill().await;

        push(registry, new(), "v1").await;
        push(registry, old(), "v1-keep").await;
        let controller = Controller::start(&namespace).await;
        let status = until(&namespace, &name, |status| {
            status
                .superseded
                .iter()
                .any(|left| left.state == SupersededState::StillInUse)
        })
        .await;
        assert!(
            status
                .targets
                .iter()
                .all(|row| row.reason.as_deref() == Some("StillInUse")),
            "{:?}",
            summary(&status.targets)
        );
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);
        drop(controller);
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn an_image_that_a_tag_reaches_by_a_nested_index_is_in_use_until_excluded() {
    let namespace = Namespace::new("nested-tag").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let b1b1 = a1a1.digest_of("linux/amd64").unwrap();
        push(
            registry,
            Index::new().index(Index::new().image(Image::new("linux/amd64", "b1b1"))),
            "v2",
        )
        .await;
        let name = format!("app-{nth}");
        namespace
            .apply(&name, watch(&a1a1.tagged(), json!({})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        push(registry, new(), "v1").await;
        let status = until(&namespace, &name, moved).await;
        assert_eq!(
            summary(&status.targets),
            [
                "Index - Attached -",
                "Platform linux/amd64 Skipped StillInUse",
                "Platform linux/arm64 Skipped StillInUse"
            ]
        );
        assert_eq!(marks(registry, &namespace, &a1a1, b1b1).await, 0);

        namespace
            .apply(
                &name,
                watch(&a1a1.tagged(), json!({"unlessTagged": ["!v2"]})),
            )
            .await;
        let marked = |status: &ImageAttachmentStatus| {
            moved(status) && status.attached.as_deref() == Some("2/2")
        };
        let after = until(&namespace, &name, marked).await;
        assert_eq!(
            after.superseded[0].date, status.superseded[0].date,
            "a date is fixed once"
        );
        assert_eq!(marks(registry, &namespace, &a1a1, b1b1).await, 1);
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn a_move_that_has_not_settled_marks_nothing_and_a_move_back_leaves_no_trace() {
    let namespace = Namespace::new("settle").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let name = format!("app-{nth}");
        namespace
            .apply(&name, watch(&a1a1.tagged(), json!({"settle": "10m"})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        push(registry, new(), "v1").await;
        let status = until(&namespace, &name, |status| !status.superseded.is_empty()).await;
        assert_eq!(
            (
                status.superseded[0].state,
                status.superseded[0].date.clone()
            ),
            (SupersededState::Pending, None)
        );
        assert_eq!(reason(&status), "Watching");
        push(registry, old(), "v1").await;
        let is_back = |status: &ImageAttachmentStatus| {
            status
                .image
                .as_ref()
                .is_some_and(|image| image.digest == a1a1.digest())
        };
        let status = until(&namespace, &name, is_back).await;
        assert!(
            status
                .superseded
                .iter()
                .all(|left| left.digest != a1a1.digest()),
            "{status:?}"
        );
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn digests_that_the_tag_is_known_to_have_left_are_marked_on_the_first_day() {
    let namespace = Namespace::new("previous").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let z1z1 = push(registry, new(), "v1").await;
        let name = format!("app-{nth}");
        namespace
            .apply(
                &name,
                watch(&z1z1.tagged(), json!({"previous": [a1a1.digest()]})),
            )
            .await;
        let status = until(&namespace, &name, moved).await;
        assert_eq!(status.superseded[0].digest, a1a1.digest());
        assert_eq!(
            summary(&status.targets),
            [
                "Index - Attached -",
                "Platform linux/amd64 Attached -",
                "Platform linux/arm64 Skipped StillInUse"
            ]
        );
        for (digest, expected) in [
            (a1a1.digest(), 1),
            (a1a1.digest_of("linux/arm64").unwrap(), 0),
            (z1z1.digest(), 0),
        ] {
            assert_eq!(
                marks(registry, &namespace, &a1a1, digest).await,
                expected,
                "{digest}"
            );
        }
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn consecutive_moves_each_mark_only_images_that_no_tag_reaches() {
    let namespace = Namespace::new("row").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let (b1b1, c1c1) = (
            a1a1.digest_of("linux/amd64").unwrap(),
            a1a1.digest_of("linux/arm64").unwrap(),
        );
        let name = format!("app-{nth}");
        namespace
            .apply(&name, watch(&a1a1.tagged(), json!({})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;

        // The next one has c1c1 in a nested index, and no amd64 any more.
        let nested = Index::new()
            .image(Image::new("linux/arm64", "c1c1"))
            .image(Image::new("linux/s390x", "d1d1"));
        let inner = nested.digest();
        let z1z1 = push(registry, Index::new().index(nested), "v1").await;
        until(&namespace, &name, moved).await;
        for (digest, expected) in [(a1a1.digest(), 1), (b1b1, 1), (c1c1, 0)] {
            assert_eq!(
                marks(registry, &namespace, &a1a1, digest).await,
                expected,
                "{digest}"
            );
        }

        // Then a single manifest: nothing of the index before is in use, the nested one included.
        let single = Image::new("linux/amd64", "e1e1")
            .push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        let done = |status: &ImageAttachmentStatus| {
            moved(status)
                && status.superseded.len() == 2
                && status
                    .superseded
                    .iter()
                    .all(|left| left.state == SupersededState::Attached)
        };
        let status = until(&namespace, &name, done).await;
        let dates: Vec<_> = status
            .superseded
            .iter()
            .map(|left| (left.digest.as_str(), left.date.is_some()))
            .collect();
        assert_eq!(dates, [(a1a1.digest(), true), (z1z1.digest(), true)]);
        for digest in [a1a1.digest(), b1b1, c1c1, z1z1.digest(), inner.as_str()] {
            assert_eq!(
                marks(registry, &namespace, &a1a1, digest).await,
                1,
                "{digest}"
            );
        }
        assert_eq!(marks(registry, &namespace, &a1a1, single.digest()).await, 0);
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn a_tag_that_is_deleted_has_not_moved() {
    let namespace = Namespace::new("deleted-tag").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let name = format!("app-{nth}");
        namespace
            .apply(&name, watch(&a1a1.tagged(), json!({})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        registry
            .raw()
            .unwrap()
            .delete_manifest("team/app", "v1")
            .await
            .unwrap()
            .ok()
            .unwrap();
        let status = until(&namespace, &name, |status| reason(status) == "NotFound").await;
        assert!(status.superseded.is_empty(), "{status:#?}");
        push(registry, old(), "v1").await;
        let status = until(&namespace, &name, |status| reason(status) == "Watching").await;
        assert!(status.superseded.is_empty(), "{status:#?}");
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);
    }
    drop(controller);
}

#[tokio::test]
async fn a_move_while_the_resource_is_suspended_counts_from_when_it_goes_on() {
    let namespace = Namespace::new("paused").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let (name, spec) = (format!("app-{nth}"), watch(&a1a1.tagged(), json!({})));
        namespace.apply(&name, spec.clone()).await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        namespace
            .apply(&name, with(spec.clone(), json!({"suspend": true})))
            .await;
        namespace.suspended(&name).await;

        let between = push(
            registry,
            Index::new().image(Image::new("linux/amd64", "between")),
            "v1",
        )
        .await;
        push(registry, new(), "v1").await;
        // Longer than an interval, and asked for.
        namespace.ask(&name, "while suspended").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let status = namespace.status(&name).await;
        assert!(
            status.superseded.is_empty() && reason(&status) == "Watching",
            "{status:#?}"
        );
        assert_eq!(marks(registry, &namespace, &a1a1, a1a1.digest()).await, 0);

        let resumed = Timestamp::now();
        namespace
            .apply(&name, with(spec, json!({"suspend": false})))
            .await;
        let status = until(&namespace, &name, moved).await;
        let left: Vec<_> = status
            .superseded
            .iter()
            .map(|left| left.digest.as_str())
            .collect();
        assert_eq!(
            left,
            [a1a1.digest()],
            "what the tag named in between was never seen: {}",
            between.digest()
        );
        // The time in status is of whole seconds.
        let moved_at = status.superseded[0].moved_at.0;
        assert!(
            moved_at.as_second() >= resumed.as_second(),
            "{moved_at} is before {resumed}"
        );
        let expected = [
            (a1a1.digest(), 1),
            (a1a1.digest_of("linux/amd64").unwrap(), 1),
            (a1a1.digest_of("linux/arm64").unwrap(), 0),
        ];
        for (digest, expected) in expected.into_iter().chain([(between.digest(), 0)]) {
            assert_eq!(
                marks(registry, &namespace, &a1a1, digest).await,
                expected,
                "{digest}"
            );
        }
    }
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn a_move_back_during_suspension_leaves_no_trace() {
    let namespace = Namespace::new("paused-back").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let a1a1 = push(registry, old(), "v1").await;
        let (name, spec) = (
            format!("app-{nth}"),
            watch(&a1a1.tagged(), json!({"settle": "1h"})),
        );
        namespace.apply(&name, spec.clone()).await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;
        let z1z1 = push(registry, new(), "v1").await;
        let status = until(&namespace, &name, |status| status.superseded.len() == 1).await;
        let settling = status.superseded.clone();
        assert_eq!(
            (settling[0].digest.as_str(), settling[0].state),
            (a1a1.digest(), SupersededState::Pending)
        );

        namespace
            .apply(&name, with(spec.clone(), json!({"suspend": true})))
            .await;
        namespace.suspended(&name).await;
        push(registry, old(), "v1").await;
        assert_eq!(
            namespace.status(&name).await.superseded,
            settling,
            "what is known stays"
        );
        namespace
            .apply(&name, with(spec, json!({"suspend": false})))
            .await;
        let named = |status: &ImageAttachmentStatus| {
            status.image.as_ref().map(|image| image.digest.clone())
        };
        let back = a1a1.digest().to_owned();
        let status = until(&namespace, &name, |status| {
            reason(status) == "Watching" && named(status).as_ref() == Some(&back)
        })
        .await;
        // Now it is the other one that the tag has left.
        let left: Vec<_> = status
            .superseded
            .iter()
            .map(|left| (left.digest.as_str(), left.state))
            .collect();
        assert_eq!(left, [(z1z1.digest(), SupersededState::Pending)]);
        for digest in [a1a1.digest(), z1z1.digest()] {
            assert_eq!(
                marks(registry, &namespace, &a1a1, digest).await,
                0,
                "{digest}"
            );
        }
    }
    namespace.check_rules().await;
    drop(controller);
}

/// Whether so many moves are all done.
fn done(status: &ImageAttachmentStatus, moves: usize) -> bool {
    status.superseded.len() == moves
        && status
            .superseded
            .iter()
            .all(|left| left.state == SupersededState::Attached)
}

#[tokio::test]
async fn after_a_kill_the_marks_are_completed_with_the_same_date() {
    let namespace = Namespace::new("middle").await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let first = host(registry, "v1");
        let name = format!("app-{nth}");
        let controller = Controller::start(&namespace).await;
        namespace
            .apply(&name, watch(&registry.reference("team/app:v1"), json!({})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;

        let mut hold = registry.hold(Stage::Before, Matcher::on(Op::ManifestPut).with_subject());
        let second = registry
            .image("team/app", "v1")
            .seed("second")
            .platforms(["linux/amd64"])
            .push();
        hold.reached().await.unwrap();
        let date = namespace.status(&name).await.superseded[0].date.clone();
        assert!(date.is_some(), "a date is saved before the push");
        controller.kill().await;
        hold.release();
        registry
            .image("team/app", "v1")
            .seed("third")
            .platforms(["linux/amd64"])
            .push();

        let controller = Controller::start(&namespace).await;
        let status = until(&namespace, &name, |status| done(status, 2)).await;
        assert_eq!(status.superseded[0].date, date);
        for subject in manifests(&first).into_iter().chain(manifests(&second)) {
            assert_eq!(
                listed(registry, subject).len(),
                1,
                "{subject}\n{}",
                registry.transcript()
            );
        }
        namespace.check_rules().await;
        namespace.delete(&name).await;
        drop(controller);
    }
}

#[tokio::test]
async fn after_a_refusal_the_marks_are_completed_with_the_same_date() {
    let namespace = Namespace::new("refused").await;
    let controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let first = host(registry, "v1");
        let name = format!("app-{nth}");
        namespace
            .apply(&name, watch(&registry.reference("team/app:v1"), json!({})))
            .await;
        until(&namespace, &name, |status| reason(status) == "Watching").await;

        // The index gets its mark, one platform does not.
        let amd64 = first.platform("linux/amd64").to_owned();
        let of_amd64 = move |request: &affix_testbed::hostile::Request| {
            String::from_utf8_lossy(&request.body).contains(&amd64)
        };
        let fault = registry.fault(
            Matcher::on(Op::ManifestPut).with_subject().when(of_amd64),
            Fault::status(403),
        );
        let second = registry
            .image("team/app", "v1")
            .seed("second")
            .platforms(["linux/amd64"])
            .push();
        let status = until(&namespace, &name, |status| {
            status
                .superseded
                .iter()
                .any(|left| left.state == SupersededState::Failed)
        })
        .await;
        assert_eq!(
            status.superseded[0].reason.as_deref(),
            Some("AccessDenied"),
            "{status:#?}"
        );
        let date = status.superseded[0].date.clone();
        registry
            .image("team/app", "v1")
            .seed("third")
            .platforms(["linux/amd64"])
            .push();
        until(&namespace, &name, |status| status.superseded.len() == 2).await;
        fault.lift();
        let status = until(&namespace, &name, |status| done(status, 2)).await;
        assert_eq!(status.superseded[0].date, date);
        for subject in manifests(&first).into_iter().chain(manifests(&second)) {
            assert_eq!(
                listed(registry, subject).len(),
                1,
                "{subject}\n{}",
                registry.transcript()
            );
        }
    }
    namespace.check_rules().await;
    drop(controller);
}
