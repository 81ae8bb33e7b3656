//! Sets through crashes, downtime, a restore without status, and deletion.

use affix_testbed::control_plane::ControllerManager;
use affix_testbed::hostile::{HostileRegistry, Image, Matcher, Op, Stage};
use affix_testbed::tools::{Tool, Tools};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Sets, notes, release};
use crate::support::controller::Controller;
use crate::support::images::{listed, manifests, scriptable};
use crate::support::namespace::{Namespace, PATIENCE, POLL, REQUESTED_AT};

/// Each manifest of the images has exactly one attachment.
fn attached_once(registry: &HostileRegistry, images: &[Image]) {
    for manifest in images.iter().flat_map(manifests) {
        let count = listed(registry, manifest).len();
        assert_eq!(count, 1, "{manifest}");
    }
}

#[tokio::test]
async fn a_controller_that_is_killed_at_any_point_makes_each_child_once() {
    let namespace = Namespace::new("set-killed").await;
    let sets = Sets::of(&namespace);
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("releases-{nth}");
        let images: Vec<Image> = (0..6)
            .map(|minor| release(registry, &format!("v1.{minor}.0")))
            .collect();
        sets.apply(&name, notes(registry, json!({}))).await;
        // While the tags are read, before and after a push of the first, and of a later child.
        for (stage, matcher) in [
            (Stage::Before, Matcher::on(Op::TagList)),
            (Stage::Before, Matcher::on(Op::ManifestHead).nth(3)),
            (Stage::Before, Matcher::on(Op::ManifestPut)),
            (Stage::After, Matcher::on(Op::ManifestPut).nth(2)),
            (Stage::After, Matcher::on(Op::ManifestPut).nth(5)),
        ] {
            let mut hold = registry.hold(stage, matcher);
            let controller = Controller::start(&namespace).await;
            hold.reached().await.unwrap();
            controller.kill().await;
            hold.release();
            registry.calm();
        }
        let controller = Controller::start(&namespace).await;
        sets.ready(&name, "6/6").await;
        attached_once(registry, &images);
        assert_eq!(sets.children(&name).await.len(), 6);
        drop(controller);
    }
    sets.check_rules().await;
}

#[tokio::test]
async fn tags_that_are_pushed_while_the_controller_is_down_get_their_children() {
    let namespace = Namespace::new("set-down").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    let mut images = vec![release(&registry, "v1.0.0")];
    let controller = Controller::start(&namespace).await;
    sets.apply("releases", notes(&registry, json!({}))).await;
    sets.ready("releases", "1/1").await;
    drop(controller);
    images.extend((1..=10).map(|minor| release(&registry, &format!("v1.{minor}.0"))));
    let _controller = Controller::start(&namespace).await;
    sets.ready("releases", "11/11").await;
    attached_once(&registry, &images);
    sets.check_rules().await;
}

#[tokio::test]
async fn a_set_and_its_children_are_restored_without_status_and_with_an_owner_that_is_gone() {
    let namespace = Namespace::new("set-restored").await;
    let sets = Sets::of(&namespace);
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("releases-{nth}");
        let images = ["v1.0.0", "v1.1.0"].map(|tag| release(registry, tag));
        let controller = Controller::start(&namespace).await;
        sets.apply(&name, notes(registry, json!({}))).await;
        sets.ready(&name, "2/2").await;
        drop(controller);
        let set = sets.get(&name).await;
        let children = sets.children(&name).await;
        sets.delete(&name, DeleteParams::background()).await;
        for child in &children {
            namespace.delete(&child.name_any()).await;
        }
        // A backup tool creates the objects as they were, without status, and with the owner's old UID.
        let (api, params) = (namespace.attachments(), PostParams::default());
        for mut child in children.iter().cloned() {
            child.status = None;
            child.metadata.resource_version = None;
            child.metadata.uid = None;
            child.metadata.managed_fields = None;
            api.create(&params, &child).await.unwrap();
        }
        sets.apply(&name, serde_json::to_value(&set.spec).unwrap())
            .await;
        let restored = sets.get(&name).await;
        assert_ne!(restored.uid(), set.uid());
        let _controller = Controller::start(&namespace).await;
        sets.ready(&name, "2/2").await;
        for child in sets.children(&name).await {
            let owners = child.owner_references();
            assert_eq!(owners.len(), 1, "{owners:#?}");
            assert_eq!(owners[0].uid, restored.uid().unwrap());
        }
        attached_once(registry, &images);
    }
    sets.check_rules().await;
    namespace.check_rules().await;
}

