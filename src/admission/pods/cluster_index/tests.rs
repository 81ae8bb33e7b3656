#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::namespaces::{END_OF_LIFE, MAX_READS};
use super::*;
use crate::admission::pods::workload::Workload;

fn digest() -> Digest {
    Digest::sha256(b"index")
}

fn index() -> ClusterIndex {
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let types = vec![
        "application/vnd.microsoft.artifact.lifecycle"
            .parse()
            .unwrap(),
    ];
    ClusterIndex::new(
        Client::try_from(nowhere).unwrap(),
        types,
        vec!["trusted".to_owned()],
        vec![None],
    )
}

/// Returns a resource whose image has its mark, modified by `change`.
fn attachment(
    namespace: &str,
    name: &str,
    date: &str,
    change: impl Fn(&mut Value),
) -> ListedAttachment {
    let digest = digest().to_string();
    let reference = format!("registry.example.com/team/app@{digest}");
    let mut object = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name, "namespace": namespace, "generation": 2},
        "spec": {"image": reference, "endOfLife": {"date": date}},
        "status": {
            "observedGeneration": 2, "image": {"reference": reference, "digest": digest, "mediaType": "a/b"},
            "targets": [{"kind": "Index", "digest": digest, "state": "Attached"}]
        }
    });
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

/// Returns whether the index is conclusive for a pod of `namespace` without node constraints.
fn conclusive(index: &ClusterIndex, namespace: &str) -> bool {
    let image = format!("registry.example.com/team/app@{}", digest())
        .parse()
        .unwrap();
    let pod = serde_json::value::to_raw_value(&json!({"spec": {}})).unwrap();
    let now = "2026-01-01T00:00:00Z"
        .parse::<Timestamp>()
        .unwrap()
        .as_duration();
    index
        .reports(&image, &digest(), namespace)
        .conclusive(&Workload::read("Pod", &pod).unwrap().nodes, now)
        .is_some()
}

#[tokio::test]
async fn trusted_namespaces_count_and_the_own_namespace_only_for_passed_dates() {
    for (by, date, expected) in [
        ("trusted", "2025-03-20", [true, true]),
        ("trusted", "2030-03-20", [true, true]),
        ("own", "2025-03-20", [true, false]),
        ("own", "2030-03-20", [false, false]),
    ] {
        let index = index();
        index
            .attachments
            .on_event(Event::Apply(attachment(by, "mark", date, |_| {})));
        assert_eq!(
            [conclusive(&index, "own"), conclusive(&index, "other")],
            expected,
            "{by} {date}"
        );
    }
}

#[tokio::test]
async fn t36_a_namespace_has_a_share_of_the_index_and_trusted_ones_have_what_they_need() {
    let index = index();
    let many = |namespace: &str, name: &str| {
        attachment(namespace, name, "2025-03-20", |object| {
            let rows = (0..100).map(|nth| {
                let digest = Digest::sha256(name.as_bytes()).to_string();
                json!({"kind": "Platform", "platform": format!("linux/a{nth}"), "digest": digest, "state": "Attached"})
            });
            object["status"]["targets"]
                .as_array_mut()
                .unwrap()
                .extend(rows);
        })
    };
    for nth in 0..100 {
        let event = Event::Apply(many("greedy", &nth.to_string()));
        index.attachments.on_event(event);
    }
    let late = |namespace: &str| Event::Apply(attachment(namespace, "late", "2025-03-20", |_| {}));
    index.attachments.on_event(late("other"));
    assert!(conclusive(&index, "greedy") && conclusive(&index, "other"));
    // 99 resources with 101 images and platforms are below 10,000, and the hundredth is not indexed.
    for nth in 0..99 {
        let gone = many("greedy", &nth.to_string());
        index.attachments.on_event(Event::Delete(gone));
    }
    assert!(!conclusive(&index, "greedy"));
    index.attachments.on_event(late("greedy"));
    assert!(conclusive(&index, "greedy"));
}

#[tokio::test]
async fn a_stale_status_or_one_of_another_image_or_type_is_not_indexed() {
    for (changed, change) in [
        ("generation", json!(3)),
        ("image", json!("registry.example.com/team/other:v1")),
        ("type", json!("application/vnd.other")),
        ("state", json!("Failed")),
    ] {
        let index = index();
        index.attachments.on_event(Event::Apply(attachment(
            "trusted",
            "mark",
            "2025-03-20",
            |object| {
                let pointer = match changed {
                    "generation" => "/metadata/generation",
                    "image" => "/spec/image",
                    "state" => "/status/targets/0/state",
                    _ => {
                        object
                            .pointer_mut("/spec/endOfLife")
                            .unwrap()
                            .as_object_mut()
                            .unwrap()
                            .insert("artifactType".to_owned(), change.clone());
                        return;
                    }
                };
                *object.pointer_mut(pointer).unwrap() = change.clone();
            },
        )));
        assert!(!conclusive(&index, "own"), "{changed}");
    }
}

