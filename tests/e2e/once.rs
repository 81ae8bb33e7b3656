//! Exactly one attachment a target, however often and however rudely the work is begun.

use affix::api::Origin;
use affix_testbed::hostile::{HostileRegistry, Image, Matcher, Quirks, Stage};
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use futures::future::join_all;
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{self, SIGNATURE, note, push, registries, with};
use crate::support::namespace::{Namespace, is_ready};
use crate::support::readers;

#[tokio::test]
async fn applying_twice_recreating_and_restarting_leave_one_attachment_per_target() {
    let namespace = Namespace::new("once").await;
    let registries = registries(&namespace.tools).await;
    let mut controller = Controller::start(&namespace).await;
    for (registry, mode) in &registries {
        let image = push(registry, "team/app", "v1").await;
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        let name = format!("once-{}", mode.to_lowercase());
        namespace.apply(&name, note(&image.tagged())).await;
        let first = namespace.ready(&name).await;

        // The same again, and then something that makes a new generation but no other content.
        namespace.apply(&name, note(&image.tagged())).await;
        namespace
            .apply(
                &name,
                with(note(&image.tagged()), json!({"interval": "7m"})),
            )
            .await;
        assert_eq!(
            namespace.ready(&name).await.targets,
            first.targets,
            "{mode}"
        );
        namespace.request(&name, "one").await;

        let (ended, ..) = controller.terminate().await;
        assert!(ended.success());
        controller = Controller::start(&namespace).await;
        namespace.request(&name, "two").await;
        let status = namespace.ready(&name).await;
        assert_eq!(status.targets, first.targets, "{mode}");
        readers::see_what_status_names(&peer, &image, &status, SIGNATURE).await;

        // Who made what is lost with the status, so what is there is adopted.
        namespace.delete(&name).await;
        namespace.apply(&name, note(&image.tagged())).await;
        let anew = namespace.ready(&name).await;
        assert!(
            anew.targets
                .iter()
                .filter(|row| row.attachment.is_some())
                .all(|row| row.origin == Some(Origin::Adopted))
        );
        readers::see_what_status_names(&peer, &image, &anew, SIGNATURE).await;
        let attachments = |status: &affix::api::ImageAttachmentStatus| -> Vec<Option<String>> {
            status
                .targets
                .iter()
                .map(|row| row.attachment.clone())
                .collect()
        };
        assert_eq!(attachments(&anew), attachments(&first), "{mode}");
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_registry_that_lists_wrong_types_gets_one_attachment_per_target() {
    let namespace = Namespace::new("once-untyped").await;
    let registry = Registry::liar(&namespace.tools).start().await.unwrap();
    let image = push(&registry, "team/app", "v1").await;
    let controller = Controller::start(&namespace).await;
    namespace.apply("untyped", note(&image.tagged())).await;
    let first = namespace.ready("untyped").await;
    let (ended, ..) = controller.terminate().await;
    assert!(ended.success());
    let _controller = Controller::start(&namespace).await;
    namespace.request("untyped", "one").await;
    assert_eq!(namespace.ready("untyped").await.targets, first.targets);
    namespace.delete("untyped").await;
    namespace.apply("untyped", note(&image.tagged())).await;
    for row in namespace
        .ready("untyped")
        .await
        .targets
        .iter()
        .filter(|row| row.attachment.is_some())
    {
        assert_eq!(row.origin, Some(Origin::Adopted), "{row:#?}");
        assert_eq!(
            images::attached(&registry, "team/app", &row.digest).await,
            [row.attachment.clone().unwrap()]
        );
    }
}

/// Starts a pass, kills the operator when the `nth` request is at `stage`, lets another one finish, and counts.
async fn kill_at(namespace: &Namespace, quirks: &Quirks, stage: Stage, nth: u64) {
    let registry = HostileRegistry::builder()
        .quirks(quirks.clone())
        .start()
        .await
        .unwrap();
    let image = images::host(&registry, "v1");
    let mut hold = registry.hold(stage, Matcher::any().nth(nth));
    let name = format!("kill-{stage:?}-{nth}").to_lowercase();
    let labels = format!("shard={name}");
    let shard = ["--watch-label-selector", &*labels];
    let killed = Controller::start_with(namespace, &shard).await;
    namespace
        .apply_object(json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "labels": {"shard": name}},
            "spec": note(&registry.reference(&image.name())),
        }))
        .await;
    // On a fallback tag the number of reads is left to chance: a pass that ended with fewer has nothing to be killed at.
    let at = tokio::select! {
        reached = hold.reached() => reached.unwrap_or_else(|error| panic!("{name}: {error}:\n{}", registry.transcript())),
        _ = namespace.ready(&name) => return assert_one_each(&registry, &image, quirks, &format!("{name}, which ended before")),
    };
    killed.kill().await;
    // The request that was under way is carried out late, as a network can do it.
    hold.release();
    let _second = Controller::start_with(namespace, &shard).await;
    namespace.ready(&name).await;
    assert_one_each(
        &registry,
        &image,
        quirks,
        &format!("{name}, at {} {}", at.method, at.target()),
    );
}

