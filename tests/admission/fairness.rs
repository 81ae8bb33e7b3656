//! Slow hosts, slow callers and dry runs: they hold no look-up of other pods (threats T19 and T35).
//!
//! `AFFIX_SOAK` says for how many seconds the load lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use affix_testbed::http_client;
use affix_testbed::peer::Peer;
use affix_testbed::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use affix::admission::{Lookups, ServerLimits};

use crate::support::abusive_clients::{authority, memory};
use crate::support::direct::{Direct, lookups, review_in};
use crate::support::marked_images::{ENDED, login, mark, push, refused};
use crate::support::namespace::{TestNamespace, wait_for};
use crate::support::process::Affix;

/// Hosts that accept connections and never answer.
struct SilentHosts {
    port: u16,
    _stop: DropGuard,
}

impl SilentHosts {
    async fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => held.extend(accepted.ok()),
                }
                // Sockets of connections that the client closed.
                if held.len() > 4000 {
                    held.drain(..2000);
                }
            }
        });
        Self {
            port,
            _stop: stop.drop_guard(),
        }
    }

    /// Returns images, each on a host of its own.
    fn images(&self, first: usize, count: usize) -> Vec<String> {
        (first..first + count)
            .map(|nth| {
                let (high, low) = (1 + nth / 250 % 250, 1 + nth % 250);
                format!("127.1.{high}.{low}:{}/team/app:v1", self.port)
            })
            .collect()
    }
}

/// Waits until a pod is refused for its image, and returns the number of attempts. On a busy machine the
/// API server does not wait for every response and admits the pod, so the pod is retried. Without a turn it
/// would never be refused.
async fn refused_beside_load(namespace: &TestNamespace, image: &str) -> usize {
    let mut attempts = 0;
    wait_for("a refusal", async || {
        attempts += 1;
        let tried = namespace.try_pod(image, json!({})).await;
        tried.is_err_and(|text| text.contains(ENDED))
    })
    .await;
    attempts
}

/// Returns the duration of the load.
fn duration() -> Duration {
    let seconds = std::env::var("AFFIX_SOAK").unwrap_or_else(|_| "60".to_owned());
    Duration::from_secs(seconds.parse().expect("AFFIX_SOAK is a number of seconds"))
}

