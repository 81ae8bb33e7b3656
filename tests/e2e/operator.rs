//! The operator as whoever runs it sees it: health, metrics, its end.

use std::time::Duration;

use affix_testbed::hostile::{HostileRegistry, Matcher, Op, Stage};
use tokio::time::sleep;

use crate::support::controller::Controller;
use crate::support::images::{host, note};
use crate::support::namespace::{Namespace, PATIENCE};

#[tokio::test]
async fn health_and_metrics_are_served_in_the_words_of_others() {
    let namespace = Namespace::new("served").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let controller = Controller::start(&namespace).await;
    namespace
        .apply("good", note(&registry.reference(&image.name())))
        .await;
    namespace
        .apply("bad", note(&registry.reference("team/app:absent")))
        .await;
    namespace.ready("good").await;
    namespace.refused("bad", affix::api::Reason::NotFound).await;
    assert_eq!(
        controller.health("/healthz").await,
        (200, "ok\n".to_owned())
    );
    assert_eq!(controller.health("/readyz").await, (200, "ok\n".to_owned()));

    // A pass is counted once its status is written.
    let deadline = std::time::Instant::now() + PATIENCE;
    let expected = [
        "controller_runtime_reconcile_total{controller=\"imageattachment\",result=\"success\"}",
        "controller_runtime_reconcile_total{controller=\"imageattachment\",result=\"error\"}",
        "controller_runtime_reconcile_time_seconds_bucket{",
        "affix_reconcile_reason_total{reason=\"Attached\"}",
        "affix_reconcile_reason_total{reason=\"NotFound\"}",
        "affix_registry_requests_total{operation=\"put_manifest\",code=\"201\"} 3",
        "affix_attachments_total{outcome=\"made\"} 3",
        "type=\"Ready\",status=\"True\",reason=\"Attached\"} 1",
    ];
    loop {
        let metrics = controller.metrics().await;
        let missing: Vec<_> = expected
            .iter()
            .filter(|line| !metrics.contains(**line))
            .collect();
        if missing.is_empty() {
            assert!(
                !metrics.contains("team/app") && !metrics.contains("sha256"),
                "{metrics}"
            );
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{missing:?} are not in\n{metrics}"
        );
        sleep(Duration::from_millis(50)).await;
    }
    namespace.check_rules().await;
}

#[tokio::test]
async fn readyz_says_what_it_waits_for_while_the_api_server_is_away() {
    let namespace = Namespace::new("away").await;
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let away = std::fs::read_to_string(namespace.plane.kubeconfig())
        .unwrap()
        .replace(&namespace.plane.url(), "https://127.0.0.1:1");
    std::fs::write(&kubeconfig, away).unwrap();
    let controller = Controller::start_in(
        &namespace,
        &[],
        &[("KUBECONFIG", kubeconfig.to_str().unwrap())],
    )
    .await;
    assert_eq!(controller.health("/healthz").await.0, 200);
    let (status, text) = controller.health("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("the list of imageattachments"), "{text}");
    let (ended, log) = controller.terminate().await;
    assert!(ended.success(), "{ended}\n{log}");
}

#[tokio::test]
async fn sigterm_ends_an_idle_operator_at_once() {
    let namespace = Namespace::new("sigterm").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let controller = Controller::start(&namespace).await;
    namespace
        .apply("idle", note(&registry.reference(&image.name())))
        .await;
    namespace.ready("idle").await;
    let (status, log) = controller.terminate().await;
    assert!(
        status.success() && log.lines().any(|line| line.ends_with("affix stopped")),
        "{status}\n{log}"
    );
    namespace.check_rules().await;
}

#[tokio::test]
async fn sigterm_lets_a_pass_that_is_under_way_end_first() {
    let namespace = Namespace::new("drain").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = host(&registry, "v1");
    let mut hold = registry.hold(Stage::Before, Matcher::on(Op::ManifestPut).nth(1));
    let controller = Controller::start(&namespace).await;
    namespace
        .apply("drain", note(&registry.reference(&image.name())))
        .await;
    hold.reached().await.unwrap();
    let release = async {
        sleep(Duration::from_millis(700)).await;
        hold.release();
    };
    let ((status, log), ()) = tokio::join!(controller.terminate(), release);
    assert!(
        status.success() && log.lines().any(|line| line.ends_with("affix stopped")),
        "{status}\n{log}"
    );
    assert_eq!(
        namespace.ready("drain").await.attached.as_deref(),
        Some("3/3"),
        "{log}"
    );
    namespace.check_rules().await;
}
