//! Other people's tools, run beside a registry. Owns a home folder, so that nothing of the user's (logins, trust, plugins) is
//! seen or changed; refuses to interpret what they print.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON object that was made here takes any key"
)]

use std::ffi::OsString;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::certificates::write;
use crate::registry::Registry;
use crate::run::{Ran, Run};
use crate::tools::{Tool, Tools};

/// The readers and writers, with the logins and the trust of one home.
#[derive(Debug)]
pub struct Peer {
    home: TempDir,
    tools: Tools,
    logins: Map<String, Value>,
    regctl_hosts: Map<String, Value>,
    roots: String,
    hosts: Vec<(String, bool)>,
}

impl Peer {
    /// Tools that know no registry.
    ///
    /// # Errors
    ///
    /// Where no folder can be made.
    pub fn new(tools: &Tools) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("affix-peer-").tempdir()?;
        Ok(Self {
            home,
            tools: tools.clone(),
            logins: Map::new(),
            regctl_hosts: Map::new(),
            roots: String::new(),
            hosts: Vec::new(),
        })
    }

    /// Tools that are logged in to a registry, with the right to do everything, and trust its certificate.
    ///
    /// # Errors
    ///
    /// Where their configuration cannot be written.
    pub fn of(tools: &Tools, registry: &Registry) -> anyhow::Result<Self> {
        let mut peer = Self::new(tools)?;
        peer.know(registry, registry.credentials())?;
        Ok(peer)
    }

    /// Makes a registry known: its certificate, and a login where one is given.
    ///
    /// # Errors
    ///
    /// Where the configuration cannot be written.
    pub fn know(&mut self, registry: &Registry, login: Option<(&str, &str)>) -> anyhow::Result<()> {
        let host = registry.host().to_owned();
        let mut regctl = json!({"hostname": host, "tls": "enabled"});
        if let Some((user, password)) = login {
            let auth = STANDARD.encode(format!("{user}:{password}"));
            self.logins.insert(host.clone(), json!({"auth": auth}));
            regctl["user"] = json!(user);
            regctl["pass"] = json!(password);
        }
        if let Some(pem) = registry.ca_pem() {
            self.roots.push_str(pem);
        } else {
            regctl["tls"] = json!("disabled");
        }
        self.hosts.push((host.clone(), !registry.is_tls()));
        self.regctl_hosts.insert(host, regctl);
        write(
            &self.file("config.json"),
            &json!({"auths": self.logins}).to_string(),
        )?;
        write(
            &self.file("regctl.json"),
            &json!({"hosts": self.regctl_hosts}).to_string(),
        )?;
        write(&self.file("roots.pem"), &self.roots)
    }

    /// Makes a host known that speaks plain HTTP and asks for no login.
    ///
    /// # Errors
    ///
    /// Where the configuration cannot be written.
    pub fn know_plain(&mut self, host: &str) -> anyhow::Result<()> {
        self.hosts.push((host.to_owned(), true));
        self.regctl_hosts.insert(
            host.to_owned(),
            json!({"hostname": host, "tls": "disabled"}),
        );
        write(
            &self.file("regctl.json"),
            &json!({"hosts": self.regctl_hosts}).to_string(),
        )
    }

    /// Makes a host known that speaks TLS with a certificate of this authority and asks for no login.
    ///
    /// # Errors
    ///
    /// Where the configuration cannot be written.
    pub fn know_tls(&mut self, host: &str, ca_pem: &str) -> anyhow::Result<()> {
        self.hosts.push((host.to_owned(), false));
        self.regctl_hosts
            .insert(host.to_owned(), json!({"hostname": host, "tls": "enabled"}));
        if !self.roots.contains(ca_pem) {
            self.roots.push_str(ca_pem);
        }
        write(
            &self.file("regctl.json"),
            &json!({"hosts": self.regctl_hosts}).to_string(),
        )?;
        write(&self.file("roots.pem"), &self.roots)
    }

    /// Runs oras. Where an argument names a registry that is known, oras is told whether that speaks plain HTTP; by itself it
    /// would take `localhost` for one that does.
    ///
    /// # Errors
    ///
    /// Where it cannot be run. What it says about failure is in the result.
    pub async fn oras<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Ran> {
        let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let plain = args
            .iter()
            .find_map(|arg| self.is_plain(&arg.to_string_lossy()));
        if let Some(plain) = plain {
            args.push(format!("--plain-http={plain}").into());
        }
        self.run(Tool::Oras)?.args(args).output().await
    }

    /// Runs crane, which finds out by itself how loopback registries speak.
    ///
    /// # Errors
    ///
    /// Where it cannot be run. What it says about failure is in the result.
    pub async fn crane<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Ran> {
        self.run(Tool::Crane)?.args(args).output().await
    }

    /// Runs regctl.
    ///
    /// # Errors
    ///
    /// Where it cannot be run. What it says about failure is in the result.
    pub async fn regctl<A: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Ran> {
        self.run(Tool::Regctl)?.args(args).output().await
    }

    /// A run of any tool in this home, for arguments, input and variables of its own. cosign's `COSIGN_PASSWORD` is empty.
    ///
    /// # Errors
    ///
    /// Where the tool was not built.
    pub fn run(&self, tool: Tool) -> anyhow::Result<Run> {
        let home = self.home.path();
        let run = Run::new(self.tools.path(tool)?).dir(home);
        Ok(self
            .environment()
            .into_iter()
            .fold(run, |run, (name, value)| run.env(name, value)))
    }

    /// What makes a tool use this home.
    pub fn environment(&self) -> [(&'static str, PathBuf); 5] {
        let home = self.home.path().to_owned();
        [
            ("HOME", home.clone()),
            ("DOCKER_CONFIG", home),
            ("REGCTL_CONFIG", self.file("regctl.json")),
            ("SSL_CERT_FILE", self.file("roots.pem")),
            ("COSIGN_PASSWORD", PathBuf::new()),
        ]
    }

    /// A path in the home folder, which is also the folder that the tools run in.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Whether the registry that a reference names speaks plain HTTP; none for an argument that names none that is known.
    fn is_plain(&self, reference: &str) -> Option<bool> {
        let (host, _) = reference.split_once('/')?;
        let (_, plain) = self.hosts.iter().find(|(known, _)| known == host)?;
        Some(*plain)
    }
}
