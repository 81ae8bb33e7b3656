//! What the other fields of a spec do: dryRun, suspend, a tag that is followed, and a request for a pass now.

use std::time::Duration;

use affix::api::{ConditionType, Reason, TargetState};
use affix_testbed::hostile::{Deletion, HostileRegistry, Matcher};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::sleep;

use crate::support::controller::Controller;
use crate::support::images::{attachment, host, listed, manifests, mark, note, scriptable, with};
use crate::support::namespace::{Namespace, REQUESTED_AT, message as told_by, says};

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let namespace = Namespace::new("dry").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("dry", with(note(&reference), json!({"dryRun": true})))
        .await;
    let message = namespace.refused("dry", Reason::Planned).await;
    assert!(message.contains("3 of 3 targets"), "{message}");
    let status = namespace.status("dry").await;
    assert!(
        status
            .targets
            .iter()
            .all(|row| row.state == TargetState::Planned && row.attachment.is_none()),
        "{status:#?}"
    );
    assert_eq!(status.targets.len(), 3);
    namespace.request("dry", "again").await;
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );

    namespace
        .apply("dry", with(note(&reference), json!({"dryRun": false})))
        .await;
    assert_eq!(
        namespace.ready("dry").await.attached.as_deref(),
        Some("3/3")
    );

    // Over what is attached it is no more Ready, and another content would take the place of what is there.
    registry.clear();
    namespace
        .apply("dry", with(note(&reference), json!({"dryRun": true})))
        .await;
    let message = namespace.refused("dry", Reason::Planned).await;
    assert_eq!(message, "dry run: nothing to do: 3 targets attached");
    let mut other = with(note(&reference), json!({"dryRun": true}));
    other["artifact"]["annotations"]["demo.affix.dev/note"] = json!("another");
    namespace.apply("dry", other).await;
    let told = "dry run: 3 of 3 targets would be attached; 3 attachments would be removed";
    let object = namespace
        .wait("dry", told, |object| told_by(object) == told)
        .await;
    let leftovers = object.status.unwrap().leftovers;
    assert!(
        leftovers.len() == 3
            && leftovers
                .iter()
                .all(|leftover| leftover.reason.as_deref() == Some("Planned")),
        "{leftovers:#?}"
    );
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_suspended_resource_is_left_alone_and_goes_on_where_it_was() {
    let namespace = Namespace::new("suspended").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("paused", with(note(&reference), json!({"suspend": true})))
        .await;
    let status = namespace.suspended("paused").await;
    assert_eq!(
        conditions(&status),
        ["Ready Unknown Suspended"],
        "{status:#?}"
    );
    assert!(registry.requests().is_empty(), "{}", registry.transcript());
    namespace.apply("paused", note(&reference)).await;
    let before = namespace.ready("paused").await;

    namespace
        .apply(
            "paused",
            with(note(&reference), json!({"suspend": true, "interval": "1s"})),
        )
        .await;
    let status = namespace.suspended("paused").await;
    assert_eq!(
        conditions(&status),
        [
            "Ready True Attached",
            "Resolved True Resolved",
            "Attached True Attached"
        ]
    );
    let (kind, _) = namespace.event("paused", Reason::Suspended).await;
    assert_eq!(kind, "Normal");
    registry.clear();
    sleep(Duration::from_millis(1500)).await;
    assert!(registry.requests().is_empty(), "{}", registry.transcript());
    assert_eq!(namespace.status("paused").await.targets, before.targets);
    namespace.apply("paused", note(&reference)).await;
    assert_eq!(namespace.ready("paused").await.targets, before.targets);
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );
    namespace.check_rules().await;
}

/// Each condition as type, status and reason. All of them are of the observed generation.
fn conditions(status: &affix::api::ImageAttachmentStatus) -> Vec<String> {
    let print = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        assert_eq!(
            condition.observed_generation,
            Some(status.observed_generation)
        );
        format!(
            "{} {} {}",
            condition.type_, condition.status, condition.reason
        )
    };
    status.conditions.iter().map(print).collect()
}

/// Waits until a resource is Ready on this digest.
async fn ready_on(
    namespace: &Namespace,
    name: &str,
    digest: &str,
) -> affix::api::ImageAttachmentStatus {
    let is_on = |object: &affix::api::ImageAttachment| {
        let image = object
            .status
            .as_ref()
            .and_then(|status| status.image.as_ref());
        crate::support::namespace::is_ready(object)
            && image.is_some_and(|image| image.digest == digest)
    };
    namespace
        .wait(name, "Ready on the new digest", is_on)
        .await
        .status
        .unwrap()
}

