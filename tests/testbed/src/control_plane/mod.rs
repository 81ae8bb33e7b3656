//! A Kubernetes control plane: kube-apiserver with etcd, and nothing that runs pods. Owns its certificates, its administrator and
//! its service accounts' key; refuses to touch a kubeconfig of the user.

mod controller_manager;
mod kubeconfig;
mod servers;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::certificates::{Authority, write};
use crate::port;
use crate::run::{Ran, Run};
use crate::tools::{Tool, Tools};

pub use controller_manager::ControllerManager;

use servers::{Servers, Setting};

/// The administrator's token; the server listens on loopback only and lives for one test.
const ADMIN_TOKEN: &str = "testbed-admin";
/// How often a start is tried when another process took the port in between.
const TRIES: usize = 3;

/// A running control plane. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct ControlPlane {
    // In this order: the processes end before their folder goes.
    servers: Servers,
    dir: TempDir,
    tools: Tools,
    setting: Setting,
}

/// What a control plane has besides the usual.
#[derive(Default)]
struct Kind<'a> {
    gives_service_accounts: bool,
    webhook_clients: Option<&'a Authority>,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Where it does not become ready; the message has the end of its log.
    pub async fn start(tools: &Tools) -> anyhow::Result<Self> {
        Self::start_as(tools, "127.0.0.1", Kind::default()).await
    }

    /// The same with a client certificate, of this authority, that the server presents to webhooks.
    ///
    /// # Errors
    ///
    /// Where it does not become ready; the message has the end of its log.
    pub async fn start_with_webhook_client(
        tools: &Tools,
        authority: &Authority,
    ) -> anyhow::Result<Self> {
        let kind = Kind {
            webhook_clients: Some(authority),
            ..Kind::default()
        };
        Self::start_as(tools, "127.0.0.1", kind).await
    }

    /// The same with the admission plugin that gives pods their service account and its pull secrets. No pod can be made before
    /// a [`ControllerManager`] has made the namespace's default service account.
    ///
    /// # Errors
    ///
    /// Where it does not become ready; the message has the end of its log.
    pub async fn start_with_service_accounts(tools: &Tools) -> anyhow::Result<Self> {
        Self::start_at(tools, "127.0.0.1").await
    }

    /// The same on another address of this machine, which pods can reach.
    ///
    /// # Errors
    ///
    /// Where it does not become ready; the message has the end of its log.
    pub async fn start_at(tools: &Tools, address: &str) -> anyhow::Result<Self> {
        let kind = Kind {
            gives_service_accounts: true,
            ..Kind::default()
        };
        Self::start_as(tools, address, kind).await
    }

    async fn start_as(tools: &Tools, address: &str, kind: Kind<'_>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("affix-control-plane-")
            .tempdir()?;
        let authority = Authority::new()?;
        let names = [
            "localhost",
            "127.0.0.1",
            address,
            // The Service `kubernetes`, by which pods reach the server.
            "10.96.0.1",
            "kubernetes.default.svc",
        ];
        let lifetime = Duration::from_hours(24 * 365);
        let files = authority.server_named(dir.path(), &names, lifetime)?;
        write(&dir.path().join("ca.crt"), authority.pem())?;
        let service_accounts = KeyPair::generate()?;
        write(
            &dir.path().join("service-accounts.key"),
            &service_accounts.serialize_pem(),
        )?;
        write(
            &dir.path().join("service-accounts.pub"),
            &service_accounts.public_key_pem(),
        )?;
        write(
            &dir.path().join("tokens.csv"),
            &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"),
        )?;
        std::fs::create_dir(dir.path().join("home"))?;
        let admission = kind
            .webhook_clients
            .map(|authority| kubeconfig::write_webhook_client(dir.path(), authority))
            .transpose()?;

        let mut tried = 0;
        loop {
            tried += 1;
            let setting = Setting {
                dir: dir.path().to_owned(),
                files: files.clone(),
                ca_pem: authority.pem().to_owned(),
                address: address.to_owned(),
                port: port::free()?,
                etcd_port: port::free()?,
                gives_service_accounts: kind.gives_service_accounts,
                admission: admission.clone(),
            };
            let mut servers = Servers::start(tools, &setting)?;
            if let Err(error) = servers.ready(&setting).await {
                if tried < TRIES && servers.log()?.contains("address already in use") {
                    continue;
                }
                return Err(error);
            }
            let cluster = Self {
                servers,
                dir,
                tools: tools.clone(),
                setting,
            };
            cluster.write_kubeconfig(&cluster.kubeconfig(), ADMIN_TOKEN, "default")?;
            return Ok(cluster);
        }
    }

    /// The one control plane of this process, started with the first call: for tests that keep apart by namespaces. It ends with
    /// the process, however that ends.
    ///
    /// # Errors
    ///
    /// Where it does not become ready.
    pub async fn shared(tools: &Tools) -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(tools)).await
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The server's URL, normally `https://127.0.0.1:PORT`. It stays the same when the server is started again.
    pub fn url(&self) -> String {
        self.setting.url()
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca_pem(&self) -> &str {
        &self.setting.ca_pem
    }

    /// The public key of the tokens of service accounts, as PEM.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn token_key_pem(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(
            self.dir.path().join("service-accounts.pub"),
        )?)
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
        self.servers.log()
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    ///
    /// Where kubectl cannot be run. What it says about failure is in the result.
    pub async fn kubectl<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Ran> {
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

    fn kubectl_run<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Run> {
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
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<String> {
        let args = [
            "create",
            "token",
            name,
            "--namespace",
            namespace,
            "--duration",
            "1h",
        ];
        Ok(self.kubectl(args).await?.stdout()?.trim().to_owned())
    }

    /// A kubeconfig that speaks with a service account's token, as a pod of it would.
    ///
    /// # Errors
    ///
    /// Where the service account does not exist.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<PathBuf> {
        let token = self.service_account_token(namespace, name).await?;
        let path = self
            .dir
            .path()
            .join(format!("kubeconfig-{namespace}-{name}"));
        self.write_kubeconfig(&path, &token, namespace)?;
        Ok(path)
    }

    fn write_kubeconfig(&self, path: &Path, token: &str, namespace: &str) -> anyhow::Result<()> {
        kubeconfig::write(path, &self.url(), self.ca_pem(), token, namespace)
    }

    /// Ends the server in order. Its data stays for [`ControlPlane::start_again`].
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.servers.stop().await
    }

    /// Kills the server (SIGKILL). Its data stays for [`ControlPlane::start_again`].
    ///
    /// # Errors
    ///
    /// Where it is not gone in time.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.servers.kill().await
    }

    /// Starts the server again on the same port and data.
    ///
    /// # Errors
    ///
    /// Where it does not become ready.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.servers = Servers::start(&self.tools, &self.setting)?;
        self.servers.ready(&self.setting).await
    }

    /// Freezes the server: connections open, and nobody answers.
    pub fn pause(&mut self) {
        self.servers.apiserver().pause();
    }

    /// Lets a frozen server go on.
    pub fn resume(&mut self) {
        self.servers.apiserver().resume();
    }
}