fn pod_of(name: &str, images: &[String]) -> Value {
    let mut pod = TestNamespace::pod(name, "", json!({}));
    let containers = images
        .iter()
        .enumerate()
        .map(|(nth, image)| json!({"name": format!("c{nth}"), "image": image}));
    pod["spec"]["containers"] = containers.collect();
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_a_direct_caller_with_64_silent_hosts_hides_no_old_image() {
    let namespace =
        TestNamespace::new("directly", json!({"affix.dev/end-of-life": "enforce"})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let old = push(&registry, "old").await;
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let (webhook, address) =
        Affix::webhook(&namespace, &["--insecure-registries", registry.host()]).await;
    let memory = |name| memory(webhook.process.pid().unwrap(), name) >> 10;
    let started = memory("VmRSS:");
    let ca = authority(&namespace).await;
    let silent = Arc::new(SilentHosts::start().await);
    let client = http_client::multiplexing(&ca).unwrap();
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let (url, name) = (
        format!("https://{address}/validate-pods"),
        namespace.name.clone(),
    );
    // Two callers without a pause: two calls a second, and fewer on a busy machine.
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let (client, url, name, sent) =
            (client.clone(), url.clone(), name.clone(), Arc::clone(&sent));
        let silent = Arc::clone(&silent);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let nth = sent.fetch_add(1, Ordering::Relaxed);
                let pod = pod_of("p", &silent.images(nth * 64, 64));
                let call = client.post(&url).body(review_in(&name, "Pod", &pod));
                let _ = call.send().await;
            }
        }));
    }
    // Until every turn is in use.
    wait_for("the flood", async || sent.load(Ordering::Relaxed) > 6).await;
    let (mut delays, mut attempts) = (Vec::new(), 0);
    let end = Instant::now() + duration();
    while delays.len() < 8 || Instant::now() < end {
        let began = Instant::now();
        attempts += refused_beside_load(&namespace, &old.tagged()).await;
        delays.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.cancel();
    delays.sort();
    println!(
        "beside {} calls of 64 images on silent hosts, {} pods with an old image were refused, in {attempts} attempts, after {:?} \
         (median), {:?} (latest); the webhook has {} KiB, {started} KiB before, {} KiB at most",
        sent.load(Ordering::Relaxed),
        delays.len(),
        delays[delays.len() / 2],
        delays[delays.len() - 1],
        memory("VmRSS:"),
        memory("VmHWM:"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t35_dry_runs_with_silent_hosts_hide_no_old_image() {
    let namespace = TestNamespace::new("dryly", json!({"affix.dev/end-of-life": "enforce"})).await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let old = push(&registry, "old").await;
    let peer = Peer::of(&namespace.tools, &registry).unwrap();
    mark(&peer, &old.pinned(), "2025-03-20").await;
    let (_webhook, _) =
        Affix::webhook(&namespace, &["--insecure-registries", registry.host()]).await;
    let silent = SilentHosts::start().await;
    for nth in 0..20 {
        let pod = pod_of("dry", &silent.images(nth * 16, 16));
        let text = namespace
            .apply_with(&pod, &["--dry-run=server"])
            .await
            .unwrap();
        assert!(!text.contains(ENDED), "{text}");
        if nth >= 16 {
            refused_beside_load(&namespace, &old.tagged()).await;
        }
    }
}

#[tokio::test]
async fn two_webhooks_of_a_pod_wait_once_for_a_registry_that_does_not_answer() {
    const LIMIT: Duration = Duration::from_secs(8);
    let silent = SilentHosts::start().await;
    let limits = Lookups {
        timeout: LIMIT,
        ..lookups()
    };
    let webhook = Direct::start(ServerLimits::default(), limits).await;
    let client = webhook.client();
    let images = silent.images(0, 2);
    let call = async |nth: usize, query: &str| {
        let tag = format!(":v{nth}");
        let images: Vec<String> = images
            .iter()
            .map(|image| image.replace(":v1", &tag))
            .collect();
        let url = webhook.url("validate-pods") + query;
        let began = Instant::now();
        let body = review_in("team-a", "Pod", &pod_of("p", &images));
        let answer: Value = client
            .post(url)
            .body(body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let warnings: Vec<String> =
            serde_json::from_value(answer["response"]["warnings"].clone()).unwrap();
        let expected: Vec<String> = images
            .iter()
            .map(|image| {
                format!(
                    "image {image} was not checked for end of life: no answer within 1.8s: try again"
                )
            })
            .collect();
        assert_eq!(warnings, expected);
        began.elapsed()
    };
    // The API server waits for two seconds, less than the limit of the webhook.
    let first = call(1, "?timeout=2s").await;
    assert!(first < LIMIT, "{first:?}");
    // The next review names its own images, and does not wait for another limit.
    let second = call(2, "").await;
    assert!(second < LIMIT / 2, "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pull_secret_is_tried_in_order_and_without_one_at_last() {
    let namespace =
        TestNamespace::new("secrets", json!({"affix.dev/end-of-life": "enforce"})).await;
    let registry = Registry::distribution(&namespace.tools)
        .basic("alice", "hunter2")
        .start()
        .await
        .unwrap();
    let open = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let (old, public) = (push(&registry, "old").await, push(&open, "old").await);
    for (registry, image) in [(&registry, &old), (&open, &public)] {
        let peer = Peer::of(&namespace.tools, registry).unwrap();
        mark(&peer, &image.pinned(), "2025-03-20").await;
    }
    let hosts = format!("{},{}", registry.host(), open.host());
    let (_webhook, _) = Affix::webhook(&namespace, &["--insecure-registries", &hosts]).await;
    let mut bad = login(&registry);
    bad["metadata"]["name"] = json!("bad");
    let logins = json!({"auths": {
        registry.host(): {"username": "alice", "password": "wrong"},
        open.host(): {"username": "mallory", "password": "wrong"},
    }});
    bad["stringData"][".dockerconfigjson"] = json!(logins.to_string());
    namespace.apply(&bad).await.unwrap();
    namespace.apply(&login(&registry)).await.unwrap();
    let secrets = |names: &[&str]| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"imagePullSecrets": names})
    };
    let absent: Vec<String> = (0..40).map(|nth| format!("absent-{nth}")).collect();
    let absent: Vec<&str> = absent.iter().map(String::as_str).collect();
    for names in [
        &["bad", "login"][..],
        &["login", "bad"],
        &[&absent[..], &["bad", "login"]].concat(),
    ] {
        for image in [old.tagged(), old.pinned()] {
            let text = refused(&namespace, &image, secrets(names)).await;
            assert!(text.contains(ENDED), "{text}");
        }
    }
    wait_for("the cause", async || {
        let tried = namespace.try_pod(&old.tagged(), secrets(&["bad"])).await;
        tried.is_ok_and(|text| text.contains(": HTTP 401: fix the pull secret"))
    })
    .await;
    // A registry that ignores logins, or needs none.
    refused(&namespace, &public.tagged(), secrets(&["bad"])).await;
}