#[tokio::test]
async fn a_moved_tag_is_followed_and_the_image_it_left_keeps_its_attachments() {
    const DOWN: &str = "while nobody looks";
    let namespace = Namespace::new("moves").await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("moves-{nth}");
        let mut controller = Some(Controller::start(&namespace).await);
        let mut image = host(registry, "v1");
        namespace
            .apply(
                &name,
                with(
                    note(&registry.reference("team/app:v1")),
                    json!({"interval": "1s"}),
                ),
            )
            .await;
        let mut seen = vec![(
            image.clone(),
            ready_on(&namespace, &name, &image.digest).await,
        )];
        for seed in ["rebuilt", DOWN] {
            if let Some(controller) = controller.take_if(|_| seed == DOWN) {
                controller.kill().await;
            }
            image = registry
                .image("team/app", "v1")
                .seed(seed)
                .platforms(["linux/amd64", "linux/s390x"])
                .push();
            if controller.is_none() {
                controller = Some(Controller::start(&namespace).await);
            }
            let status = ready_on(&namespace, &name, &image.digest).await;
            assert_eq!(status.attached.as_deref(), Some("3/3"));
            // An operator that is killed between its status and its event says nothing of it any more.
            let told = [&seen.last().unwrap().0.digest, &image.digest];
            namespace
                .told(&name, Reason::TagMoved, |kind, note| {
                    kind == "Normal" && told.iter().all(|part| note.contains(*part))
                })
                .await;
            seen.push((image.clone(), status));
        }
        for (image, status) in &seen {
            for subject in manifests(image) {
                assert_eq!(
                    listed(registry, subject),
                    [attachment(&status.targets, subject)],
                    "{}",
                    registry.transcript()
                );
            }
        }
        drop(controller);
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_tag_beside_a_digest_that_names_another_one_by_now_is_told_and_is_no_error() {
    let namespace = Namespace::new("beside").await;
    let registries = scriptable().await;
    let _controller = Controller::start(&namespace).await;
    let mut told = Vec::new();
    for (nth, registry) in registries.iter().enumerate() {
        let name = format!("beside-{nth}");
        let old = host(registry, "v1");
        let image = format!("{}@{}", registry.reference("team/app:v1"), old.digest);
        namespace
            .apply(&name, with(note(&image), json!({"interval": "1s"})))
            .await;
        let before = namespace.ready(&name).await;

        let new = registry
            .image("team/app", "v1")
            .seed("rebuilt")
            .platform("linux/amd64")
            .push();
        namespace
            .told(&name, Reason::TagMoved, |kind, note| {
                kind == "Normal" && note.contains(&new.digest)
            })
            .await;
        let resolved =
            |status: &affix::api::ImageAttachmentStatus| says(status, ConditionType::Resolved);
        let telling = |object: &affix::api::ImageAttachment| {
            object
                .status
                .as_ref()
                .is_some_and(|status| resolved(status).contains(&new.digest))
        };
        let object = namespace.wait(&name, "telling of the move", telling).await;
        assert!(crate::support::namespace::is_ready(&object), "{object:#?}");
        let after = object.status.unwrap();
        let mut image = after.image.unwrap();
        let drift = image.tag_drift.take().map(|drift| drift.digest);
        assert_eq!(drift.as_ref(), Some(&new.digest));
        assert_eq!((after.targets, Some(image)), (before.targets, before.image));
        assert!(listed(registry, &new.digest).is_empty());
        told.push((name, old));
    }
    // Said once, not at every look.
    sleep(Duration::from_millis(2500)).await;
    for ((name, old), registry) in told.iter().zip(&registries) {
        let events = namespace.events(name).await;
        assert_eq!(
            events
                .iter()
                .filter(|(_, reason, _)| reason == "TagMoved")
                .count(),
            1,
            "{events:?}"
        );
        namespace.delete(name).await;
        // The same where the tag had moved, or was gone, before the resource came.
        for (when, tag) in [("moved-before", "v1"), ("gone-before", "v0")] {
            let image = format!(
                "{}@{}",
                registry.reference(&format!("team/app:{tag}")),
                old.digest
            );
            let name = format!("{when}-{name}");
            namespace.apply(&name, note(&image)).await;
            assert_eq!(
                namespace.ready(&name).await.attached.as_deref(),
                Some("3/3")
            );
        }
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_request_for_a_pass_is_handled_long_before_the_interval_and_echoed() {
    let namespace = Namespace::new("requested").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let _controller = Controller::start(&namespace).await;
    namespace
        .apply("requested", note(&registry.reference(&image.name())))
        .await;
    namespace.ready("requested").await;
    for token in ["2026-11-24T00:00:00Z", "any text", "2026-11-24T00:00:00Z"] {
        registry.clear();
        namespace.request("requested", token).await;
        let listings = registry.count(affix_testbed::hostile::Op::ReferrersList);
        assert_eq!(
            listings,
            3,
            "a request looks at the listings at once:\n{}",
            registry.transcript()
        );
        assert!(
            registry.requests_that(&Matcher::writes()).is_empty(),
            "{}",
            registry.transcript()
        );
    }
    // One that status could not hold is echoed by its beginning and its hash, and the next one is another.
    let mut echoes = Vec::new();
    for end in ["a", "b"] {
        let token = format!("{}{end}", "2026-11-24T00:00:00Z ".repeat(40));
        let patch = json!({"metadata": {"annotations": {REQUESTED_AT: token}}});
        namespace
            .attachments()
            .patch("requested", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
        let echo = |object: &affix::api::ImageAttachment| {
            object.status.as_ref()?.last_handled_reconcile_at.clone()
        };
        let is_new = |object: &affix::api::ImageAttachment| {
            echo(object).is_some_and(|echo| {
                echo.split_once("…sha256:")
                    .is_some_and(|(start, _)| token.starts_with(start))
                    && !echoes.contains(&echo)
            })
        };
        echoes.push(
            echo(
                &namespace
                    .wait("requested", "done with a long request", is_new)
                    .await,
            )
            .unwrap(),
        );
    }
    namespace.ready("requested").await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_changed_spec_is_attached_before_the_old_goes_and_nothing_else_is_removed() {
    let namespace = Namespace::new("changed").await;
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let (name, neighbour) = (format!("changed-{nth}"), format!("other-{nth}"));
        let image = host(registry, "v1");
        let reference = registry.reference(&image.name());
        let other = json!({"artifact": {"artifactType": "a/b", "annotations": {"k": "v"}}});
        namespace
            .apply(&neighbour, with(note(&reference), other))
            .await;
        let other = namespace.ready(&neighbour).await;
        namespace.apply(&name, note(&reference)).await;
        let before = namespace.ready(&name).await;
        registry.clear();
        let changed = json!({"artifact": {"artifactType": crate::support::images::SIGNATURE, "annotations": {"demo.affix.dev/note": "changed"}}});
        namespace
            .apply(&name, with(note(&reference), changed))
            .await;
        let after = namespace.ready(&name).await;
        for row in &after.targets {
            let new = row.attachment.as_deref().unwrap();
            let old = attachment(&before.targets, &row.digest);
            assert_ne!(new, old);
            let mut left = listed(registry, &row.digest);
            left.sort();
            let mut expected = vec![
                new.to_owned(),
                attachment(&other.targets, &row.digest).to_owned(),
            ];
            expected.sort();
            assert_eq!(left, expected, "{}", registry.transcript());
            let at = |digest: &str, method: &str| {
                let requests = registry.requests();
                let found = requests.iter().find(|request| {
                    request.method == method && request.reference.as_deref() == Some(digest)
                });
                found.map(|found| found.id)
            };
            assert!(
                at(new, "PUT").unwrap() < at(old, "DELETE").unwrap(),
                "{}",
                registry.transcript()
            );
        }
        assert_eq!(after.leftovers, []);
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn an_attachment_that_cannot_be_deleted_is_a_leftover_and_not_retried() {
    let namespace = Namespace::new("refusing").await;
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        registry.quirks(|quirks| quirks.deletion = Deletion::Disabled);
        let image = host(registry, "v1");
        let name = format!("refused-{nth}");
        let dated = |date: &str| {
            let mut spec = mark(&registry.reference(&image.pinned()));
            spec["endOfLife"]["date"] = json!(date);
            spec["targets"] = json!({"scope": "Index"});
            spec
        };
        namespace.apply(&name, dated("2027-01-01")).await;
        let old = attachment(&namespace.ready(&name).await.targets, &image.digest).to_owned();
        namespace.apply(&name, dated("2028-01-01")).await;
        let is_api = nth == 0;
        // The new mark outranks the old one, so a refused removal does not prevent Ready.
        let status = namespace.ready(&name).await;
        let new = attachment(&status.targets, &image.digest).to_owned();
        let leftovers: Vec<&str> = status
            .leftovers
            .iter()
            .map(|left| left.attachment.as_str())
            .collect();
        let (mut found, mut expected) = (listed(registry, &image.digest), vec![new]);
        if is_api {
            assert_eq!(leftovers, [&old]);
            expected.push(old);
        } else {
            assert!(
                leftovers.is_empty(),
                "the entry is off the list, which is all that readers see: {status:#?}"
            );
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        registry.clear();
        sleep(Duration::from_secs(2)).await;
        assert!(
            registry.requests_that(&Matcher::writes()).is_empty(),
            "{}",
            registry.transcript()
        );
    }
    namespace.check_rules().await;
}
