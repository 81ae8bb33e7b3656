//! The end of a resource: `deletionPolicy: Delete` takes along what the resource made and nobody else wants, and holds up nobody.

use std::time::Duration;

use affix::api::{ConditionType, ImageAttachment, Origin, PushAccess, Reason, SupersededState};
use affix_testbed::control_plane::ControllerManager;
use affix_testbed::hostile::{Account, Action, Fault, HostileRegistry, Matcher, Op, Reply, Stage};
use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::proxy::Proxy;
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{
    SIGNATURE, attached, attachment, host, listed, manifests, mark, note, push, registries,
    scriptable, with,
};
use crate::support::namespace::{Namespace, PATIENCE, is_ready, message, says};

const FINALIZER: &str = "affix.dev/finalizer";

/// The image's manifests that can be targets.
fn subjects(image: &Pushed) -> Vec<String> {
    let platforms = ["linux/amd64", "linux/arm64"]
        .map(|platform| image.digest_of(platform).unwrap().to_owned());
    std::iter::once(image.digest().to_owned())
        .chain(platforms)
        .collect()
}

/// The attachments on all of the image's manifests.
async fn all_attached(registry: &Registry, image: &Pushed) -> Vec<String> {
    let mut all = Vec::new();
    for subject in subjects(image) {
        all.extend(attached(registry, "team/app", &subject).await);
    }
    all
}

fn delete(spec: serde_json::Value) -> serde_json::Value {
    with(spec, json!({"deletionPolicy": "Delete"}))
}

#[tokio::test]
async fn what_the_resource_made_goes_with_it_and_what_others_made_stays() {
    let namespace = Namespace::new("deleted").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (retain, made) = (format!("retain-{nth}"), format!("made-{nth}"));
        namespace.apply(&retain, mark(&image.pinned())).await;
        namespace.ready(&retain).await;
        let foreign = all_attached(registry, &image).await;
        namespace.apply(&made, delete(note(&image.tagged()))).await;
        namespace.ready(&made).await;
        assert_eq!(namespace.get(&made).await.finalizers(), [FINALIZER]);
        assert!(namespace.get(&retain).await.finalizers().is_empty());
        assert_eq!(
            all_attached(registry, &image).await.len(),
            foreign.len() + 3
        );

        namespace.delete(&made).await;
        assert_eq!(all_attached(registry, &image).await, foreign);
        // Retain: what it made stays.
        namespace.delete(&retain).await;
        assert_eq!(all_attached(registry, &image).await, foreign);

        // What was there is adopted, and so is nobody's to remove.
        namespace
            .apply(&retain, delete(mark(&image.pinned())))
            .await;
        let adopted = namespace.ready(&retain).await;
        assert!(
            adopted
                .targets
                .iter()
                .filter(|row| row.attachment.is_some())
                .all(|row| row.origin == Some(Origin::Adopted))
        );
        namespace.delete(&retain).await;
        assert_eq!(all_attached(registry, &image).await, foreign);
    }
    drop(controller);
}

