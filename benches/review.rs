//! The time that the webhook takes for one review of a resource, from request bytes to response bytes:
//! `cargo bench --bench review`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

use std::hint::black_box;

use affix::admission::review_offline;
use affix_registry::{Options, Registries};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

/// Returns the review of a creation in the form of an API server.
fn review(platforms: &[&str]) -> Vec<u8> {
    let object = json!({
        "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "app-v1", "namespace": "team"},
        "spec": {"image": format!("r.example.com/team/app:v1@sha256:{}", "0".repeat(64)), "targets": {"platforms": platforms}, "endOfLife": {"date": "2026-11-26"}},
    });
    let resource =
        json!({"group": "affix.dev", "version": "v1alpha1", "resource": "imageattachments"});
    let kind = json!({"group": "affix.dev", "version": "v1alpha1", "kind": "ImageAttachment"});
    let request = json!({
        "uid": "7b8f7a4c-8f5c-4e5b-9a3e-2f7d3c1b0a99", "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
        "name": "app-v1", "namespace": "team", "operation": "CREATE", "dryRun": false, "object": object, "oldObject": null,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        "userInfo": {"username": "system:serviceaccount:flux-system:kustomize-controller", "groups": ["system:serviceaccounts", "system:authenticated"]},
    });
    serde_json::to_vec(&json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})).unwrap()
}

fn reviews(criterion: &mut Criterion) {
    let registries = Registries::new(Options::default());
    for (result, platforms, allowed) in [
        ("is admitted", &["linux/amd64", "linux/arm64"][..], true),
        ("is refused", &["linux//amd64"], false),
    ] {
        let review = review(platforms);
        let answer: Value =
            serde_json::from_slice(&review_offline(&review, &registries).unwrap()).unwrap();
        assert_eq!(answer["response"]["allowed"], allowed, "{answer}");
        criterion.bench_function(&format!("a review of a resource that {result}"), |bench| {
            bench.iter(|| review_offline(black_box(&review), &registries));
        });
    }
}

criterion_group!(benches, reviews);
criterion_main!(benches);
