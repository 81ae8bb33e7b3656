//! The children of a set: made, put back, changed, pruned and adopted.

use affix::api::{Reason, SET_LABEL, TAGS_ANNOTATION};
use affix_testbed::hostile::{HostileRegistry, Matcher, Op};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Sets, notes, release};
use crate::support::controller::Controller;
use crate::support::images::{listed, manifests, note, scriptable, with};
use crate::support::namespace::{Namespace, PATIENCE, POLL};

#[tokio::test]
async fn each_release_gets_a_child_and_a_later_one_too() {
    let namespace = Namespace::new("set-made").await;
    let sets = Sets::of(&namespace);
    let controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("releases-{nth}");
        let first = release(registry, "v1.0.0");
        let second = release(registry, "v1.1.0");
        registry
            .store()
            .put_tag("team/app", "1.1.0", &second.digest);
        release(registry, "nightly");
        let spec = with(
            notes(registry, json!({"deletionPolicy": "Retain"})),
            json!({"template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"example.com/owner": "a"}},
                "spec": notes(registry, json!({}))["template"]["spec"],
            }}),
        );
        sets.apply(&name, spec).await;
        let status = sets.ready(&name, "2/2").await;
        assert_eq!(
            (
                status.children,
                status.repositories[0].selected,
                status.repositories[0].tags
            ),
            (Some(2), Some(3), Some(4)),
            "{status:#?}"
        );
        let set = sets.get(&name).await;
        let child = sets.child(&name, &second.digest).await.unwrap();
        assert_eq!(
            (
                child.labels()[SET_LABEL].as_str(),
                child.labels()["team"].as_str(),
                child.annotations()["example.com/owner"].as_str(),
                child.annotations()[TAGS_ANNOTATION].as_str(),
            ),
            (name.as_str(), "a", "a", "1.1.0,v1.1.0")
        );
        let owner = &child.owner_references()[0];
        assert_eq!(
            (
                owner.uid.as_str(),
                owner.controller,
                owner.block_owner_deletion
            ),
            (set.uid().unwrap().as_str(), Some(true), Some(true))
        );
        let third = release(registry, "v1.2.0");
        sets.ready(&name, "3/3").await;
        for image in [&first, &second, &third] {
            for manifest in manifests(image) {
                assert_eq!(listed(registry, manifest).len(), 1, "{manifest}");
            }
        }
    }
    sets.check_rules().await;
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn edited_children_are_put_back_and_deleted_ones_made_again() {
    let namespace = Namespace::new("set-edited").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let image = release(&registry, "v1.0.0");
    let _controller = Controller::start(&namespace).await;
    // The interval is long: only the change of a child triggers the pass.
    let spec = with(notes(&registry, json!({})), json!({"interval": "1h"}));
    sets.apply("releases", spec).await;
    sets.ready("releases", "1/1").await;
    let before = sets.child("releases", &image.digest).await.unwrap();
    let api = namespace.attachments();
    let edits = [
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"image": registry.reference("team/other:v1"), "timeout": "5m"}}),
        json!({"spec": {"targets": {"scope": "Index"}}}),
        json!({"spec": {"artifact": {"annotations": {"demo.affix.dev/note": null, "other": "x"}}}}),
        json!({"metadata": {"labels": {SET_LABEL: null}}}),
        json!({"metadata": {"annotations": {TAGS_ANNOTATION: "v9.9.9"}}}),
        json!({"metadata": {"ownerReferences": null}}),
    ];
    for edit in edits {
        let patch = Patch::Merge(&edit);
        let name = before.name_any();
        api.patch(&name, &PatchParams::default(), &patch)
            .await
            .unwrap();
        let is_back = |child: &affix::api::ImageAttachment| {
            child.spec == before.spec
                && child.labels() == before.labels()
                && child.annotations() == before.annotations()
                && child.owner_references() == before.owner_references()
        };
        namespace
            .wait(&name, &format!("put back after {edit}"), is_back)
            .await;
    }
    // What others add to the metadata stays.
    let added = json!({"metadata": {"annotations": {"example.com/note": "x"}, "labels": {"example.com/a": "b"}}});
    let name = before.name_any();
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&added))
        .await
        .unwrap();
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let is_new = |child: &affix::api::ImageAttachment| {
        child.uid() != before.uid() && child.spec == before.spec
    };
    let deadline = Instant::now() + PATIENCE;
    while !api
        .get_opt(&name)
        .await
        .unwrap()
        .as_ref()
        .is_some_and(is_new)
    {
        assert!(Instant::now() < deadline, "the child is not made again");
        sleep(POLL).await;
    }
    sets.ready("releases", "1/1").await;
    let child = sets.child("releases", &image.digest).await.unwrap();
    api.patch(
        &child.name_any(),
        &PatchParams::default(),
        &Patch::Merge(&added),
    )
    .await
    .unwrap();
    sets.request("releases", "now").await;
    let child = sets.child("releases", &image.digest).await.unwrap();
    assert_eq!(child.annotations()["example.com/note"], "x");
    sets.check_rules().await;
}

