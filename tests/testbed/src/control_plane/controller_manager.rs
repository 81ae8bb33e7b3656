//! kube-controller-manager, for the tests in which a namespace ends or an owner's dependents are collected.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use super::ControlPlane;
use super::servers::flag;
use crate::process::{Launch, Process};
use crate::tools::{Tool, Tools};

/// The controllers that matter without nodes: what cleans up, and what makes pods.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,\
     deployment-controller,replicaset-controller,job-controller";
/// How long they may take to do their first work.
const START: Duration = Duration::from_mins(5);

/// A running kube-controller-manager. Dropping it ends it; it must go before its control plane.
#[derive(Debug)]
pub struct ControllerManager {
    process: Process,
}

impl ControllerManager {
    /// Starts the controllers against a control plane and waits until they work: until `default` has its service account.
    ///
    /// # Errors
    ///
    /// Where they do not start to work; the message has their log.
    pub async fn start(tools: &Tools, cluster: &ControlPlane) -> anyhow::Result<Self> {
        Self::start_as(tools, cluster, CONTROLLERS).await
    }

    /// The same with every controller, for a control plane with a node.
    ///
    /// # Errors
    ///
    /// Where they do not start to work; the message has their log.
    pub async fn start_all(tools: &Tools, cluster: &ControlPlane) -> anyhow::Result<Self> {
        Self::start_as(tools, cluster, "*").await
    }

    async fn start_as(
        tools: &Tools,
        cluster: &ControlPlane,
        controllers: &str,
    ) -> anyhow::Result<Self> {
        let dir = cluster.dir.path();
        let mut process = Launch::new(
            "kube-controller-manager",
            tools.path(Tool::ControllerManager)?,
            dir.join("controller-manager.log"),
        )
        .arg(flag("--kubeconfig=", &cluster.kubeconfig()))
        .arg(flag(
            "--service-account-private-key-file=",
            &dir.join("service-accounts.key"),
        ))
        .arg(format!("--controllers={controllers}"))
        .arg(flag("--root-ca-file=", &dir.join("ca.crt")))
        // The default folder is one of the system, and is created.
        .arg(flag(
            "--flex-volume-plugin-dir=",
            &dir.join("volume-plugins"),
        ))
        // The port of its health checks: nobody asks them here.
        .args([
            "--leader-elect=false",
            "--secure-port=0",
            "--namespace-sync-period=1s",
        ])
        .start(tools)?;
        let deadline = Instant::now() + START;
        loop {
            let found = cluster
                .kubectl(["get", "serviceaccount", "default", "--namespace", "default"])
                .await?;
            if found.status.success() {
                return Ok(Self { process });
            }
            if let Some(status) = process.ended()? {
                bail!(
                    "kube-controller-manager ended with {status}:\n{}",
                    process.log().context("its log is lost too")?
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "kube-controller-manager does nothing after {START:?}:\n{}",
                    process.log()?
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the controllers in order.
    ///
    /// # Errors
    ///
    /// Where they do not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }
}
