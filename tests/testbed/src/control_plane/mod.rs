//! A Kubernetes control plane: kube-apiserver with etcd, and nothing that runs pods. Owns its certificates, its administrator and
//! its service accounts' key; refuses to touch a kubeconfig of the user.

mod controller_manager;
mod kubeconfig;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::certificates::{Authority, ServerFiles, write};
use crate::http_client;
use crate::port;
use crate::process::{Launch, Process};
use crate::run::{Ran, Run};
use crate::tools::{Tool, Tools};

pub use controller_manager::ControllerManager;

/// The administrator's token; the server listens on loopback only and lives for one test.
const ADMIN_TOKEN: &str = "testbed-admin";
/// How long the server may take to become ready: 3 s on an idle machine, far more beside a build.
const START: Duration = Duration::from_secs(120);
/// How often a start is tried when another process took the port in between.
const TRIES: usize = 3;

/// A running control plane. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct ControlPlane {
    // In this order: a process ends before its folder goes.
    apiserver: Process,
    etcd: Option<Process>,
    dir: TempDir,
    tools: Tools,
    authority: Authority,
    files: ServerFiles,
    port: u16,
    etcd_port: u16,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Where it does not become ready; the message has the end of its log.
    pub async fn start(tools: &Tools) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("affix-control-plane-").tempdir()?;
        let authority = Authority::new()?;
        let files = authority.server(dir.path())?;
        let service_accounts = KeyPair::generate()?;
        write(&dir.path().join("service-accounts.key"), &service_accounts.serialize_pem())?;
        write(&dir.path().join("service-accounts.pub"), &service_accounts.public_key_pem())?;
        write(&dir.path().join("tokens.csv"), &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
        std::fs::create_dir(dir.path().join("home"))?;

        let mut tried = 0;
        loop {
            tried += 1;
            let (port, etcd_port) = (port::free()?, port::free()?);
            let (etcd, mut apiserver) = launch(tools, dir.path(), &files, port, etcd_port)?;
            let url = format!("https://127.0.0.1:{port}");
            match ready(&mut apiserver, &url, authority.pem()).await {
                Ok(()) => {
                    kubeconfig::write(&dir.path().join("kubeconfig"), &url, authority.pem(), ADMIN_TOKEN, "default")?;
                    let tools = tools.clone();
                    return Ok(Self { apiserver, etcd, dir, tools, authority, files, port, etcd_port });
                }
                Err(_) if tried < TRIES && apiserver.log()?.contains("address already in use") => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The server's address, `https://127.0.0.1:PORT`. It stays the same when the server is started again.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The administrator's bearer token.
    pub fn admin_token(&self) -> &'static str {
        ADMIN_TOKEN
    }

    /// Everything the server has printed.
    ///
    /// # Errors
    ///
    /// Where its log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        self.apiserver.log()
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    ///
    /// Where kubectl cannot be run. What it says about failure is in the result.
    pub async fn kubectl<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> anyhow::Result<Ran> {
        self.kubectl_run(args)?.output().await
    }

    /// Runs kubectl as the administrator, with something on its standard input: `kubectl_with(["apply", "-f", "-"], yaml)`.
    ///
    /// # Errors
    ///
    /// Where kubectl cannot be run. What it says about failure is in the result.
    pub async fn kubectl_with<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: impl Into<Vec<u8>>,
    ) -> anyhow::Result<Ran> {
        self.kubectl_run(args)?.input(input).output().await
    }

    fn kubectl_run<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> anyhow::Result<Run> {
        Ok(Run::new(self.tools.path(Tool::Kubectl)?)
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.dir.path().join("home")))
    }

    /// A token of a service account, by the TokenRequest API, valid for an hour.
    ///
    /// # Errors
    ///
    /// Where the service account does not exist.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let args = ["create", "token", name, "--namespace", namespace, "--duration", "1h"];
        Ok(self.kubectl(args).await?.stdout()?.trim().to_owned())
    }

    /// A kubeconfig that speaks with a service account's token, as a pod of it would.
    ///
    /// # Errors
    ///
    /// Where the service account does not exist.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token = self.service_account_token(namespace, name).await?;
        let path = self.dir.path().join(format!("kubeconfig-{namespace}-{name}"));
        kubeconfig::write(&path, &self.url(), self.ca_pem(), &token, namespace)?;
        Ok(path)
    }

    /// Ends the server in order. Its data stays for [`ControlPlane::start_again`].
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.apiserver.stop().await?;
        if let Some(etcd) = &mut self.etcd {
            etcd.stop().await?;
        }
        Ok(())
    }

    /// Kills the server (SIGKILL). Its data stays for [`ControlPlane::start_again`].
    ///
    /// # Errors
    ///
    /// Where it is not gone in time.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.apiserver.kill().await?;
        if let Some(etcd) = &mut self.etcd {
            etcd.kill().await?;
        }
        Ok(())
    }

    /// Starts the server again on the same port and data.
    ///
    /// # Errors
    ///
    /// Where it does not become ready.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let (etcd, apiserver) = launch(&self.tools, self.dir.path(), &self.files, self.port, self.etcd_port)?;
        self.etcd = etcd;
        self.apiserver = apiserver;
        ready(&mut self.apiserver, &format!("https://127.0.0.1:{}", self.port), self.authority.pem()).await
    }
}