#[tokio::test]
async fn children_follow_the_template_and_the_selection() {
    let namespace = Namespace::new("set-changed").await;
    let sets = Sets::of(&namespace);
    let controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("releases-{nth}");
        let images = ["v1.0.0", "v1.1.0", "v2.0.0"].map(|tag| release(registry, tag));
        let digests = [0, 1, 2].map(|nth: usize| images[nth].digest.as_str());
        let template = json!({"metadata": {"labels": {"team": "a"}}});
        let mut spec = notes(registry, json!({"deletionPolicy": "Delete"}));
        spec["template"]["metadata"] = template["metadata"].clone();
        sets.apply(&name, spec.clone()).await;
        sets.ready(&name, "3/3").await;

        // A changed annotation replaces each attachment, and a label that is gone from the template goes.
        spec["template"]["spec"]["artifact"]["annotations"] = json!({"demo.affix.dev/note": "bye"});
        spec["template"]["metadata"] = json!({"annotations": {"example.com/a": "b"}});
        sets.apply(&name, spec.clone()).await;
        sets.ready(&name, "3/3").await;
        for (image, digest) in images.iter().zip(digests) {
            let child = sets.child(&name, digest).await.unwrap();
            assert!(!child.labels().contains_key("team"), "{child:#?}");
            assert_eq!(child.annotations()["example.com/a"], "b");
            for manifest in manifests(image) {
                assert_eq!(listed(registry, manifest).len(), 1, "{manifest}");
            }
        }

        // The children of tags that are no longer selected go by their own policy.
        spec["tags"] = json!({"semver": ">=1.0.0", "exclude": ["v1.0.0"]});
        sets.apply(&name, spec.clone()).await;
        sets.children_are(&name, &digests[1..]).await;
        sets.ready(&name, "2/2").await;
        assert!(listed(registry, digests[0]).is_empty());
        spec["template"]["spec"]["deletionPolicy"] = json!("Retain");
        sets.apply(&name, spec.clone()).await;
        sets.ready(&name, "2/2").await;
        spec["tags"] = json!({"semver": ">=2.0.0"});
        sets.apply(&name, spec).await;
        sets.children_are(&name, &digests[2..]).await;
        assert_eq!(listed(registry, digests[1]).len(), 1);
    }
    sets.check_rules().await;
    namespace.check_rules().await;
    drop(controller);
}

#[tokio::test]
async fn a_stranger_of_the_same_name_is_reported_and_left_alone() {
    let namespace = Namespace::new("set-stranger").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let image = release(&registry, "v1.0.0");
    let controller = Controller::start(&namespace).await;
    sets.apply("releases", notes(&registry, json!({}))).await;
    sets.ready("releases", "1/1").await;
    let child = sets
        .child("releases", &image.digest)
        .await
        .unwrap()
        .name_any();
    drop(controller);
    namespace.delete(&child).await;
    let own = note(&registry.reference(&image.name()));
    namespace.apply(&child, own.clone()).await;
    let before = namespace.get(&child).await;
    let _controller = Controller::start(&namespace).await;
    sets.request("releases", "now").await;
    let message = sets.refused("releases", Reason::Conflict).await;
    assert!(
        message.contains(&child) && message.contains("does not belong to this set"),
        "{message}"
    );
    let after = namespace.get(&child).await;
    assert_eq!(
        (&after.spec, after.labels()),
        (&before.spec, before.labels())
    );
    assert!(after.owner_references().is_empty());
    namespace.delete(&child).await;
    sets.request("releases", "again").await;
    sets.ready("releases", "1/1").await;
    sets.check_rules().await;
}