#[tokio::test]
async fn the_finalizer_is_there_before_the_first_push_and_goes_with_the_policy() {
    let namespace = Namespace::new("finalizer").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    let mut hold = registry.hold(Stage::Before, Matcher::writes());
    namespace.apply("app", delete(note(&reference))).await;
    hold.reached().await.unwrap();
    assert_eq!(namespace.get("app").await.finalizers(), [FINALIZER]);
    hold.release();
    namespace.ready("app").await;

    namespace
        .apply(
            "app",
            with(note(&reference), json!({"deletionPolicy": "Retain"})),
        )
        .await;
    namespace
        .wait("app", "without the finalizer", |object| {
            object.finalizers().is_empty()
        })
        .await;
    namespace.ready("app").await;
    namespace.delete("app").await;
    assert_eq!(
        registry.store().referrers("team/app", &image.digest).len(),
        1
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_deletion_that_waits_ends_once_the_policy_is_retain() {
    let namespace = Namespace::new("waits").await;
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("app-{nth}");
        let image = host(registry, "v1");
        let reference = registry.reference(&image.name());
        namespace.apply(&name, delete(note(&reference))).await;
        namespace.ready(&name).await;
        registry.fault(Matcher::writes(), Reply::error(503, "UNAVAILABLE", "later"));
        let api = namespace.attachments();
        api.delete(&name, &DeleteParams::default()).await.unwrap();
        // The deletion has failed once, so that it waits.
        let waits = |object: &ImageAttachment| {
            message(object).contains("cannot remove the attachments of this resource yet")
        };
        namespace.wait(&name, "waiting", waits).await;
        assert_eq!(namespace.get(&name).await.finalizers(), [FINALIZER]);
        let keep = json!({"spec": {"deletionPolicy": "Retain"}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&keep))
            .await
            .unwrap();
        namespace.gone(&name).await;
        assert_eq!(listed(registry, &image.digest).len(), 1);
    }
}

#[tokio::test]
async fn what_is_on_images_that_the_tag_has_left_goes_too() {
    let namespace = Namespace::new("left").await;
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("app-{nth}");
        let old = host(registry, "v1");
        namespace
            .apply(
                &name,
                delete(with(
                    note(&registry.reference("team/app:v1")),
                    json!({"interval": "1s"}),
                )),
            )
            .await;
        namespace.ready(&name).await;
        let new = registry
            .image("team/app", "v1")
            .seed("rebuilt")
            .platforms(["linux/amd64"])
            .push();
        let is_on = |object: &ImageAttachment| {
            is_ready(object)
                && object
                    .status
                    .as_ref()
                    .and_then(|status| status.image.as_ref())
                    .is_some_and(|seen| seen.digest == new.digest)
        };
        namespace.wait(&name, "on the new digest", is_on).await;
        assert_eq!(listed(registry, &old.digest).len(), 1);
        namespace.delete(&name).await;
        for subject in manifests(&old).into_iter().chain(manifests(&new)) {
            assert!(
                listed(registry, subject).is_empty(),
                "{}",
                registry.transcript()
            );
        }
    }
}

#[tokio::test]
async fn another_resource_of_the_namespace_that_wants_it_becomes_its_maker() {
    let namespace = Namespace::new("heir").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (first, heir) = (format!("first-{nth}"), format!("heir-{nth}"));
        namespace.apply(&first, delete(note(&image.tagged()))).await;
        let made = namespace.ready(&first).await;
        namespace.apply(&heir, delete(note(&image.pinned()))).await;
        let adopted = namespace.ready(&heir).await;
        assert!(
            adopted
                .targets
                .iter()
                .filter(|row| row.attachment.is_some())
                .all(|row| row.origin == Some(Origin::Adopted))
        );

        namespace.delete(&first).await;
        // Before the finalizer was released: there is nothing to wait for.
        let heirs = namespace.status(&heir).await;
        assert_eq!(heirs.targets, made.targets, "{heirs:#?}");
        assert_eq!(all_attached(registry, &image).await.len(), 3);
        namespace.request(&heir, "verified").await;
        assert_eq!(namespace.ready(&heir).await.targets, made.targets);
        namespace.delete(&heir).await;
        assert!(all_attached(registry, &image).await.is_empty());
    }
    drop(controller);
}

#[tokio::test]
async fn a_resource_that_is_given_a_new_name_keeps_what_it_made() {
    let namespace = Namespace::new("renamed").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        let (old, new) = (format!("old-{nth}"), format!("new-{nth}"));
        namespace.apply(&old, delete(note(&image.tagged()))).await;
        let before = namespace.ready(&old).await;
        // As GitOps tools do it: the new one is applied, and what is in Git no more is pruned at once. It is suspended, so that only
        // its spec can tell that it wants the same.
        namespace
            .apply(
                &new,
                delete(with(note(&image.tagged()), json!({"suspend": true}))),
            )
            .await;
        namespace.delete(&old).await;
        assert_eq!(all_attached(registry, &image).await.len(), 3);
        namespace.apply(&new, delete(note(&image.tagged()))).await;
        let after = namespace.ready(&new).await;
        assert_eq!(after.targets, before.targets);
        assert!(after.leftovers.is_empty(), "{after:#?}");
        namespace.delete(&new).await;
        assert!(all_attached(registry, &image).await.is_empty());
    }
    drop(controller);
}