/// Starts the processes: one, or two where `KUBEBUILDER_ASSETS` brings its own.
fn launch(tools: &Tools, dir: &Path, files: &ServerFiles, port: u16, etcd_port: u16) -> anyhow::Result<(Option<Process>, Process)> {
    let data = dir.join("etcd");
    let mut apiserver = Launch::new("kube-apiserver", tools.path(Tool::ApiServer)?, dir.join("apiserver.log"));
    let etcd = match tools.assets() {
        None => {
            apiserver = apiserver.arg(flag("--etcd-data-dir=", &data));
            None
        }
        Some(assets) => {
            let endpoint = format!("http://127.0.0.1:{etcd_port}");
            apiserver = apiserver.arg(format!("--etcd-servers={endpoint}"));
            let etcd = Launch::new("etcd", assets.join("etcd"), dir.join("etcd.log"))
                .arg(flag("--data-dir=", &data))
                .arg(format!("--listen-client-urls={endpoint}"))
                .arg(format!("--advertise-client-urls={endpoint}"))
                .args(["--listen-peer-urls=http://127.0.0.1:0", "--unsafe-no-fsync", "--log-level=error"]);
            Some(etcd.start(tools)?)
        }
    };
    let apiserver = apiserver
        .arg(format!("--secure-port={port}"))
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(flag("--cert-dir=", &dir.join("certificates")))
        .arg(flag("--tls-cert-file=", &files.certificate))
        .arg(flag("--tls-private-key-file=", &files.key))
        .arg(flag("--token-auth-file=", &dir.join("tokens.csv")))
        .arg(flag("--service-account-signing-key-file=", &dir.join("service-accounts.key")))
        .arg(flag("--service-account-key-file=", &dir.join("service-accounts.pub")))
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/24"])
        .arg("--authorization-mode=RBAC")
        // Without kube-controller-manager nobody makes the default service account that this plugin waits for.
        .arg("--disable-admission-plugins=ServiceAccount")
        .start(tools)?;
    Ok((etcd, apiserver))
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

/// Asks `/readyz` until it says yes.
async fn ready(apiserver: &mut Process, url: &str, ca_pem: &str) -> anyhow::Result<()> {
    let client = http_client::client(Some(ca_pem))?;
    let deadline = Instant::now() + START;
    loop {
        let ended = apiserver.ended()?;
        let answer = client.get(format!("{url}/readyz")).bearer_auth(ADMIN_TOKEN).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if let Some(status) = ended {
            bail!("kube-apiserver ended with {status}:\n{}", apiserver.log().context("its log is lost too")?);
        }
        if Instant::now() > deadline {
            bail!("kube-apiserver is not ready after {START:?}:\n{}", apiserver.log()?);
        }
        sleep(Duration::from_millis(50)).await;
    }
}