#[tokio::test]
async fn orphans_stay_valid_and_a_new_set_of_the_name_adopts_them() {
    let namespace = Namespace::new("set-orphans").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let image = release(&registry, "v1.0.0");
    let _controller = Controller::start(&namespace).await;
    sets.apply("releases", notes(&registry, json!({}))).await;
    sets.ready("releases", "1/1").await;
    let child = sets.child("releases", &image.digest).await.unwrap();
    let name = child.name_any();
    // What the garbage collector does for --cascade=orphan. It does not run here.
    sets.delete("releases", DeleteParams::orphan()).await;
    let orphaned = json!({"metadata": {"ownerReferences": null}});
    let api = namespace.attachments();
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&orphaned))
        .await
        .unwrap();
    let merge = json!({"metadata": {"finalizers": null}});
    sets.patch("releases", merge).await;
    namespace.request(&name, "orphan").await;
    assert!(namespace.get(&name).await.owner_references().is_empty());
    namespace.ready(&name).await;

    sets.apply("releases", notes(&registry, json!({}))).await;
    sets.ready("releases", "1/1").await;
    let adopted = namespace.get(&name).await;
    let set = sets.get("releases").await;
    assert_eq!(adopted.uid(), child.uid());
    assert_eq!(adopted.owner_references()[0].uid, set.uid().unwrap());
    assert_eq!(listed(&registry, &image.digest).len(), 1);
}

#[tokio::test]
async fn a_suspended_set_leaves_its_children_alone() {
    let namespace = Namespace::new("set-suspended").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let image = release(&registry, "v1.0.0");
    let _controller = Controller::start(&namespace).await;
    sets.apply("releases", notes(&registry, json!({}))).await;
    sets.ready("releases", "1/1").await;
    sets.patch("releases", json!({"spec": {"suspend": true}}))
        .await;
    let is_seen = |set: &affix::api::ImageAttachmentSet| {
        let observed = set.status.as_ref().map(|status| status.observed_generation);
        observed == set.metadata.generation
    };
    sets.wait("releases", "suspended", is_seen).await;
    let child = sets
        .child("releases", &image.digest)
        .await
        .unwrap()
        .name_any();
    let edit = json!({"spec": {"timeout": "5m"}});
    let api = namespace.attachments();
    api.patch(&child, &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();
    release(&registry, "v1.1.0");
    let lists = registry.count(Op::TagList);
    // The child goes on while its set is suspended.
    namespace.request(&child, "go").await;
    namespace.request(&child, "on").await;
    assert_eq!(registry.count(Op::TagList), lists);
    assert_eq!(sets.children("releases").await.len(), 1);
    assert!(namespace.get(&child).await.spec.timeout.is_some());
    let status = sets.get("releases").await.status.unwrap();
    assert_eq!(status.ready.as_deref(), Some("1/1"));
    sets.check_rules().await;

    sets.patch("releases", json!({"spec": {"suspend": null}}))
        .await;
    sets.ready("releases", "2/2").await;
    assert!(namespace.get(&child).await.spec.timeout.is_none());
}

#[tokio::test]
async fn a_set_at_rest_lists_tags_once_an_interval_and_writes_nothing() {
    let namespace = Namespace::new("set-rest").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    for minor in 0..5 {
        release(&registry, &format!("v1.{minor}.0"));
    }
    let controller = Controller::start(&namespace).await;
    let spec = with(notes(&registry, json!({})), json!({"immutable": true}));
    sets.apply("releases", spec).await;
    sets.ready("releases", "5/5").await;
    // Ready may precede the last pass that the events of the children trigger.
    sets.request("releases", "settled").await;
    sets.ready("releases", "5/5").await;
    sleep(std::time::Duration::from_secs(2)).await;
    let writes = async || -> Vec<String> {
        let metrics = controller.metrics().await;
        let written = metrics.lines().filter(|line| {
            line.starts_with("rest_client_requests_total") && !line.contains("method=\"GET\"")
        });
        written.map(str::to_owned).collect()
    };
    let before = writes().await;
    registry.clear();
    let deadline = Instant::now() + PATIENCE;
    while registry.count(Op::TagList) < 4 {
        assert!(Instant::now() < deadline, "the tags are not listed");
        sleep(POLL).await;
    }
    let others = registry.requests_that(&Matcher::any()).into_iter();
    let others: Vec<Value> = others
        .filter(|request| request.op != Op::TagList)
        .map(|request| json!(request.target()))
        .collect();
    assert_eq!(others, Vec::<Value>::new());
    assert_eq!(writes().await, before);
    // A child does not ask for its tag either.
    let child = sets.children("releases").await[0].name_any();
    namespace.request(&child, "now").await;
    assert!(registry.count(Op::ReferrersList) > 0);
    let heads = Matcher::on(Op::ManifestHead).reference("v1.*");
    assert!(registry.requests_that(&heads).is_empty());
}