#[tokio::test]
async fn what_a_resource_elsewhere_has_in_its_status_stays() {
    let (here, elsewhere) = (
        Namespace::new("here").await,
        Namespace::new("elsewhere").await,
    );
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    // Each has an operator of its own, which does not watch the other's namespace.
    let (_one, _other) = (
        Controller::start(&here).await,
        Controller::start(&elsewhere).await,
    );
    here.apply("app", delete(note(&reference))).await;
    here.ready("app").await;
    elsewhere.apply("app", note(&reference)).await;
    elsewhere.ready("app").await;

    // A changed spec keeps it too, and remembers it.
    let changed = json!({"artifact": {"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/note": "changed"}}});
    here.apply("app", delete(with(note(&reference), changed)))
        .await;
    let status = here.ready("app").await;
    assert_eq!(status.leftovers.len(), 3, "{status:#?}");
    assert!(
        status
            .leftovers
            .iter()
            .all(|left| left.reason.as_deref() == Some("StillInUse")),
        "{status:#?}"
    );
    assert_eq!(
        registry.store().referrers("team/app", &image.digest).len(),
        2
    );

    here.delete("app").await;
    let theirs = elsewhere.status("app").await;
    let left: Vec<String> = registry
        .store()
        .referrers("team/app", &image.digest)
        .into_iter()
        .map(|manifest| manifest.digest)
        .collect();
    assert_eq!(left, [attachment(&theirs.targets, &image.digest)]);
    let (_, text) = here.event("app", Reason::Removed).await;
    assert!(
        text.contains(&format!("other namespaces: {}/app", elsewhere.name)),
        "{text}"
    );
    here.check_rules().await;
}

#[tokio::test]
async fn t34_a_dry_run_of_another_namespace_keeps_no_attachment() {
    let (here, elsewhere) = (Namespace::new("t34").await, Namespace::new("t34-dry").await);
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let (_one, _other) = (
        Controller::start(&here).await,
        Controller::start(&elsewhere).await,
    );
    here.apply("app", delete(note(&reference))).await;
    here.ready("app").await;
    elsewhere
        .apply("app", with(note(&reference), json!({"dryRun": true})))
        .await;
    let lists = |object: &affix::api::ImageAttachment| {
        let targets = object.status.iter().flat_map(|status| &status.targets);
        targets.filter(|row| row.attachment.is_some()).count() == 3
    };
    elsewhere.wait("app", "the plan", lists).await;
    here.delete("app").await;
    assert!(listed(&registry, &image.digest).is_empty());
    here.check_rules().await;
}

#[tokio::test]
async fn t34_a_suspended_resource_of_another_namespace_keeps_no_attachment() {
    let (here, elsewhere) = (
        Namespace::new("t34").await,
        Namespace::new("t34-suspended").await,
    );
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let (_one, _other) = (
        Controller::start(&here).await,
        Controller::start(&elsewhere).await,
    );
    here.apply("app", delete(note(&reference))).await;
    here.ready("app").await;
    elsewhere.apply("app", note(&reference)).await;
    let adopted = elsewhere.ready("app").await;
    assert_eq!(adopted.push_access, Some(PushAccess::Accepted));
    elsewhere
        .apply("app", with(note(&reference), json!({"suspend": true})))
        .await;
    elsewhere.suspended("app").await;
    here.delete("app").await;
    assert!(listed(&registry, &image.digest).is_empty());
    here.check_rules().await;
}

