//! Sets with a lifecycle: marks on what is out of life, and on nothing else.

use affix::api::{ImageAttachmentSet, Reason};
use affix_testbed::hostile::{HostileRegistry, Image};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Sets, release};
use crate::support::controller::Controller;
use crate::support::images::{listed, manifests, scriptable, with};
use crate::support::namespace::{Namespace, PATIENCE, POLL};

/// A set that keeps the newest two minors.
fn train(registry: &HostileRegistry, fields: Value) -> Value {
    let mut lifecycle = json!({"keep": {"minors": 2}, "gracePeriod": "1h", "settle": "0s"});
    let fields = fields.as_object().unwrap().clone();
    lifecycle.as_object_mut().unwrap().extend(fields);
    json!({
        "repositories": [registry.reference("team/app")],
        "tags": {"semver": ">=1.0.0"},
        "interval": "1s",
        "lifecycle": lifecycle,
        "template": {"spec": {"insecure": true, "endOfLife": {}}},
    })
}

/// Waits until these manifests of the images have a mark and the others none.
async fn marked(registry: &HostileRegistry, dead: &[&Image], alive: &[&Image]) {
    attached(registry, 1, dead, alive).await;
}

/// Waits until each manifest of the images out of life has this number of attachments and the others none.
async fn attached(registry: &HostileRegistry, each: usize, dead: &[&Image], alive: &[&Image]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = |images: &[&Image]| -> Vec<usize> {
            let all = images.iter().flat_map(|image| manifests(image));
            all.map(|manifest| listed(registry, manifest).len())
                .collect()
        };
        let (found, unwanted) = (count(dead), count(alive));
        if found.iter().all(|count| *count == each) && unwanted.iter().all(|marks| *marks == 0) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "attachments: {found:?}, of alive images: {unwanted:?}"
        );
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_new_minor_puts_the_oldest_out_of_life() {
    let namespace = Namespace::new("set-train").await;
    let sets = Sets::of(&namespace);
    let controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("train-{nth}");
        let [first, second] = ["v1.0.0", "v1.1.0"].map(|tag| release(registry, tag));
        sets.apply(&name, train(registry, json!({}))).await;
        sets.ready(&name, "0/0").await;
        marked(registry, &[], &[&first, &second]).await;
        let third = release(registry, "v1.2.0");
        let status = sets.ready(&name, "1/1").await;
        assert_eq!(status.cycles.len(), 3, "{status:#?}");
        marked(registry, &[&first], &[&second, &third]).await;
        let child = sets.child(&name, &first.digest).await.unwrap();
        let date = child.spec.end_of_life.unwrap().date.unwrap();
        sets.request(&name, "again").await;
        let child = sets.child(&name, &first.digest).await.unwrap();
        assert_eq!(child.spec.end_of_life.unwrap().date.unwrap(), date);
    }
    sets.check_rules().await;
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn an_image_that_is_alive_again_loses_child_and_marks_whatever_the_policy() {
    let namespace = Namespace::new("set-alive").await;
    let sets = Sets::of(&namespace);
    let controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("train-{nth}");
        let images = ["v1.0.0", "v1.1.0", "v1.2.0"].map(|tag| release(registry, tag));
        let [first, second, third] = &images;
        let spec = train(registry, json!({}));
        sets.apply(&name, spec.clone()).await;
        sets.ready(&name, "1/1").await;
        marked(registry, &[first], &[second, third]).await;
        let child = sets.child(&name, &first.digest).await.unwrap();
        assert!(child.finalizers().is_empty() && child.spec.deletion_policy.is_none());
        let extended = train(registry, json!({"alive": ["v1.0.*"]}));
        sets.apply(&name, extended).await;
        sets.ready(&name, "0/0").await;
        sets.children_are(&name, &[]).await;
        marked(registry, &[], &[first, second, third]).await;
        // And out of life again.
        sets.apply(&name, spec).await;
        sets.ready(&name, "1/1").await;
        marked(registry, &[first], &[second, third]).await;
    }
    sets.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn signed_statements_come_and_go_with_the_marks_of_a_set() {
    let namespace = Namespace::new("set-statements").await;
    let sets = Sets::of(&namespace);
    let key = include_str!("../../vectors/signing/cosign/p256.pem");
    namespace.secret("key", json!({"cosign.key": key})).await;
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("train-{nth}");
        let images = ["v1.0.0", "v1.1.0", "v1.2.0"].map(|tag| release(registry, tag));
        let [first, second, third] = &images;
        let signed = |fields| {
            let mut spec = train(registry, fields);
            let statement = json!({"cosign": {"keySecretRef": {"name": "key"}}});
            spec["template"]["spec"]["endOfLife"] = json!({"statement": statement});
            spec
        };
        sets.apply(&name, signed(json!({}))).await;
        sets.ready(&name, "1/1").await;
        attached(registry, 2, &[first], &[second, third]).await;
        sets.apply(&name, signed(json!({"alive": ["v1.0.*"]})))
            .await;
        sets.ready(&name, "0/0").await;
        attached(registry, 2, &[], &[first, second, third]).await;
    }
    sets.check_rules().await;
    namespace.check_rules().await;
}

