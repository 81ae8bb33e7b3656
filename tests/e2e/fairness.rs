//! What somebody waits for is not behind a backlog.

use std::time::Duration;

use affix::api::Reason;
use affix_testbed::hostile::{Matcher, Op, Outcome, Stage};
use futures::{StreamExt as _, stream};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::support::controller::Controller;
use crate::support::images::{host, note, scriptable, with};
use crate::support::namespace::{Namespace, PATIENCE};

/// Resources that are due at once.
const MANY: usize = 2_000;

/// Resources that an earlier operator has looked at and found absent from the registry; each image in turn.
async fn backlog(namespace: &Namespace, images: &[String]) {
    let api = namespace.attachments();
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": Reason::NotFound.as_str(), "message": "absent", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let status = json!({"status": {"observedGeneration": 1, "conditions": [condition("Ready", "False"), condition("Resolved", "False")]}});
    stream::iter(0..MANY)
        .for_each_concurrent(16, |nth| {
            let (api, status, name) = (api.clone(), status.clone(), format!("due-{nth}"));
            let object = json!({
                "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": name},
                "spec": note(&images[nth % images.len()]),
            });
            async move {
                api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
            }
        })
        .await;
}

#[tokio::test]
async fn new_and_changed_resources_are_ready_beside_two_thousand_that_hang() {
    let namespace = Namespace::new("fair").await;
    let registries = scriptable().await;
    // The same registry for what is stuck and what is not: what is stuck is a repository.
    let stuck = Matcher::any().repository("team/stuck");
    backlog(
        &namespace,
        &registries
            .each_ref()
            .map(|registry| registry.reference("team/stuck:v1")),
    )
    .await;
    let holds = registries
        .each_ref()
        .map(|registry| registry.hold(Stage::Before, stuck.clone()));
    let controller = Controller::start(&namespace).await;
    for (nth, registry) in registries.iter().enumerate() {
        // Until the stuck ones have every place that routine work may have at this registry, or in the process.
        registry.wait_for(&stuck, 8, PATIENCE).await.unwrap();
        let image = registry.reference(&host(registry, "v1").name());
        let at_once = || {
            registry
                .requests_that(&stuck)
                .iter()
                .filter(|request| request.outcome == Outcome::Open)
                .count()
        };

        let began = Instant::now();
        let name = format!("new-{nth}");
        namespace.apply(&name, note(&image)).await;
        namespace.ready(&name).await;
        let new = began.elapsed();
        assert!(
            at_once() <= 24,
            "{} of the stuck ones have a place: more than three quarters of 32",
            at_once()
        );
        // One of those that wait in the line.
        let began = Instant::now();
        let changed = format!("due-{}", MANY - 1 - nth);
        namespace
            .apply(&changed, with(note(&image), json!({"interval": "7m"})))
            .await;
        namespace.ready(&changed).await;
        println!(
            "with {MANY} resources due at once, a new one was Ready after {new:?}, a changed one after {:?}",
            began.elapsed()
        );
    }
    let waiting = controller.metrics().await;
    let depth = waiting
        .lines()
        .find(|line| line.starts_with("workqueue_depth{"))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok());
    assert!(
        depth.is_some_and(|depth: usize| depth > MANY / 2),
        "the backlog was gone: {depth:?}"
    );
    drop(holds);
}

#[tokio::test]
async fn t35_a_short_interval_is_lengthened_to_the_operators_minimum() {
    let namespace = Namespace::new("t35-interval").await;
    let [registry, _] = scriptable().await;
    let image = registry.reference(&host(&registry, "v1").name());
    let _controller = Controller::start_with(&namespace, &["--min-interval", "5s"]).await;
    let short = json!({"interval": "1s"});
    namespace.apply("short", with(note(&image), short)).await;
    namespace.ready("short").await;
    let resolved = Matcher::on(Op::ManifestHead).reference("v1");
    let since = |count| {
        let (registry, resolved) = (&registry, &resolved);
        async move {
            registry.wait_for(resolved, count, PATIENCE).await.unwrap();
            Instant::now()
        }
    };
    let seen = registry.requests_that(&resolved).len();
    let first = since(seen + 1).await;
    let waited = since(seen + 2).await - first;
    assert!(waited >= Duration::from_secs(4), "{waited:?}");
}
