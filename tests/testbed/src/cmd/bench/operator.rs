//! The operator under measurement: its process, its memory and processor time, and what it counts by itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::http_client;
use affix_testbed::port;
use affix_testbed::process::{Launch, Process};
use anyhow::{Context, bail};
use tokio::time::sleep;

use super::lab::Lab;
use super::run::memory;

const TASKSET: &str = "/usr/bin/taskset";
/// How long it may take to become ready.
const START: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
/// How long resources may take to become ready.
const PATIENCE: Duration = Duration::from_mins(20);

/// `affix controller`, running. It ends with its value.
pub(super) struct Operator {
    process: Process,
    /// From its start until it watches.
    pub(super) started: Duration,
    client: reqwest::Client,
    metrics: String,
}

/// What the operator has counted since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Resources that are ready now.
    pub(super) ready: usize,
    /// Sets that are ready now.
    pub(super) sets: usize,
    /// Requests to registries.
    pub(super) registry: usize,
    /// Requests to the API server.
    pub(super) cluster: usize,
    /// Those of them that write.
    pub(super) writes: usize,
}

impl Operator {
    /// Starts it and waits until it watches. On `one_core` it has a single one, where the system can do that.
    pub(super) async fn start(
        lab: &Lab,
        cluster: &ControlPlane,
        one_core: bool,
    ) -> anyhow::Result<Self> {
        let health = format!("127.0.0.1:{}", port::free()?);
        let metrics = format!("127.0.0.1:{}", port::free()?);
        let args = [
            "controller",
            "--allow-loopback",
            "--metrics-addr",
            &metrics,
            "--health-addr",
            &health,
            "--log-format=json",
        ];
        let log = lab.peer.file("controller.log");
        let pinned = one_core && PathBuf::from(TASKSET).exists();
        let launch = if pinned {
            Launch::new("affix controller", TASKSET, log)
                .args(["-c", "0"])
                .arg(&lab.affix)
        } else {
            Launch::new("affix controller", &lab.affix, log)
        };
        let launch = launch
            .args(args)
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("HOME", lab.peer.file(""))
            .env("RUST_LOG", "warn");
        let client = http_client::client(None)?;
        let began = Instant::now();
        let mut process = launch.start(&lab.tools)?;
        loop {
            let answer = client.get(format!("http://{health}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(Self {
                    process,
                    started: began.elapsed(),
                    client,
                    metrics: format!("http://{metrics}/metrics"),
                });
            }
            if let Some(status) = process.ended()? {
                bail!("the operator ended with {status}:\n{}", process.log()?);
            }
            if began.elapsed() > START {
                bail!(
                    "the operator is not ready after {START:?}:\n{}",
                    process.log()?
                );
            }
            sleep(POLL).await;
        }
    }

    /// Bytes of memory that it has now.
    pub(super) fn memory(&self) -> anyhow::Result<u64> {
        Ok(memory(
            &PathBuf::from(format!("/proc/{}/status", self.pid()?)),
            "VmRSS",
        ))
    }

    /// Processor time so far. Its grain is a hundredth of a second.
    pub(super) fn cpu(&self) -> anyhow::Result<Duration> {
        const TICK: u64 = 10;
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        let (_, fields) = text.rsplit_once(')').context("a process's stat")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(ticks * TICK))
    }

    /// What its metrics say. Asking costs it little, so that even a wait for thousands of resources may ask often.
    pub(super) async fn counted(&self) -> anyhow::Result<Counted> {
        let text = self.client.get(&self.metrics).send().await?.text().await?;
        let sum = |of: &str, labels: &str| -> usize {
            let lines = text.lines().filter(|line| line.starts_with(of));
            lines
                .filter(|line| line.contains(labels))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .map(|value| value as usize)
                .sum()
        };
        let ready = "type=\"Ready\",status=\"True\"";
        let cluster = sum("rest_client_requests_total", "");
        Ok(Counted {
            ready: sum("affix_resource_conditions", ready),
            sets: sum("affix_set_conditions", ready),
            registry: sum("affix_registry_requests_total", ""),
            cluster,
            writes: cluster - sum("rest_client_requests_total", "method=\"GET\""),
        })
    }

    /// Waits until so many resources are ready.
    pub(super) async fn ready(&self, count: usize, look: Duration) -> anyhow::Result<()> {
        self.reach("resources", count, look, |counted| counted.ready)
            .await
    }

    /// Waits until so many sets are ready.
    pub(super) async fn sets_ready(&self, count: usize, look: Duration) -> anyhow::Result<()> {
        self.reach("sets", count, look, |counted| counted.sets)
            .await
    }

    async fn reach(
        &self,
        what: &str,
        count: usize,
        look: Duration,
        ready: fn(&Counted) -> usize,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let ready = ready(&self.counted().await?);
            if ready >= count {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("{ready} of {count} {what} are ready after {PATIENCE:?}");
            }
            sleep(look).await;
        }
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid().context("the operator's process id")
    }
}