#[tokio::test]
async fn a_relist_keeps_entries_until_it_is_done_and_then_drops_unlisted_ones() {
    let index = index();
    let mark = |name| attachment("trusted", name, "2025-03-20", |_| {});
    let label = |name: &str| {
        let object = json!({"metadata": {"name": name, "labels": {END_OF_LIFE: "enforce"}}});
        serde_json::from_value::<PartialObjectMeta<Namespace>>(object).unwrap()
    };
    let known = |name: &str| index.namespaces.cached(name).is_some();
    for event in [
        Event::Init,
        Event::InitApply(mark("first")),
        Event::InitDone,
        Event::Init,
    ] {
        index.attachments.on_event(event);
    }
    for event in [
        Event::Init,
        Event::InitApply(label("first")),
        Event::InitDone,
        Event::Init,
    ] {
        index.namespaces.on_event(event);
    }
    assert!(conclusive(&index, "own") && known("first"));
    index.attachments.on_event(Event::InitDone);
    index.namespaces.on_event(Event::InitDone);
    assert!(!conclusive(&index, "own") && !known("first"));
    for event in [
        Event::Init,
        Event::InitApply(mark("second")),
        Event::InitDone,
        Event::Apply(mark("third")),
        Event::Delete(mark("third")),
    ] {
        index.attachments.on_event(event);
    }
    assert!(conclusive(&index, "own"));
    index.attachments.on_event(Event::Delete(mark("second")));
    assert!(!conclusive(&index, "own"));
}

#[test]
fn concurrent_events_and_queries_do_not_deadlock() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let index = Arc::new(runtime.block_on(async { index() }));
    let (done, ended) = std::sync::mpsc::channel();
    let events = (Arc::clone(&index), done.clone());
    std::thread::spawn(move || {
        let (index, done) = events;
        let mark = attachment("trusted", "mark", "2025-03-20", |_| {});
        for _ in 0..2_000 {
            index.attachments.on_event(Event::Apply(mark.clone()));
        }
        done.send("events")
    });
    std::thread::spawn(move || {
        for _ in 0..20_000 {
            conclusive(&index, "own");
        }
        done.send("queries")
    });
    for _ in 0..2 {
        assert!(
            ended.recv_timeout(Duration::from_mins(2)).is_ok(),
            "events and queries deadlock"
        );
    }
}

/// Returns an index whose API server accepts connections and never answers.
async fn index_with_silent_server() -> (ClusterIndex, tokio::net::TcpListener) {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = kube::Config::new(
        format!("http://{}", silent.local_addr().unwrap())
            .parse()
            .unwrap(),
    );
    (
        ClusterIndex::new(
            Client::try_from(config).unwrap(),
            Vec::new(),
            Vec::new(),
            vec![None],
        ),
        silent,
    )
}

#[tokio::test]
async fn a_cancelled_wait_for_a_read_permit_leaves_no_task_behind() {
    let (index, _silent) = index_with_silent_server().await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let permits = Arc::clone(&index.namespaces.read_permits)
        .try_acquire_many_owned(u32::try_from(MAX_READS).unwrap())
        .unwrap();
    let before = tasks();
    for nth in 0..1000 {
        assert_eq!(index.policy(&format!("made-up-{nth}")).now_or_never(), None);
    }
    assert_eq!(
        (tasks(), index.namespaces.read_permits.available_permits()),
        (before, 0)
    );
    drop(permits);
    assert_eq!(index.namespaces.read_permits.available_permits(), MAX_READS);
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_server_holds_no_read_permit_forever() {
    let (index, _silent) = index_with_silent_server().await;
    let names: Vec<String> = (0..3 * MAX_READS).map(|nth| format!("new-{nth}")).collect();
    let asked = futures::future::join_all(names.iter().map(|name| index.policy(name)));
    let asked = timeout(Duration::from_hours(1), asked).await.unwrap();
    assert!(asked.iter().all(Option::is_none), "{asked:?}");
}

#[tokio::test]
async fn a_complete_list_of_one_namespace_removes_no_resource_of_another() {
    let index = index();
    let known = || ["a", "b"].map(|namespace| conclusive(&index, namespace));
    for namespace in ["a", "b"] {
        let mark = attachment(namespace, "mark", "2025-03-20", |_| {});
        for event in [Event::Init, Event::InitApply(mark), Event::InitDone] {
            index.attachments.on_event_in(Some(namespace), event);
        }
    }
    assert_eq!(known(), [true, true]);
    for event in [Event::Init, Event::InitDone] {
        index.attachments.on_event_in(Some("b"), event);
    }
    assert_eq!(known(), [true, false]);
}
