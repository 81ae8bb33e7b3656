//! Latency of the webhooks over TLS and HTTP/2, as the API server calls them: `cargo bench --bench admission`.
//!
//! One review at a time first, then at 500 and at 2000 a second. A call is measured from when it was due, so a queue that builds up
//! is not hidden. The pod's image is pinned and its marks are known after the first call, so this is the warm path; no API server takes
//! part. Server and callers share the machine: `taskset -c 0` puts both on one core.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that fails says so by panicking, and prints what it measured"
)]

use std::sync::Arc;
use std::time::Duration;

use affix::admission::{self, CertificateSource, Lookups, Options, ServerLimits};
use affix::service::Addresses;
use affix_testbed::certificates::Authority;
use affix_testbed::hostile::HostileRegistry;
use affix_testbed::{http_client, port};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long each rate is kept.
const LENGTH: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    authority.server(dir.path()).unwrap();
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.image("team/app", "v1").platforms(["linux/amd64", "linux/arm64"]).push();
    let pinned = format!("{}/team/app@{}", registry.host(), image.digest);

    let address = format!("127.0.0.1:{}", port::free().unwrap());
    let stop = CancellationToken::new();
    let options = Options {
        listen_addr: address.parse().unwrap(),
        addresses: Addresses::default(),
        shutdown_delay: Duration::ZERO,
        certificate: CertificateSource::Given(dir.path().to_owned()),
        limits: ServerLimits::default(),
        lookups: Lookups {
            lifecycle_types: vec!["application/vnd.microsoft.artifact.lifecycle".parse().unwrap()],
            warn_before: Duration::from_hours(720),
            trusted_namespaces: Vec::new(),
            cache_ttl: Duration::from_hours(1),
            timeout: Duration::from_secs(1),
            insecure_registries: vec![registry.host().parse().unwrap()],
        },
        registries: affix::registry::Options { allow_loopback: true, ..affix::registry::Options::default() },
    };
    // No API server: the namespace's labels cannot be read, and then images are looked at all the same.
    let nowhere = kube::Config::new(format!("http://127.0.0.1:{}", port::free().unwrap()).parse().unwrap());
    let client = kube::Client::try_from(nowhere).unwrap();
    let served = tokio::spawn(admission::serve(options, client, Arc::new(Timestamp::now), stop.clone()));

    let callers = http_client::client(Some(authority.pem())).unwrap();
    let attachment = review(
        "ImageAttachment",
        &json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "a"},
            // Refused by what only code can say: a good one would have its registry looked at, which is not ours to measure.
            "spec": {"image": "registry.example.com/Team/app:v1", "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}}
        }),
    );
    let pod = review(
        "Pod",
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": pinned}]}
        }),
    );
    for (what, path, body) in [("ImageAttachment", "validate-imageattachment", attachment), ("Pod, warm", "validate-pods", pod)] {
        let url = format!("https://{address}/{path}");
        let deadline = Instant::now() + Duration::from_secs(30);
        while callers.post(&url).body(body.clone()).send().await.is_err() {
            assert!(Instant::now() < deadline, "the webhook does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        report(what, "one at a time", one_by_one(&callers, &url, &body).await);
        for rate in [500, 2000] {
            report(what, &format!("{rate}/s"), at_rate(&callers, &url, &body, rate).await);
        }
    }
    stop.cancel();
    served.await.unwrap().unwrap();
}

fn review(kind: &str, object: &Value) -> String {
    let group = if kind == "Pod" { "" } else { "affix.dev" };
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4", "kind": {"group": group, "version": "v1", "kind": kind},
            "resource": {"group": group, "version": "v1", "resource": "x"}, "name": "x", "namespace": "team-a", "operation": "CREATE",
            "userInfo": {"username": "admin"}, "object": object
        }
    })
    .to_string()
}

async fn call(client: reqwest::Client, url: String, body: String, due: Instant) -> Option<Duration> {
    let answer: Value = client.post(url).body(body).send().await.ok()?.json().await.ok()?;
    answer["response"]["uid"].is_string().then(|| due.elapsed())
}

async fn one_by_one(client: &reqwest::Client, url: &str, body: &str) -> Vec<Option<Duration>> {
    let (mut took, end) = (Vec::new(), Instant::now() + LENGTH / 2);
    while Instant::now() < end {
        took.push(call(client.clone(), url.to_owned(), body.to_owned(), Instant::now()).await);
    }
    took
}

async fn at_rate(client: &reqwest::Client, url: &str, body: &str, rate: u32) -> Vec<Option<Duration>> {
    let (began, count) = (Instant::now(), rate * u32::try_from(LENGTH.as_secs()).unwrap());
    let mut calls = Vec::new();
    for nth in 0..count {
        let due = began + Duration::from_secs(1) / rate * nth;
        tokio::time::sleep_until(due).await;
        calls.push(tokio::spawn(call(client.clone(), url.to_owned(), body.to_owned(), due)));
    }
    let mut took = Vec::new();
    for call in calls {
        took.push(call.await.unwrap());
    }
    took
}

fn report(what: &str, how: &str, took: Vec<Option<Duration>>) {
    let (all, mut answered) = (took.len(), took.into_iter().flatten().collect::<Vec<_>>());
    answered.sort_unstable();
    let at = |part: f64| answered.get(((answered.len() as f64 - 1.0) * part) as usize).copied().unwrap_or_default();
    println!(
        "{what:16} {how:14} p50 {:>10.3?}  p99 {:>10.3?}  max {:>10.3?}  answered {} of {all}",
        at(0.5),
        at(0.99),
        at(1.0),
        answered.len()
    );
}
