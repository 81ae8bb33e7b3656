//! OpenBao: the real server in memory, with TLS by an authority of its own, a transit engine and an audit log.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::port;
use crate::process::{Launch, Process};
use crate::run::Run;
use crate::tools::{OPENBAO, Tools};

/// The token of the administrator. The server listens on loopback only and lives for one test.
const ROOT: &str = "testbed-root";

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct OpenBao {
    process: Process,
    program: PathBuf,
    dir: TempDir,
    address: String,
}

impl OpenBao {
    /// Starts a server and mounts `transit`.
    ///
    /// # Errors
    ///
    /// Where it cannot be installed or does not start; the message has the end of its log.
    pub async fn start(tools: &Tools) -> anyhow::Result<Self> {
        let program = tokio::task::spawn_blocking(|| OPENBAO.ensure()).await??;
        let dir = tempfile::Builder::new()
            .prefix("affix-openbao-")
            .tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "audit \"file\" \"audit\" {{\n  options {{\n    file_path = \"{}\"\n  }}\n}}\n",
            path("audit.log")
        );
        std::fs::write(path("config.hcl"), config)?;
        std::fs::create_dir(path("tls"))?;
        let address = format!("127.0.0.1:{}", port::free()?);
        let launch = Launch::new("OpenBao", &program, path("log"))
            .args(["server", "-dev", "-dev-tls", "-dev-no-store-token"])
            .arg(format!("-dev-tls-cert-dir={}", path("tls")))
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-dev-listen-address={address}"))
            .arg(format!("-config={}", path("config.hcl")))
            .env("HOME", dir.path());
        let mut process = launch.start(tools)?;
        process
            .wait_for(Duration::from_mins(2), "unseal key", |log| {
                log.contains("Root Token:").then_some(())
            })
            .await?;
        let bao = Self {
            process,
            program,
            dir,
            address,
        };
        bao.run(&["secrets", "enable", "transit"]).await?;
        Ok(bao)
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The token of the administrator.
    #[must_use]
    pub const fn root_token(&self) -> &'static str {
        ROOT
    }

    /// The file with the certificate of the authority.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("tls").join("vault-ca.pem")
    }

    /// The certificate of the authority, as PEM.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn ca_pem(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.ca_file())?)
    }

    /// Runs `bao` as the administrator and returns its output.
    ///
    /// # Errors
    ///
    /// Where it fails.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.run_with(args, "").await
    }

    /// Writes a JSON document to a path of the API.
    ///
    /// # Errors
    ///
    /// Where the server refuses it.
    pub async fn write(&self, path: &str, document: &Value) -> anyhow::Result<String> {
        self.run_with(&["write", path, "-"], &document.to_string())
            .await
    }

    async fn run_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let run = Run::new(&self.program)
            .args(args.iter().copied())
            .env("HOME", self.dir.path())
            .env("BAO_ADDR", self.url())
            .env("BAO_CACERT", self.ca_file())
            .env("BAO_TOKEN", ROOT)
            .input(input);
        run.output().await?.stdout()
    }

    /// Seals the server.
    ///
    /// # Errors
    ///
    /// Where it refuses.
    pub async fn seal(&self) -> anyhow::Result<()> {
        self.run(&["operator", "seal"]).await.map(drop)
    }

    /// Unseals the server.
    ///
    /// # Errors
    ///
    /// Where it refuses.
    pub async fn unseal(&self) -> anyhow::Result<()> {
        let log = self.process.log()?;
        let key = log
            .lines()
            .find_map(|line| line.strip_prefix("Unseal Key: "))
            .context("the log has no unseal key")?;
        self.run(&["operator", "unseal", key.trim()])
            .await
            .map(drop)
    }

    /// Returns the requests to a path so far, as the audit log has them. Secrets in them are hashed.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn requests(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let log = std::fs::read_to_string(self.dir.path().join("audit.log"))?;
        let entries = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_path = |entry: &Value| {
            entry.get("type").and_then(Value::as_str) == Some("request")
                && entry.pointer("/request/path").and_then(Value::as_str) == Some(path)
        };
        Ok(entries.filter(of_path).collect())
    }
}