#[tokio::test]
async fn t29_more_new_marks_than_the_limit_wait_for_their_number() {
    let namespace = Namespace::new("set-fuse").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    for minor in 0..5 {
        release(&registry, &format!("v1.{minor}.0"));
    }
    let _controller = Controller::start(&namespace).await;
    sets.apply("train", train(&registry, json!({"maxNewMarks": 2})))
        .await;
    let message = sets.refused("train", Reason::TooManyMarks).await;
    assert!(
        message.starts_with("3 images would be newly marked")
            && message.ends_with("affix.dev/confirm=3"),
        "{message}"
    );
    assert!(sets.children("train").await.is_empty());
    let confirm = |count: &str| json!({"metadata": {"annotations": {"affix.dev/confirm": count}}});
    sets.patch("train", confirm("2")).await;
    sets.request("train", "now").await;
    sets.refused("train", Reason::TooManyMarks).await;
    sets.patch("train", confirm("3")).await;
    sets.ready("train", "3/3").await;
    sets.check_rules().await;
}

#[tokio::test]
async fn two_sets_with_different_dates_conflict_and_with_equal_ones_share() {
    let namespace = Namespace::new("set-two").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let old = release(&registry, "v1.0.0");
    release(&registry, "v2.0.0");
    let _controller = Controller::start(&namespace).await;
    let calendar = |date: &str| {
        let mut spec = train(
            &registry,
            json!({"cycles": [{"versions": "1.x", "date": date}]}),
        );
        spec["lifecycle"].as_object_mut().unwrap().remove("keep");
        spec
    };
    sets.apply("first", calendar("2026-01-01")).await;
    sets.ready("first", "1/1").await;
    sets.apply("equal", calendar("2026-01-01")).await;
    sets.ready("equal", "1/1").await;
    assert_eq!(listed(&registry, &old.digest).len(), 1);
    sets.apply("other", calendar("2026-02-01")).await;
    let is_conflict = |set: &ImageAttachmentSet| {
        let status = set.status.as_ref();
        let conditions = status.map(|status| &*status.conditions).unwrap_or_default();
        let mut conditions = conditions.iter();
        conditions.any(|condition| {
            condition.reason == "Conflict" || condition.message.contains("Conflict")
        })
    };
    // Readers take the newest mark. Whoever made an older one reports the conflict.
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        for name in ["first", "equal", "other"] {
            for child in sets.children(name).await {
                namespace
                    .request(&child.name_any(), &format!("round {round}"))
                    .await;
            }
        }
        let mut found = false;
        for name in ["first", "equal", "other"] {
            found |= is_conflict(&sets.get(name).await);
        }
        if found {
            break;
        }
        assert!(Instant::now() < deadline, "no set reports the conflict");
        sleep(POLL).await;
    }
    sets.check_rules().await;
}

#[tokio::test]
async fn a_list_of_tags_that_fails_changes_nothing_and_is_reported() {
    use affix_testbed::hostile::{Fault, Matcher, Op};
    let namespace = Namespace::new("set-broken").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let images = ["v1.0.0", "v1.1.0", "v1.2.0"].map(|tag| release(&registry, tag));
    let _controller = Controller::start(&namespace).await;
    let spec = with(train(&registry, json!({})), json!({}));
    sets.apply("train", spec).await;
    sets.ready("train", "1/1").await;
    let fault = registry.fault(Matcher::on(Op::TagList), Fault::status(403));
    sets.request("train", "now").await;
    let message = sets.refused("train", Reason::AccessDenied).await;
    assert!(
        message.starts_with(&registry.reference("team/app")),
        "{message}"
    );
    let status = sets.get("train").await.status.unwrap();
    assert_eq!(status.ready.as_deref(), Some("1/1"), "{status:#?}");
    sets.children_are("train", &[&images[0].digest]).await;
    fault.lift();
    sets.ready("train", "1/1").await;
    sets.check_rules().await;
}