#[tokio::test]
#[ignore = "needs kube-controller-manager"]
async fn the_children_go_with_their_set_and_a_namespace_that_is_deleted_does_not_hang() {
    let namespace = Namespace::new("set-deleted").await;
    let sets = Sets::of(&namespace);
    let controller = Controller::start(&namespace).await;
    let registries = scriptable().await;
    let tools = Tools::with(&[Tool::ControllerManager]).await.unwrap();
    let mut manager = ControllerManager::start(&tools, namespace.plane)
        .await
        .unwrap();
    let none_left = async |name: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !sets.children(name).await.is_empty() {
            assert!(Instant::now() < deadline, "children of {name} are left");
            sleep(POLL).await;
        }
    };
    for (nth, registry) in registries.iter().enumerate() {
        let images = ["v1.0.0", "v1.1.0"].map(|tag| release(registry, tag));
        for (policy, left) in [("Retain", 1), ("Delete", 0)] {
            let name = format!("{}-{nth}", policy.to_lowercase());
            let template = json!({
                "deletionPolicy": policy,
                "artifact": {"artifactType": format!("application/vnd.demo.{name}")},
            });
            sets.apply(&name, notes(registry, template)).await;
            sets.ready(&name, "2/2").await;
            let before: Vec<usize> = images
                .iter()
                .flat_map(manifests)
                .map(|it| listed(registry, it).len())
                .collect();
            sets.delete(&name, DeleteParams::background()).await;
            none_left(&name).await;
            let after: Vec<usize> = images
                .iter()
                .flat_map(manifests)
                .map(|it| listed(registry, it).len())
                .collect();
            let expected: Vec<usize> = before.iter().map(|count| count - 1 + left).collect();
            assert_eq!(after, expected, "{policy}");
        }
        // With --cascade=orphan the children stay, without an owner.
        let name = format!("orphaned-{nth}");
        sets.apply(&name, notes(registry, json!({"deletionPolicy": "Delete"})))
            .await;
        sets.ready(&name, "2/2").await;
        sets.delete(&name, DeleteParams::orphan()).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = sets.children(&name).await;
            assert_eq!(children.len(), 2);
            if children
                .iter()
                .all(|child| child.owner_references().is_empty())
            {
                break;
            }
            assert!(Instant::now() < deadline, "{children:#?}");
            sleep(POLL).await;
        }
        for child in sets.children(&name).await {
            namespace.request(&child.name_any(), "orphan").await;
            namespace.ready(&child.name_any()).await;
        }
        let last = format!("last-{nth}");
        sets.apply(&last, notes(registry, json!({"deletionPolicy": "Delete"})))
            .await;
        sets.ready(&last, "2/2").await;
    }
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(namespace.client.clone());
    api.delete(&namespace.name, &DeleteParams::default())
        .await
        .unwrap();
    let deadline = Instant::now() + 4 * PATIENCE;
    while let Some(object) = api.get_opt(&namespace.name).await.unwrap() {
        assert!(
            Instant::now() < deadline,
            "{:#?}\n{}",
            object.status,
            controller.log()
        );
        sleep(POLL).await;
    }
    manager.stop().await.unwrap();
}

#[tokio::test]
async fn a_set_is_not_reconciled_before_its_children_are_listed() {
    let namespace = Namespace::new("set-listed").await;
    let sets = Sets::of(&namespace);
    let registry = HostileRegistry::start().await.unwrap();
    release(&registry, "v1.0.0");
    let controller = Controller::start(&namespace).await;
    sets.apply("releases", notes(&registry, json!({}))).await;
    let before = sets.ready("releases", "1/1").await;
    controller.kill().await;

    // A set with a request is due at once. The operator reads sets before attachments, which it may not list yet.
    let request = json!({"metadata": {"annotations": {REQUESTED_AT: "down"}}});
    sets.patch("releases", request).await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "affix"}});
    namespace.apply_object(account).await;
    let may = async |attachments: &[&str]| {
        let group = "affix.dev";
        let rules = json!([
            {"apiGroups": [group], "resources": ["imageattachmentsets"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [group], "resources": ["imageattachments"], "verbs": attachments},
            {"apiGroups": [group], "resources": ["imageattachments/status", "imageattachmentsets/status"], "verbs": ["get", "patch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list", "watch"]},
        ]);
        namespace.apply_rbac(rules).await;
    };
    may(&["get", "watch", "create", "patch", "delete"]).await;
    let plane = &namespace.plane;
    let account = plane.service_account_kubeconfig(&namespace.name, "affix");
    let kubeconfig = account.await.unwrap();
    let env = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    registry.clear();
    let mut controller = Controller::start_in(&namespace, &[], &env).await;
    controller.says("watch of imageattachments failed").await;
    may(&["get", "list", "watch", "create", "patch", "delete"]).await;
    let set = sets
        .wait("releases", "done with the request", |set| {
            let status = set.status.as_ref().unwrap();
            status.last_handled_reconcile_at.as_deref() == Some("down")
        })
        .await;
    let after = set.status.unwrap();
    assert_eq!(
        (after.conditions, after.ready),
        (before.conditions, before.ready)
    );
}
