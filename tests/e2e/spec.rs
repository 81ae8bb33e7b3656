//! What the other fields of a spec do: dryRun, suspend, a tag that is followed, and a request for a pass now.

use std::time::Duration;

use affix::api::{ConditionType, Reason, TargetState};
use affix_testbed::hostile::{HostileRegistry, Matcher};
use serde_json::json;
use tokio::time::sleep;

use crate::controller::Controller;
use crate::images::{attachment, host, note, with};
use crate::namespace::{Namespace, message as told_by, says};

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let namespace = Namespace::new("dry").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    namespace.apply("dry", with(note(&reference), json!({"dryRun": true}))).await;
    let message = namespace.refused("dry", Reason::Planned).await;
    assert!(message.contains("3 of 3 targets"), "{message}");
    let status = namespace.status("dry").await;
    assert!(status.targets.iter().all(|row| row.state == TargetState::Planned && row.attachment.is_none()), "{status:#?}");
    assert_eq!(status.targets.len(), 3);
    namespace.request("dry", "again").await;
    assert!(registry.requests_that(&Matcher::writes()).is_empty(), "{}", registry.transcript());

    namespace.apply("dry", with(note(&reference), json!({"dryRun": false}))).await;
    assert_eq!(namespace.ready("dry").await.attached.as_deref(), Some("3/3"));

    // Over what is attached it is no more Ready, and another content would take the place of what is there.
    registry.clear();
    namespace.apply("dry", with(note(&reference), json!({"dryRun": true}))).await;
    let message = namespace.refused("dry", Reason::Planned).await;
    assert_eq!(message, "dry run: nothing to do: 3 targets attached");
    let mut other = with(note(&reference), json!({"dryRun": true}));
    other["artifact"]["annotations"]["demo.affix.dev/note"] = json!("another");
    namespace.apply("dry", other).await;
    let told = "dry run: 3 of 3 targets would be attached; 3 attachments would be removed";
    let object = namespace.wait("dry", told, |object| told_by(object) == told).await;
    let leftovers = object.status.unwrap().leftovers;
    assert!(leftovers.len() == 3 && leftovers.iter().all(|leftover| leftover.reason.as_deref() == Some("Planned")), "{leftovers:#?}");
    assert!(registry.requests_that(&Matcher::writes()).is_empty(), "{}", registry.transcript());
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_suspended_resource_is_left_alone_and_goes_on_where_it_was() {
    let namespace = Namespace::new("suspended").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    namespace.apply("paused", with(note(&reference), json!({"suspend": true}))).await;
    namespace.refused("paused", Reason::Suspended).await;
    assert!(registry.requests().is_empty(), "{}", registry.transcript());
    namespace.apply("paused", note(&reference)).await;
    let before = namespace.ready("paused").await;

    namespace.apply("paused", with(note(&reference), json!({"suspend": true, "interval": "1s"}))).await;
    namespace.refused("paused", Reason::Suspended).await;
    registry.clear();
    sleep(Duration::from_millis(1500)).await;
    assert!(registry.requests().is_empty(), "{}", registry.transcript());
    assert_eq!(namespace.status("paused").await.targets, before.targets);
    namespace.apply("paused", note(&reference)).await;
    assert_eq!(namespace.ready("paused").await.targets, before.targets);
    assert!(registry.requests_that(&Matcher::writes()).is_empty(), "{}", registry.transcript());
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_tag_that_moves_is_followed_and_what_it_left_keeps_its_attachments() {
    let namespace = Namespace::new("moves").await;
    let registry = HostileRegistry::start().await.unwrap();
    let old = host(&registry, "v1");
    let _controller = Controller::start(&namespace).await;
    namespace.apply("moves", with(note(&registry.reference("team/app:v1")), json!({"interval": "1s"}))).await;
    let before = namespace.ready("moves").await;
    assert_eq!(before.image.as_ref().unwrap().digest, old.digest);

    let new = registry.image("team/app", "v1").seed("rebuilt").platforms(["linux/amd64", "linux/s390x"]).push();
    let moved = namespace
        .wait("moves", "on the new digest", |object| {
            crate::namespace::is_ready(object)
                && object.status.as_ref().and_then(|status| status.image.as_ref()).is_some_and(|image| image.digest == new.digest)
        })
        .await;
    let after = moved.status.unwrap();
    assert_eq!(after.attached.as_deref(), Some("3/3"));
    let store = registry.store();
    for (image, status) in [(&old, &before), (&new, &after)] {
        for subject in std::iter::once(&image.digest).chain(image.children.iter().map(|child| &child.digest)) {
            let attached: Vec<String> = store.referrers("team/app", subject).into_iter().map(|manifest| manifest.digest).collect();
            assert_eq!(attached, [attachment(&status.targets, subject)]);
        }
    }
    let (kind, told) = namespace.event("moves", Reason::TagMoved).await;
    assert!(kind == "Normal" && told.contains(&old.digest) && told.contains(&new.digest), "{kind} {told}");
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_tag_beside_a_digest_that_names_another_one_by_now_is_told_and_is_no_error() {
    let namespace = Namespace::new("beside").await;
    let registry = HostileRegistry::start().await.unwrap();
    let old = host(&registry, "v1");
    let _controller = Controller::start(&namespace).await;
    let image = format!("{}@{}", registry.reference("team/app:v1"), old.digest);
    namespace.apply("beside", with(note(&image), json!({"interval": "1s"}))).await;
    let before = namespace.ready("beside").await;

    let new = registry.image("team/app", "v1").seed("rebuilt").platform("linux/amd64").push();
    let (kind, told) = namespace.event("beside", Reason::TagMoved).await;
    assert!(kind == "Normal" && told.contains(&new.digest), "{kind} {told}");
    let resolved = |status: &affix::api::ImageAttachmentStatus| says(status, ConditionType::Resolved);
    let object = namespace
        .wait("beside", "telling of the move", |object| object.status.as_ref().is_some_and(|status| resolved(status).contains(&new.digest)))
        .await;
    assert!(crate::namespace::is_ready(&object), "{object:#?}");
    let after = object.status.unwrap();
    assert_eq!(after.targets, before.targets);
    assert_eq!(after.image, before.image);
    // Said once, not at every look.
    sleep(Duration::from_millis(2500)).await;
    let events = namespace.events("beside").await;
    assert_eq!(events.iter().filter(|(_, reason, _)| reason == "TagMoved").count(), 1, "{events:?}");
    assert!(registry.store().referrers("team/app", &new.digest).is_empty());
    namespace.delete("beside").await;

    // The same where the tag had moved, or was gone, before the resource came.
    for (name, tag) in [("moved-before", "v1"), ("gone-before", "v0")] {
        let image = format!("{}@{}", registry.reference(&format!("team/app:{tag}")), old.digest);
        namespace.apply(name, note(&image)).await;
        assert_eq!(namespace.ready(name).await.attached.as_deref(), Some("3/3"));
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_request_for_a_pass_is_handled_within_two_seconds_and_echoed() {
    let namespace = Namespace::new("requested").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let _controller = Controller::start(&namespace).await;
    namespace.apply("requested", note(&registry.reference(&image.name()))).await;
    namespace.ready("requested").await;
    for token in ["2026-11-24T00:00:00Z", "any text", "2026-11-24T00:00:00Z"] {
        registry.clear();
        let took = namespace.request("requested", token).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        let listings = registry.count(affix_testbed::hostile::Op::ReferrersList);
        assert_eq!(listings, 3, "a request looks at the listings at once:\n{}", registry.transcript());
        assert!(registry.requests_that(&Matcher::writes()).is_empty(), "{}", registry.transcript());
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_changed_spec_is_attached_before_the_old_goes_and_nothing_else_is_removed() {
    let namespace = Namespace::new("changed").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    namespace.apply("other", with(note(&reference), json!({"artifact": {"artifactType": "a/b", "annotations": {"k": "v"}}}))).await;
    namespace.apply("changed", note(&reference)).await;
    let (before, other) = (namespace.ready("changed").await, namespace.ready("other").await);
    registry.clear();
    let changed = json!({"artifact": {"artifactType": crate::images::SIGNATURE, "annotations": {"demo.affix.dev/note": "changed"}}});
    namespace.apply("changed", with(note(&reference), changed)).await;
    let after = namespace.ready("changed").await;
    for row in &after.targets {
        let new = row.attachment.as_deref().unwrap();
        let old = attachment(&before.targets, &row.digest);
        assert_ne!(new, old);
        let mut left: Vec<String> =
            registry.store().referrers("team/app", &row.digest).into_iter().map(|manifest| manifest.digest).collect();
        left.sort();
        let mut expected = vec![new.to_owned(), attachment(&other.targets, &row.digest).to_owned()];
        expected.sort();
        assert_eq!(left, expected, "{}", registry.transcript());
        let at = |digest: &str, method: &str| {
            let requests = registry.requests();
            requests.iter().find(|request| request.method == method && request.reference.as_deref() == Some(digest)).map(|found| found.id)
        };
        assert!(at(new, "PUT").unwrap() < at(old, "DELETE").unwrap(), "{}", registry.transcript());
    }
    assert_eq!(after.leftovers, []);
    namespace.check_rules().await;
}
