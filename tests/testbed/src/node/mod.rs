//! A Kubernetes node with its control plane: kubelet, containerd, kube-proxy, CoreDNS and a registry, in namespaces and cgroups of its own.
//!
//! [`isolation`] runs a program in such namespaces. That program calls [`Node::start`]. Nothing of the host's network, mounts and kernel
//! settings changes, and all processes end with the program.

pub mod isolation;

mod config;
mod setup;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::certificates::Authority;
use crate::control_plane::{ControlPlane, ControllerManager};
use crate::images::Image;
use crate::process::{Launch, Process};
use crate::registry::Registry;
use crate::tools::{Tool, Tools};

/// The IP address of the node, which pods can reach.
const ADDRESS: &str = "10.99.0.1";
/// The registry's port.
const PORT: u16 = 5000;
/// The registry's DNS name: on the node by `/etc/hosts`, in pods by a Service.
const REGISTRY: &str = "registry.lab.svc.cluster.local";
/// The maximum time until the node is ready, in which it pulls nothing.
const START: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(200);

/// A running node. Dropping it ends its processes.
#[derive(Debug)]
pub struct Node {
    // In this order: each process ends before those that it needs.
    processes: Vec<Process>,
    _controllers: ControllerManager,
    registry: Registry,
    cluster: ControlPlane,
    authority: Arc<Authority>,
}

impl Node {
    /// Starts a node with its data in `dir` and waits until it is ready. The caller runs in namespaces of [`isolation`].
    ///
    /// # Errors
    ///
    /// Returns an error if a process does not start. The message has its log.
    pub async fn start(tools: &Tools, dir: &Path) -> anyhow::Result<Self> {
        setup::prepare(dir, &[(REGISTRY, ADDRESS)])?;
        let authority = Arc::new(Authority::new()?);
        let host = format!("{REGISTRY}:{PORT}");
        let cluster = ControlPlane::start_at(tools, ADDRESS).await?;
        config::write(dir, &cluster.kubeconfig(), &host, authority.pem())?;

        let program = tools.path(Tool::Containerd)?;
        let mut containerd = Launch::new("containerd", program, dir.join("log/containerd"))
            .arg("--config")
            .arg(dir.join("containerd.toml"))
            // With the folder of its shim.
            .env("PATH", search_path(program.parent().unwrap_or(dir))?)
            .start(tools)?;
        let registry = Registry::distribution(tools)
            .tls(&authority)
            .at(&format!("{ADDRESS}:{PORT}"), REGISTRY)
            .delete_enabled(true)
            .start();
        let (registry, controllers) =
            tokio::try_join!(registry, ControllerManager::start_all(tools, &cluster))?;
        push_pause(tools, &registry).await?;
        containerd
            .wait_for(START, "socket", |log| {
                log.contains("serving...").then_some(())
            })
            .await?;

        let applied = cluster.kubectl_with(["apply", "-f", "-"], config::services(ADDRESS, PORT));
        applied.await?.stdout()?;
        let launches = launches(tools, dir, &cluster.kubeconfig())?;
        let mut processes = launches
            .iter()
            .map(|launch| launch.start(tools))
            .collect::<anyhow::Result<Vec<Process>>>()?;
        processes.push(containerd);
        let mut node = Self {
            processes,
            _controllers: controllers,
            registry,
            cluster,
            authority,
        };
        node.ready().await?;
        Ok(node)
    }

    /// Waits until the node is ready.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        loop {
            let found = self
                .cluster
                .kubectl(["get", "node", setup::NAME, "--output", condition])
                .await?;
            if found.out == "True" {
                return Ok(());
            }
            for process in &mut self.processes {
                if let Some(status) = process.ended()? {
                    bail!(
                        "{} ended with {status}:\n{}",
                        process.name(),
                        process.log()?
                    );
                }
            }
            if Instant::now() > deadline {
                let kubelet = self.processes.first().context("the kubelet was started")?;
                bail!("the node is not ready after {START:?}:\n{}", kubelet.log()?);
            }
            sleep(POLL).await;
        }
    }

    /// The control plane.
    pub fn cluster(&self) -> &ControlPlane {
        &self.cluster
    }

    /// The registry, which speaks TLS with a certificate of [`Node::ca_pem`]. Containerd trusts it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The certificate of the private authority.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The name of the node.
    pub fn name(&self) -> &'static str {
        setup::NAME
    }
}

/// The programs of the node besides containerd.
fn launches(tools: &Tools, dir: &Path, kubeconfig: &Path) -> anyhow::Result<[Launch; 4]> {
    let path = search_path(Path::new("/usr/sbin"))?;
    let launch = |name: &str, tool| {
        let log = dir.join("log").join(name);
        anyhow::Ok(Launch::new(name, tools.path(tool)?, log).env("PATH", &path))
    };
    let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
    Ok([
        launch("kubelet", Tool::Node)?
            .arg("kubelet")
            .arg(flag("config", &dir.join("kubelet.yaml")))
            .arg(flag("kubeconfig", kubeconfig))
            .arg(format!("--node-ip={ADDRESS}"))
            .arg(format!("--hostname-override={}", setup::NAME)),
        launch("kube-proxy", Tool::Node)?
            .arg("kube-proxy")
            .arg(flag("config", &dir.join("kube-proxy.yaml"))),
        launch("kube-scheduler", Tool::Node)?
            .arg("kube-scheduler")
            .arg(flag("kubeconfig", kubeconfig))
            .args(["--leader-elect=false", "--secure-port=0"]),
        launch("coredns", Tool::Dns)?
            .arg("-conf")
            .arg(dir.join("Corefile")),
    ])
}

/// The platform of this machine.
pub fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

/// A program that waits for a signal, as image content.
///
/// # Errors
///
/// Returns an error if the program was not built.
pub fn pause_program(tools: &Tools) -> anyhow::Result<Arc<[u8]>> {
    Ok(Arc::from(std::fs::read(tools.path(Tool::Pause)?)?))
}

async fn push_pause(tools: &Tools, registry: &Registry) -> anyhow::Result<()> {
    let image = Image::new(platform(), "pause").program(&pause_program(tools)?);
    image
        .push(
            &registry.raw()?,
            config::PAUSE_REPOSITORY,
            config::PAUSE_TAG,
        )
        .await
        .map(drop)
}

/// `PATH` with a folder before it, and with the folders of the system's programs.
fn search_path(first: &Path) -> anyhow::Result<std::ffi::OsString> {
    let mut folders = vec![first.to_owned()];
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    Ok(std::env::join_paths(folders)?)
}
