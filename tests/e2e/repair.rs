//! What was taken away from the registry is put back.

use affix::api::Reason;
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use serde_json::json;

use crate::support::controller::Controller;
use crate::support::images::{LIFECYCLE, SIGNATURE, attachment, mark, note, push, registries};
use crate::support::namespace::Namespace;
use crate::support::readers;

#[tokio::test]
async fn a_deleted_attachment_is_back_after_a_request_and_an_event_says_so() {
    let namespace = Namespace::new("restored").await;
    let registries = registries(&namespace.tools).await;
    let _controller = Controller::start(&namespace).await;
    for (registry, mode) in &registries {
        let image = push(registry, "team/app", "v1").await;
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        let name = format!("restored-{}", mode.to_lowercase());
        namespace.apply(&name, note(&image.tagged())).await;
        let before = namespace.ready(&name).await;

        let amd64 = image.digest_of("linux/amd64").unwrap();
        let lost = attachment(&before.targets, amd64);
        registry
            .raw()
            .unwrap()
            .delete_manifest("team/app", lost)
            .await
            .unwrap()
            .ok()
            .unwrap();
        if *mode == "TagSchema" {
            // The tag now lists what is gone: others cannot add to it any more.
            let args = [
                "attach",
                "--artifact-type",
                "a/b",
                "--annotation",
                "k=v",
                &image.at(amd64),
            ];
            let refusal = peer.oras(args).await.unwrap().failure().unwrap();
            assert!(refusal.to_lowercase().contains("unknown"), "{refusal}");
        }
        namespace.request(&name, "look").await;
        let after = namespace.ready(&name).await;
        assert_eq!(
            after.targets, before.targets,
            "{mode}: what comes back is what was there"
        );
        readers::see_what_status_names(&peer, &image, &after, SIGNATURE).await;
        let (kind, told) = namespace.event(&name, Reason::Restored).await;
        assert!(
            kind == "Warning" && told.contains(lost) && told.contains(amd64),
            "{kind} {told}"
        );
        // And others can write again.
        let args = [
            "attach",
            "--artifact-type",
            "a/b",
            "--annotation",
            "k=v",
            &image.at(amd64),
        ];
        peer.oras(args).await.unwrap().stdout().unwrap();
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn a_fallback_tag_that_lists_what_is_gone_of_others_is_repaired_when_it_is_written() {
    let namespace = Namespace::new("dangling").await;
    let registry = Registry::distribution(&namespace.tools)
        .delete_enabled(true)
        .start()
        .await
        .unwrap();
    let image = push(&registry, "team/app", "v1").await;
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    let raw = registry.raw().unwrap();
    for word in ["gone", "stays"] {
        let annotation = format!("k={word}");
        peer.oras([
            "attach",
            "--artifact-type",
            "foreign/type",
            "--annotation",
            &annotation,
            &image.pinned(),
        ])
        .await
        .unwrap()
        .stdout()
        .unwrap();
    }
    let listed = readers::oras(&peer, &image, image.digest(), "foreign/type").await;
    let (gone, stays) = listed
        .into_iter()
        .partition::<Vec<_>, _>(|entry| entry.annotations["k"] == "gone");
    raw.delete_manifest("team/app", &gone[0].digest)
        .await
        .unwrap()
        .ok()
        .unwrap();

    let _controller = Controller::start(&namespace).await;
    namespace.apply("mark", mark(&image.pinned())).await;
    let status = namespace.ready("mark").await;
    let (kind, told) = namespace.event("mark", Reason::DanglingEntryDropped).await;
    assert!(
        kind == "Warning" && told.contains(&gone[0].digest),
        "{kind} {told}"
    );
    let tag = raw
        .manifest("team/app", &image.digest().replace(':', "-"))
        .await
        .unwrap()
        .json()
        .unwrap();
    let entries: Vec<_> = tag["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].clone())
        .collect();
    assert_eq!(
        entries,
        [
            json!(stays[0].digest),
            json!(attachment(&status.targets, image.digest()))
        ]
    );
    readers::see_what_status_names(&peer, &image, &status, LIFECYCLE).await;
    namespace.check_rules().await;
}
