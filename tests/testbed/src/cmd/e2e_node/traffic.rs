//! Requests to the API server that call the webhooks, one after the other, until they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::http_client;
use anyhow::Context;
use serde_json::Value;
use tokio::task::JoinHandle;

/// The pause between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// Running requests.
pub(super) struct Traffic {
    stopped: Arc<AtomicBool>,
    task: JoinHandle<Calls>,
}

/// The result of all requests.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) all: usize,
    /// The answers of those that failed.
    pub(super) failed: Vec<String>,
    pub(super) slowest: Duration,
}

impl Traffic {
    /// Sends dry runs of the objects in turn, each with the path of its collection.
    pub(super) fn start(
        cluster: &ControlPlane,
        objects: Vec<(String, Value)>,
    ) -> anyhow::Result<Self> {
        let client = http_client::client(Some(cluster.ca_pem()))?;
        let (url, token) = (cluster.url(), cluster.admin_token());
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let task = tokio::spawn(async move {
            let mut calls = Calls::default();
            for (path, object) in objects.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                let answer = client
                    .post(format!("{url}{path}?dryRun=All"))
                    .bearer_auth(token)
                    .header("content-type", "application/json")
                    .body(object.to_string())
                    .send()
                    .await;
                calls.all += 1;
                calls.slowest = calls.slowest.max(began.elapsed());
                match answer {
                    Ok(answer) if answer.status().is_success() => {}
                    Ok(answer) => {
                        let status = answer.status();
                        let text = answer.text().await.unwrap_or_default();
                        calls.failed.push(format!("{status} {text}"));
                    }
                    Err(error) => calls.failed.push(error.to_string()),
                }
                tokio::time::sleep(PAUSE).await;
            }
            calls
        });
        Ok(Self { stopped, task })
    }

    /// Stops the requests.
    pub(super) async fn stop(self) -> anyhow::Result<Calls> {
        self.stopped.store(true, Ordering::Relaxed);
        self.task.await.context("the requests ended")
    }
}
