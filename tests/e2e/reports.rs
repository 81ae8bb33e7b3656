//! The reports that the webhook writes into the cluster.

use std::time::Duration;

use affix_testbed::certificates::Authority;
use affix_testbed::hostile::{HostileRegistry, Image, Op};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{END_OF_LIFE, LIFECYCLE, host, mark};
use crate::support::namespace::{Namespace, PATIENCE};
use crate::support::pods::{container, delete, run};
use crate::support::reports::define;

/// Both formats: the flag, and the resource for kubectl.
const FORMATS: [(&str, &str); 2] = [
    ("openreports", "reports.openreports.io"),
    ("wgpolicyk8s", "policyreports.wgpolicyk8s.io"),
];

/// Starts a webhook that writes the reports of the namespace.
async fn reporter(
    namespace: &Namespace,
    registry: &HostileRegistry,
    format: &str,
    flags: &[&str],
) -> (Controller, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let days = Duration::from_hours(24 * 90);
    let authority = Authority::new().unwrap();
    authority
        .server_named(folder.path(), &["127.0.0.1"], days)
        .unwrap();
    let (types, hosts) = (format!("{LIFECYCLE}={END_OF_LIFE}"), registry.host());
    let own = [
        "--allow-loopback",
        "--namespace",
        &namespace.name,
        "--watch-namespaces",
        &namespace.name,
        "--lifecycle-type",
        &types,
        "--insecure-registries",
        &hosts,
        "--self-check-namespace",
        "",
        "--reports",
        format,
        "--reports-interval",
        "200ms",
    ];
    let all = [&own[..], flags].concat();
    let (webhook, _) = Controller::start_webhook_with(namespace, folder.path(), &all).await;
    (webhook, folder)
}

/// The reports of a namespace.
async fn reports(namespace: &Namespace, resource: &str) -> Vec<Value> {
    let get = [
        "get",
        resource,
        "--namespace",
        &namespace.name,
        "-o",
        "json",
    ];
    let mut list = namespace.plane.kubectl(get).await.unwrap().json().unwrap();
    match list["items"].take() {
        Value::Array(items) => items,
        other => panic!("{other}"),
    }
}