#[tokio::test]
async fn t34_a_reader_of_another_namespace_keeps_no_attachment_and_a_writer_keeps_it() {
    const ALL: [Action; 3] = [Action::Pull, Action::Push, Action::Delete];
    let (here, elsewhere) = (
        Namespace::new("t34-own").await,
        Namespace::new("t34-other").await,
    );
    let registry = HostileRegistry::builder()
        .tokens([
            Account::new("owner", "o").allow("team/*", &ALL),
            Account::new("reader", "r").allow("team/*", &[Action::Pull]),
            Account::new("writer", "w").allow("team/*", &[Action::Pull, Action::Push]),
        ])
        .start()
        .await
        .unwrap();
    for (namespace, user) in [
        (&here, "owner"),
        (&elsewhere, "reader"),
        (&elsewhere, "writer"),
    ] {
        namespace
            .login(user, &registry.host(), user, &user[..1])
            .await;
    }
    let image = host(&registry, "v1");
    let by = |user: &str| {
        with(
            note(&registry.reference(&image.name())),
            json!({"secretRef": {"name": user}}),
        )
    };
    let (_one, _other) = (
        Controller::start(&here).await,
        Controller::start(&elsewhere).await,
    );
    for (user, access, kept) in [
        ("reader", PushAccess::Refused, 0),
        ("writer", PushAccess::Accepted, 3),
    ] {
        here.apply("app", delete(by("owner"))).await;
        let made = here.ready("app").await;
        assert_eq!(made.push_access, None, "a maker asks nothing: {made:#?}");
        elsewhere.apply(user, by(user)).await;
        let adopted = elsewhere.ready(user).await;
        assert_eq!(
            adopted.push_access,
            Some(access),
            "{}",
            registry.transcript()
        );
        here.delete("app").await;
        let left: usize = manifests(&image)
            .into_iter()
            .map(|subject| listed(&registry, subject).len())
            .sum();
        assert_eq!(left, kept, "{user}");
        elsewhere.delete(user).await;
    }
    let cancelled = registry.count(Op::UploadCancel);
    assert_eq!(cancelled, 1, "{}", registry.transcript());
    let texts = here.events("app").await;
    let named = format!("other namespaces: {}/writer", elsewhere.name);
    assert!(
        texts.iter().any(|(_, _, text)| text.contains(&named)),
        "{texts:#?}"
    );
    here.check_rules().await;
    elsewhere.check_rules().await;
}

#[tokio::test]
async fn t34_t24_a_mirror_behind_a_tenants_proxy_keeps_no_attachment() {
    let (here, elsewhere) = (
        Namespace::new("t34-true").await,
        Namespace::new("t34-mirror").await,
    );
    let (registry, mirror) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    let image = host(&registry, "v1");
    assert_eq!(host(&mirror, "v1").digest, image.digest);
    let reference = registry.reference(&image.name());
    let (_one, _other) = (
        Controller::start(&here).await,
        Controller::start(&elsewhere).await,
    );
    here.apply("app", delete(note(&reference))).await;
    here.ready("app").await;
    // The tenant copies the attachments to a mirror of its own, which accepts every push.
    for subject in manifests(&image) {
        for made in registry.store().referrers("team/app", subject) {
            let store = mirror.store();
            store.put_manifest("team/app", None, &made.media_type, made.bytes);
        }
    }
    let proxy = Proxy::to(&mirror.host(), "user", "pass").await.unwrap();
    elsewhere
        .secret(
            "proxy",
            json!({"address": proxy.url(), "username": "user", "password": "pass"}),
        )
        .await;
    let through = json!({"proxySecretRef": {"name": "proxy"}});
    elsewhere
        .apply("app", with(note(&reference), through))
        .await;
    let adopted = elsewhere.ready("app").await;
    assert_eq!(
        attachment(&adopted.targets, &image.digest),
        listed(&registry, &image.digest)[0],
        "the mirror's attachment is the registry's"
    );
    here.delete("app").await;
    for subject in manifests(&image) {
        assert!(listed(&registry, subject).is_empty(), "{subject}");
    }
    here.check_rules().await;
}

