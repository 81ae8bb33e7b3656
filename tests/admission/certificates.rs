//! Certificate rotation: two replicas in this process with an adjustable clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::load::Load;
use crate::support::namespace::{TIMEOUT, TestNamespace, wait_for};
use crate::support::process::Affix;
use crate::support::replicas::{HOUR, Replicas, SECRET, refuses};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_agree_and_no_review_fails_during_rotations() {
    let replicas = Replicas::start("rotated", 0).await;
    replicas.namespace.configure(&replicas.addresses[0]).await;
    replicas.agree().await;

    let load = Load::start(&replicas.namespace, &replicas.addresses);
    // The real API server makes requests too.
    let (failed, made, stop) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicU32::new(0)),
        CancellationToken::new(),
    );
    let asking = {
        let (failed, made, stop, namespace) = (
            Arc::clone(&failed),
            Arc::clone(&made),
            stop.clone(),
            replicas.namespace.clone(),
        );
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                made.fetch_add(1, Ordering::Relaxed);
                if !refuses(&namespace).await {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    };
    let params = PatchParams::default();

    // The serving certificate is lost: the same authority issues a new one.
    let (leaf, ca) = (
        replicas.part("tls.crt").await,
        replicas.part("ca.crt").await,
    );
    replicas
        .secrets()
        .patch(
            SECRET,
            &params,
            &Patch::Merge(json!({"data": {"tls.crt": ""}})),
        )
        .await
        .unwrap();
    wait_for(
        "a new leaf",
        async || !matches!(replicas.part("tls.crt").await, part if part.is_empty() || part == leaf),
    )
    .await;
    assert_eq!(replicas.part("ca.crt").await, ca);
    replicas.agree().await;

    // The Secret is deleted: everything is new, and the old authority stays trusted.
    replicas
        .secrets()
        .delete(SECRET, &DeleteParams::default())
        .await
        .unwrap();
    wait_for(
        "a new Secret",
        async || !matches!(replicas.part("ca.crt").await, part if part.is_empty() || part == ca),
    )
    .await;
    replicas.agree().await;

    // A part of the Secret is truncated.
    for key in ["tls.key", "tls.crt", "ca.key", "ca.crt"] {
        let whole = replicas.part(key).await;
        let half = whole[..whole.len() / 8 * 4].to_owned();
        replicas
            .secrets()
            .patch(SECRET, &params, &Patch::Merge(json!({"data": {key: half}})))
            .await
            .unwrap();
        wait_for(
            key,
            async || !matches!(replicas.part(key).await, part if part.is_empty() || part == half),
        )
        .await;
        replicas.agree().await;
    }
    load.end().await;
    stop.cancel();
    asking.await.unwrap();
    let (failed, made) = (failed.load(Ordering::Relaxed), made.load(Ordering::Relaxed));
    println!("{made} requests of the API server, {failed} failed");
    assert!(failed == 0 && made > 100, "{failed} of {made} failed");
}

#[tokio::test]
async fn a_clock_that_moves_by_30_days_causes_a_new_certificate() {
    // The clock is 30 days behind, so the certificate expired weeks ago for other clients.
    let replicas = Replicas::start("late", -30 * 24 * HOUR).await;
    wait_for("a first certificate", async || {
        !replicas.part("tls.crt").await.is_empty()
    })
    .await;
    replicas.agree().await;
    let (leaf, ca) = (
        replicas.part("tls.crt").await,
        replicas.part("ca.crt").await,
    );
    replicas.ahead.store(0, Ordering::Relaxed);
    wait_for("a new leaf", async || {
        replicas.part("tls.crt").await != leaf
    })
    .await;
    assert_eq!(
        replicas.part("ca.crt").await,
        ca,
        "the authority is good for a year"
    );
    replicas.agree().await;
    replicas.namespace.configure(&replicas.addresses[1]).await;
    assert!(replicas.refuses().await);
}

#[tokio::test]
async fn replicas_that_start_together_write_the_ca_bundle_without_a_failure() {
    let namespace = TestNamespace::new("race", json!({})).await;
    let webhooks: Vec<_> = (0..16)
        .map(|nth| {
            json!({
                "name": format!("w{nth}.affix.dev"), "sideEffects": "None", "failurePolicy": "Ignore", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/validate-pods"}, "rules": [],
            })
        })
        .collect();
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace.name}, "webhooks": webhooks,
    });
    namespace.apply(&configuration).await.unwrap();
    let args = [
        "webhook",
        "--listen-addr",
        "127.0.0.1:0",
        "--namespace",
        &namespace.name,
        "--validating-webhook-configuration",
        &namespace.name,
        "--mutating-webhook-configuration",
        "",
    ];
    let mut replicas: Vec<Affix> = (0..4)
        .map(|_| Affix::start_with(&namespace, &namespace.plane.kubeconfig(), &args))
        .collect();
    for replica in &mut replicas {
        let serving = |log: &str| log.contains("serving a new certificate").then_some(());
        let served = replica.process.wait_for(TIMEOUT, "a certificate", serving);
        served.await.unwrap();
        let log = replica.process.log().unwrap();
        assert!(!log.contains("cannot maintain the certificate"), "{log}");
    }
}