/// Waits until the reports of a namespace are `right`.
async fn until(
    namespace: &Namespace,
    resource: &str,
    right: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = reports(namespace, resource).await;
        if right(&found) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether there is one report with these counts of failures and passes.
fn has(fail: u64, pass: u64) -> impl Fn(&[Value]) -> bool {
    move |found| {
        found.len() == 1
            && found[0]["summary"]["fail"] == fail
            && found[0]["summary"]["pass"] == pass
    }
}

async fn run_image(namespace: &Namespace, name: &str, registry: &HostileRegistry, image: &Image) {
    let (tag, digest) = (
        registry.reference(&image.name()),
        registry.reference(&image.pinned()),
    );
    run(namespace, name, "nowhere", container(&tag, &digest)).await;
}

/// Waits until the metric of the namespace and a state has this value.
async fn counts(webhook: &Controller, namespace: &Namespace, state: &str, count: usize) {
    let line = format!(
        "affix_end_of_life_images{{namespace=\"{}\",state=\"{state}\"}} {count}\n",
        namespace.name
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metrics = webhook.metrics().await;
        if metrics.contains(&line) {
            return;
        }
        let own: Vec<_> = metrics
            .lines()
            .filter(|line| line.contains("end_of_life_images"))
            .collect();
        assert!(Instant::now() < deadline, "no {line} in {own:#?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_pod_whose_image_becomes_out_of_life_shows_up_and_vanishes_with_its_pod() {
    for (format, resource) in FORMATS {
        let namespace = Namespace::new("reports").await;
        define(&namespace).await;
        let registry = HostileRegistry::start().await.unwrap();
        let (old, good) = (host(&registry, "v1"), host(&registry, "v2"));
        run_image(&namespace, "old", &registry, &old).await;
        run_image(&namespace, "good", &registry, &good).await;
        let trust = ["--trusted-namespaces", &namespace.name];
        let (webhook, _folder) = reporter(&namespace, &registry, format, &trust).await;
        let first = until(&namespace, resource, has(0, 2)).await;
        counts(&webhook, &namespace, "alive", 2).await;

        // Nothing changes and no image is looked up again within hours.
        registry.clear();
        sleep(Duration::from_secs(1)).await;
        let same = reports(&namespace, resource).await;
        let version = |found: &[Value]| found[0]["metadata"]["resourceVersion"].clone();
        assert_eq!(version(&first), version(&same));
        assert_eq!(registry.requests().len(), 0, "{}", registry.transcript());

        // A resource marks the image while its pod runs.
        let controller = Controller::start(&namespace).await;
        namespace
            .apply("old", mark(&registry.reference(&old.pinned())))
            .await;
        namespace.ready("old").await;
        drop(controller);
        let marked = until(&namespace, resource, has(1, 1)).await;
        counts(&webhook, &namespace, "out_of_life", 1).await;
        let results = marked[0]["results"].as_array().unwrap();
        let failed = results
            .iter()
            .find(|result| result["result"] == "fail")
            .unwrap();
        assert_eq!(failed["resources"][0]["name"], "old", "{failed:#}");
        let message = failed["message"].as_str().unwrap();
        assert!(
            message.contains("/team/app:v1@sha256:")
                && message.ends_with("reached end of life on 2025-03-20T01:20:30Z"),
            "{message}"
        );

        // A report that a user deletes or changes is written again.
        let name = marked[0]["metadata"]["name"].as_str().unwrap();
        let remove = ["delete", resource, name, "--namespace", &namespace.name];
        namespace
            .plane
            .kubectl(remove)
            .await
            .unwrap()
            .stdout()
            .unwrap();
        until(&namespace, resource, has(1, 1)).await;

        delete(&namespace, "old").await;
        until(&namespace, resource, has(0, 1)).await;
        delete(&namespace, "good").await;
        until(&namespace, resource, <[Value]>::is_empty).await;
        let deadline = Instant::now() + PATIENCE;
        while webhook
            .metrics()
            .await
            .contains("affix_end_of_life_images{")
        {
            assert!(Instant::now() < deadline, "the metric stays");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_date_that_passes_and_a_mark_of_the_registry_show_up_while_the_pod_runs() {
    let namespace = Namespace::new("reports-time").await;
    define(&namespace).await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    run_image(&namespace, "app", &registry, &image).await;
    let often = ["--reports-refresh-interval", "1s"];
    let (_webhook, _folder) = reporter(&namespace, &registry, "openreports", &often).await;
    let resource = "reports.openreports.io";
    until(&namespace, resource, has(0, 1)).await;
    let soon = Timestamp::now() + SignedDuration::from_secs(5);
    let mut marked = mark(&registry.reference(&image.pinned()));
    marked["endOfLife"]["date"] = json!(soon.to_string());
    let _controller = Controller::start(&namespace).await;
    namespace.apply("app", marked).await;
    namespace.ready("app").await;
    until(&namespace, resource, has(1, 0)).await;
    assert!(Timestamp::now() >= soon);
    assert!(
        registry.count(Op::ManifestGet) > 1,
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn one_of_two_replicas_writes_reports_and_the_other_takes_over() {
    let namespace = Namespace::new("reports-two").await;
    define(&namespace).await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    run_image(&namespace, "app", &registry, &image).await;
    let (first, _one) = reporter(&namespace, &registry, "openreports", &[]).await;
    let resource = "reports.openreports.io";
    until(&namespace, resource, has(0, 1)).await;
    counts(&first, &namespace, "alive", 1).await;
    let (second, _two) = reporter(&namespace, &registry, "openreports", &[]).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!second.metrics().await.contains("affix_end_of_life_images{"));
    let (status, log) = first.terminate().await;
    assert!(status.success(), "{log}");
    counts(&second, &namespace, "alive", 1).await;
    run_image(&namespace, "more", &registry, &host(&registry, "v2")).await;
    until(&namespace, resource, has(0, 2)).await;
}