#[tokio::test]
async fn a_changed_spec_leaves_to_another_resource_what_that_one_wants() {
    let namespace = Namespace::new("left-to").await;
    let _controller = Controller::start(&namespace).await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let (first, second) = (format!("first-{nth}"), format!("second-{nth}"));
        let image = host(registry, "v1");
        let reference = registry.reference(&image.name());
        namespace.apply(&first, note(&reference)).await;
        let made = namespace.ready(&first).await;
        namespace.apply(&second, note(&reference)).await;
        namespace.ready(&second).await;
        let changed = json!({"artifact": {"artifactType": SIGNATURE, "annotations": {"demo.affix.dev/note": "changed"}}});
        namespace
            .apply(&first, with(note(&reference), changed))
            .await;
        let changed = namespace.ready(&first).await;
        assert!(changed.leftovers.is_empty(), "{changed:#?}");
        assert_eq!(namespace.status(&second).await.targets, made.targets);
        assert_eq!(listed(registry, &image.digest).len(), 2);
        assert!(
            registry
                .requests_that(&Matcher::on(Op::ManifestDelete))
                .is_empty(),
            "{}",
            registry.transcript()
        );
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn suspended_it_goes_and_what_it_made_stays() {
    let namespace = Namespace::new("paused").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let reference = registry.reference(&image.name());
    let _controller = Controller::start(&namespace).await;
    namespace.apply("app", delete(note(&reference))).await;
    namespace.ready("app").await;
    namespace
        .apply(
            "app",
            delete(with(note(&reference), json!({"suspend": true}))),
        )
        .await;
    namespace.suspended("app").await;
    namespace.delete("app").await;
    let (kind, told) = namespace.event("app", Reason::RemovalAbandoned).await;
    assert!(
        kind == "Normal" && told.contains("spec.suspend"),
        "{kind} {told}"
    );
    assert_eq!(
        registry.store().referrers("team/app", &image.digest).len(),
        1
    );
}

#[tokio::test]
async fn a_deletion_ends_in_time_although_the_registry_or_the_secret_is_gone() {
    let namespace = Namespace::new("given-up").await;
    let registries = scriptable().await;
    let _controller = Controller::start_with(&namespace, &["--deletion-timeout", "8s"]).await;
    let mut names = Vec::new();
    for (nth, registry) in registries.iter().enumerate() {
        let image = host(registry, "v1");
        let reference = registry.reference(&image.name());
        let (gone, login) = (format!("registry-{nth}"), format!("secret-{nth}"));
        namespace
            .login(&login, &registry.host(), "alice", "secret")
            .await;
        namespace.apply(&gone, delete(note(&reference))).await;
        let secured = with(
            mark(&format!("{reference}@{}", image.digest)),
            json!({"secretRef": {"name": login}}),
        );
        namespace.apply(&login, delete(secured)).await;
        namespace.ready(&gone).await;
        namespace.ready(&login).await;
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(namespace.client.clone(), &namespace.name);
        secrets
            .delete(&login, &DeleteParams::default())
            .await
            .unwrap();
        registry.fault(Matcher::any(), Fault::status(503));
        names.extend([(gone, "RegistryUnavailable"), (login, "SecretNotFound")]);
    }
    for (name, _) in &names {
        namespace
            .attachments()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        let held = namespace
            .attachments()
            .get_opt(name)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("{name} did not wait"));
        assert_eq!(held.finalizers(), [FINALIZER]);
    }
    for (name, said) in &names {
        namespace.gone(name).await;
        let (kind, told) = namespace.event(name, Reason::RemovalAbandoned).await;
        assert!(
            kind == "Warning"
                && told.contains(said)
                && told.contains("removal abandoned after 8 s"),
            "{kind} {told}"
        );
    }
}

#[tokio::test]
async fn a_removal_that_fails_is_tried_again_and_status_says_why_it_waits() {
    let namespace = Namespace::new("again").await;
    for (nth, registry) in scriptable().await.iter().enumerate() {
        let name = format!("app-{nth}");
        let image = host(registry, "v1");
        let controller = Controller::start(&namespace).await;
        namespace
            .apply(&name, delete(note(&registry.reference(&image.name()))))
            .await;
        namespace.ready(&name).await;
        let fault = registry.fault(Matcher::writes(), Fault::status(403));
        namespace
            .attachments()
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
        let is_waiting = |object: &ImageAttachment| {
            object.status.as_ref().is_some_and(|status| {
                says(status, ConditionType::Ready)
                    .contains("cannot remove the attachments of this resource yet")
            })
        };
        let waiting = namespace.wait(&name, "refused", is_waiting).await;
        assert_eq!(
            crate::support::namespace::ready(&waiting).map(|(status, _)| status),
            Some("False")
        );
        // The operator ends in the middle, and the next one goes on.
        controller.kill().await;
        fault.lift();
        let _controller = Controller::start(&namespace).await;
        namespace.gone(&name).await;
        assert!(
            listed(registry, &image.digest).is_empty()
                && registry
                    .store()
                    .referrers("team/app", &image.digest)
                    .is_empty()
        );
    }
}