fn assert_one_each(registry: &HostileRegistry, image: &Image, quirks: &Quirks, what: &str) {
    let store = registry.store();
    for subject in
        std::iter::once(&image.digest).chain(image.children.iter().map(|child| &child.digest))
    {
        let attached = store.referrers(&image.repository, subject);
        assert_eq!(
            attached.len(),
            1,
            "{what}: {subject} has {attached:#?}\n{}",
            registry.transcript()
        );
        if quirks.referrers != Quirks::default().referrers {
            let listed = store.fallback_entries(&image.repository, subject);
            let digests: Vec<_> = listed
                .iter()
                .map(|entry| entry["digest"].as_str().unwrap())
                .collect();
            assert_eq!(
                digests,
                [&*attached[0].digest],
                "{what}: the fallback tag of {subject}\n{}",
                registry.transcript()
            );
        }
    }
}

/// Kills at every request of a first pass, a few at a time.
async fn kill_everywhere(about: &str, quirks: Quirks) {
    let namespace = Namespace::new(about).await;
    let registry = HostileRegistry::builder()
        .quirks(quirks.clone())
        .start()
        .await
        .unwrap();
    let image = images::host(&registry, "v1");
    let whole = Controller::start_with(&namespace, &["--watch-label-selector", "!shard"]).await;
    namespace
        .apply("whole", note(&registry.reference(&image.name())))
        .await;
    namespace.ready("whole").await;
    drop(whole);
    assert_one_each(&registry, &image, &quirks, "without a kill");
    let requests = u64::try_from(registry.requests().len()).unwrap();
    assert!(
        requests >= 9,
        "a pass with so few requests is none:\n{}",
        registry.transcript()
    );

    let writes: Vec<bool> = registry
        .requests()
        .iter()
        .map(|request| request.op.is_write())
        .collect();
    let before = (1..=requests).map(|nth| (Stage::Before, nth));
    // After a read nothing has changed, so that moment is the one before the next request.
    let after = (1..=requests)
        .filter(|nth| writes[usize::try_from(*nth).unwrap() - 1])
        .map(|nth| (Stage::After, nth));
    let moments: Vec<_> = before.chain(after).collect();
    for some in moments.chunks(6) {
        join_all(
            some.iter()
                .map(|(stage, nth)| kill_at(&namespace, &quirks, *stage, *nth)),
        )
        .await;
    }
    assert!(
        namespace
            .attachments()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items
            .iter()
            .all(is_ready)
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_kill_at_any_request_leaves_one_attachment_per_target_with_the_api() {
    kill_everywhere("kill-api", Quirks::default()).await;
}

#[tokio::test]
async fn a_kill_at_any_request_leaves_one_attachment_per_target_on_a_tag() {
    kill_everywhere("kill-tag", Quirks::distribution()).await;
}
