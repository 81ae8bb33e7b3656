//! A constant load of reviews during certificate rotations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use affix_testbed::http_client;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::support::direct::review;
use crate::support::namespace::TestNamespace;

/// Target rate in calls per second.
pub(crate) const RATE: u64 = 250;
/// Concurrent calls of one API server.
pub(crate) const MAX_CONCURRENT: usize = 32;

/// Calls of two simulated API servers to both replicas. Each trusts the current `caBundle` of its
/// configuration, regularly opens new connections, and retries once if a kept connection was closed.
pub(crate) struct Load {
    failures: Arc<Mutex<Vec<String>>>,
    answered: Arc<AtomicU64>,
    began: Instant,
    stop: CancellationToken,
}

impl Load {
    pub(crate) fn start(namespace: &TestNamespace, addresses: &[String; 2]) -> Self {
        let (failures, answered, stop) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<AtomicU64>::default(),
            CancellationToken::new(),
        );
        for address in addresses {
            let (namespace, url) = (
                namespace.clone(),
                format!("https://{address}/validate-imageattachment"),
            );
            let (failures, answered, stop) =
                (Arc::clone(&failures), Arc::clone(&answered), stop.clone());
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(
                    Duration::from_secs(1) * 2 / u32::try_from(RATE).unwrap(),
                );
                // A slow machine makes fewer calls instead of bursts.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let places = Arc::new(Semaphore::new(MAX_CONCURRENT));
                let mut client = caller(&namespace).await;
                let mut index = 0_u64;
                while !stop.is_cancelled() {
                    ticks.tick().await;
                    index += 1;
                    // A new connection every quarter of a second, with the current configuration.
                    if index.is_multiple_of(RATE / 8) {
                        client = caller(&namespace).await;
                    }
                    let namespace = Arc::clone(&places).acquire_owned().await.unwrap();
                    let (client, url, failures, answered) = (
                        client.clone(),
                        url.clone(),
                        Arc::clone(&failures),
                        Arc::clone(&answered),
                    );
                    tokio::spawn(async move {
                        let _place = namespace;
                        match call(&client, &url).await {
                            Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Err(cause) => failures.lock().unwrap().push(cause),
                        }
                    });
                }
            });
        }
        Self {
            failures,
            answered,
            began: Instant::now(),
            stop,
        }
    }

    /// Ends the load and asserts that every call was answered. The rate depends on the machine, so a
    /// low rate is only printed.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let (answered, took) = (self.answered.load(Ordering::Relaxed), self.began.elapsed());
        let rate = answered as f64 / took.as_secs_f64();
        println!("{answered} calls in {took:?} during the rotations: {rate:.0} per second");
        if rate < 200.0 {
            println!(
                "this machine is too slow for 200 calls per second: the result holds for {rate:.0}"
            );
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty() && answered > 0,
            "{} of {} failed: {:#?}",
            failures.len(),
            failures.len() as u64 + answered,
            *failures
        );
    }
}

/// Creates a client from the configuration, as the API server does.
pub(crate) async fn caller(namespace: &TestNamespace) -> reqwest::Client {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(namespace.client.clone());
    let found = api.get(&namespace.name).await.unwrap();
    let bundle = found
        .webhooks
        .unwrap()
        .remove(0)
        .client_config
        .ca_bundle
        .unwrap();
    http_client::multiplexing(std::str::from_utf8(&bundle.0).unwrap()).unwrap()
}

pub(crate) async fn call(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let spec = json!({"image": "registry.example.com/Team/app:v1", "signature": {"cosign": {"keySecretRef": {"name": "k"}}}});
    let body = review(
        "ImageAttachment",
        &TestNamespace::attachment("invalid", &spec),
    );
    let mut answer = client.post(url).body(body.clone()).send().await;
    if answer
        .as_ref()
        .is_err_and(|error| !error.is_connect() && !error.is_timeout())
    {
        answer = client.post(url).body(body).send().await;
    }
    let answer: Value = answer
        .map_err(|error| format!("{error:?}"))?
        .json()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let message = answer["response"]["status"]["message"]
        .as_str()
        .unwrap_or_default();
    if message.contains("is malformed") {
        Ok(())
    } else {
        Err(answer.to_string())
    }
}