#[tokio::test]
#[ignore = "needs kube-controller-manager, which takes minutes to build"]
async fn a_namespace_that_ends_ends_with_all_that_is_in_it() {
    let namespace = Namespace::new("ending").await;
    let registries = registries(&namespace.tools).await;
    let gone = HostileRegistry::start().await.unwrap();
    let unreachable = host(&gone, "v1");
    let controller = Controller::start_with(&namespace, &["--deletion-timeout", "5s"]).await;
    let mut images = Vec::new();
    for (nth, (registry, _)) in registries.iter().enumerate() {
        let image = push(registry, "team/app", "v1").await;
        namespace
            .apply(&format!("app-{nth}"), delete(note(&image.tagged())))
            .await;
        namespace
            .apply(&format!("twin-{nth}"), delete(note(&image.tagged())))
            .await;
        images.push(image);
    }
    namespace
        .login("login", &gone.host(), "alice", "secret")
        .await;
    namespace
        .apply(
            "unreachable",
            delete(note(&gone.reference(&unreachable.name()))),
        )
        .await;
    let secured = with(
        mark(&format!(
            "{}@{}",
            gone.reference(&unreachable.name()),
            unreachable.digest
        )),
        json!({"secretRef": {"name": "login"}}),
    );
    namespace.apply("secured", delete(secured)).await;
    for name in [
        "app-0",
        "twin-0",
        "app-1",
        "twin-1",
        "unreachable",
        "secured",
    ] {
        namespace.ready(name).await;
    }
    gone.fault(Matcher::any(), Fault::status(503));

    // The real controller of namespaces deletes what is in one in an order of its own: the Secret goes at once.
    let mut manager = ControllerManager::start(
        &Tools::with(&[Tool::ControllerManager]).await.unwrap(),
        namespace.plane,
    )
    .await
    .unwrap();
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
        sleep(Duration::from_millis(100)).await;
    }
    for ((registry, _), image) in registries.iter().zip(&images) {
        assert!(
            all_attached(registry, image).await.is_empty(),
            "{}",
            controller.log()
        );
    }
    manager.stop().await.unwrap();
}

#[tokio::test]
async fn marks_of_moves_go_with_the_resource() {
    let namespace = Namespace::new("marks").await;
    let controller = Controller::start(&namespace).await;
    for (nth, (registry, _)) in registries(&namespace.tools).await.iter().enumerate() {
        let old = push(registry, "team/app", "v1").await;
        let name = format!("app-{nth}");
        let spec = json!({
            "image": old.tagged(), "insecure": true, "interval": "1s", "deletionPolicy": "Delete",
            "endOfLife": {"whenSuperseded": {"gracePeriod": "720h", "settle": "0s"}},
        });
        namespace.apply(&name, spec).await;
        namespace.ready(&name).await;
        let new = Index::new().image(Image::new("linux/amd64", "r1r1"));
        new.push(&registry.raw().unwrap(), "team/app", "v1")
            .await
            .unwrap();
        namespace
            .wait(&name, "done with the move", |object| {
                is_ready(object)
                    && object.status.as_ref().is_some_and(|status| {
                        status
                            .superseded
                            .iter()
                            .any(|left| left.state == SupersededState::Attached)
                    })
            })
            .await;
        assert_eq!(all_attached(registry, &old).await.len(), 3);
        namespace.delete(&name).await;
        assert!(all_attached(registry, &old).await.is_empty());
    }
    drop(controller);
}
