//! The processes of a control plane: one, or two where `KUBEBUILDER_ASSETS` brings its own. Owns their flags and when they are
//! ready.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::ADMIN_TOKEN;
use crate::certificates::ServerFiles;
use crate::http_client;
use crate::process::{Launch, Process};
use crate::tools::{Tool, Tools};

/// How long the server may take to become ready: 3 s on an idle machine, far more beside a build.
const START: Duration = Duration::from_mins(5);
/// How often `/readyz` is asked.
const POLL: Duration = Duration::from_millis(50);

/// What the processes are started with. The same setting gives the same control plane, with its data, again.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) dir: PathBuf,
    pub(super) files: ServerFiles,
    pub(super) ca_pem: String,
    /// The IP address that the server listens on.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) etcd_port: u16,
    /// Whether pods get the service account of their namespace, which kube-controller-manager makes.
    pub(super) gives_service_accounts: bool,
    /// The configuration of admission, which names the client certificate for webhooks.
    pub(super) admission: Option<PathBuf>,
}

impl Setting {
    pub(super) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }
}

#[derive(Debug)]
pub(super) struct Servers {
    // In this order: who uses etcd ends before it.
    apiserver: Process,
    etcd: Option<Process>,
}

impl Servers {
    /// Starts the processes without waiting for them.
    pub(super) fn start(tools: &Tools, setting: &Setting) -> anyhow::Result<Self> {
        let data = setting.dir.join("etcd");
        let log = setting.dir.join("apiserver.log");
        let mut apiserver = Launch::new("kube-apiserver", tools.path(Tool::ApiServer)?, log)
            .orphans_folder(&setting.dir);
        let etcd = if let Some(assets) = tools.assets() {
            let endpoint = format!("http://127.0.0.1:{}", setting.etcd_port);
            apiserver = apiserver.arg(format!("--etcd-servers={endpoint}"));
            let etcd = Launch::new("etcd", assets.join("etcd"), setting.dir.join("etcd.log"))
                .arg(flag("--data-dir=", &data))
                .arg(format!("--listen-client-urls={endpoint}"))
                .arg(format!("--advertise-client-urls={endpoint}"))
                .args(["--listen-peer-urls=http://127.0.0.1:0", "--unsafe-no-fsync"])
                .arg("--log-level=error");
            Some(etcd.start(tools)?)
        } else {
            apiserver = apiserver.arg(flag("--etcd-data-dir=", &data));
            None
        };
        let dir = &setting.dir;
        let apiserver = apiserver
            .arg(format!("--secure-port={}", setting.port))
            .arg(format!("--bind-address={}", setting.address))
            .arg(format!("--advertise-address={}", setting.address))
            .arg(flag("--cert-dir=", &dir.join("certificates")))
            .arg(flag("--tls-cert-file=", &setting.files.certificate))
            .arg(flag("--tls-private-key-file=", &setting.files.key))
            .arg(flag("--token-auth-file=", &dir.join("tokens.csv")))
            .arg(flag(
                "--service-account-signing-key-file=",
                &dir.join("service-accounts.key"),
            ))
            .arg(flag(
                "--service-account-key-file=",
                &dir.join("service-accounts.pub"),
            ))
            // The issuer of tokens is the address of the server, where other services find its keys.
            .arg(format!("--service-account-issuer={}", setting.url()))
            .arg(format!(
                "--service-account-jwks-uri={}/openid/v1/jwks",
                setting.url()
            ))
            .args([
                "--service-cluster-ip-range=10.96.0.0/24",
                "--authorization-mode=RBAC",
            ])
            // Without kube-controller-manager nobody makes the default service account that this plugin waits for.
            .args(
                (!setting.gives_service_accounts)
                    .then_some("--disable-admission-plugins=ServiceAccount"),
            )
            .args(
                setting
                    .admission
                    .iter()
                    .map(|path| flag("--admission-control-config-file=", path)),
            )
            .start(tools)?;
        Ok(Self { apiserver, etcd })
    }

    /// Asks `/readyz` until it says yes.
    pub(super) async fn ready(&mut self, setting: &Setting) -> anyhow::Result<()> {
        let client = http_client::client(Some(&setting.ca_pem))?;
        let url = format!("{}/readyz", setting.url());
        let deadline = Instant::now() + START;
        loop {
            let answer = client.get(&url).bearer_auth(ADMIN_TOKEN).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            for process in self.etcd.iter_mut().chain([&mut self.apiserver]) {
                if let Some(status) = process.ended()? {
                    bail!(
                        "{} ended with {status}:\n{}",
                        process.name(),
                        process.log()?
                    );
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "kube-apiserver is not ready after {START:?}:\n{}",
                    self.log()?
                );
            }
            sleep(POLL).await;
        }
    }

    /// Everything that was printed.
    pub(super) fn log(&self) -> anyhow::Result<String> {
        let etcd = self.etcd.as_ref().map_or(Ok(String::new()), Process::log)?;
        Ok(etcd + &self.apiserver.log()?)
    }

    pub(super) fn apiserver(&mut self) -> &mut Process {
        &mut self.apiserver
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.apiserver.stop().await?;
        if let Some(etcd) = &mut self.etcd {
            etcd.stop().await?;
        }
        Ok(())
    }

    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.apiserver.kill().await?;
        if let Some(etcd) = &mut self.etcd {
            etcd.kill().await?;
        }
        Ok(())
    }
}

/// A flag whose value is a path.
pub(super) fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}
