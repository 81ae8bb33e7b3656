//! The token server and its users.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::listen;
use super::requests::{self, Mark, Request};
use crate::certificates::{ServerFiles, write};
use crate::process::{Launch, Process};
use crate::tools::{Tool, Tools};

/// The name of every registry in tokens.
pub(super) const SERVICE: &str = "registry";
/// The name of the token server in tokens.
pub(super) const ISSUER: &str = "testbed";

/// The address by name. crane refuses a realm on a loopback address (unless it is the registry's own, with its port), and oras
/// refuses a name that resolves to one (unless it is the registry's own): so both servers are `localhost` where there are tokens.
pub(super) fn by_name(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

/// Somebody who may ask for tokens.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    name: String,
    password: String,
    identity_token: String,
    repositories: Vec<Permission>,
}

#[derive(Debug, Clone, Serialize)]
struct Permission {
    name: String,
    actions: Vec<String>,
}

impl User {
    /// A user who may do nothing yet.
    pub fn new(name: &str, password: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            identity_token: String::new(),
            repositories: Vec::new(),
        }
    }

    /// Whoever asks without credentials. Without this user, such a request is refused.
    pub fn anybody() -> Self {
        Self::new("", "")
    }

    /// Lets the user do something (`pull`, `push`, `delete`) to the repositories of a pattern: `team/app`, `team/*` (one
    /// segment), `**` (all).
    #[must_use]
    pub fn may(mut self, repositories: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        self.repositories.push(Permission {
            name: repositories.to_owned(),
            actions,
        });
        self
    }

    /// Gives the user an identity token, which the token server takes in place of the password (OAuth2's refresh token).
    #[must_use]
    pub fn identity_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.identity_token);
        self
    }
}

/// A running token server.
#[derive(Debug)]
pub(super) struct TokenServer {
    _process: Process,
    realm: String,
    dir: PathBuf,
}

impl TokenServer {
    pub(super) async fn start(
        tools: &Tools,
        dir: &Path,
        users: &[User],
        lifetime: Duration,
        files: Option<&ServerFiles>,
    ) -> anyhow::Result<Self> {
        let dir = dir.join("tokens");
        std::fs::create_dir(&dir)?;
        write(
            &dir.join("users.json"),
            &serde_json::to_string_pretty(users)?,
        )?;
        let mut launch = Launch::new("tokens", tools.path(Tool::Tokens)?, dir.join("tokens.log"))
            .arg("-users")
            .arg(dir.join("users.json"))
            .arg("-key")
            .arg(dir.join("key.json"))
            .arg("-jwks")
            .arg(dir.join("jwks.json"))
            .arg("-access-log")
            .arg(dir.join("access.log"))
            .args(["-issuer", ISSUER, "-lifetime"])
            .arg(format!("{}ms", lifetime.as_millis()));
        if let Some(files) = files {
            launch = launch
                .arg("-tls-cert")
                .arg(&files.certificate)
                .arg("-tls-key")
                .arg(&files.key);
        }
        let (process, address) = listen(tools, &launch).await?;
        let scheme = if files.is_some() { "https" } else { "http" };
        let address = by_name(&address);
        Ok(Self {
            _process: process,
            realm: format!("{scheme}://{address}/token"),
            dir,
        })
    }

    /// The address that challenges name.
    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    /// The file with the public key that registries trust.
    pub(super) fn jwks(&self) -> PathBuf {
        self.dir.join("jwks.json")
    }

    pub(super) fn requests(&self) -> anyhow::Result<Vec<Request>> {
        requests::read(&self.dir.join("access.log"), Mark::default())
    }
}
