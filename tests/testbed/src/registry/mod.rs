//! Real registries. Owns their processes, users, certificates and logs; refuses to know what an attachment is.
//!
//! | | referrers API | what it is for |
//! | --- | --- | --- |
//! | [`Registry::ociregistry`] | yes | listing, filter, `OCI-Subject`; imitates others' quirks |
//! | [`Registry::distribution`] | no | the fallback tag; htpasswd; refuses to delete by default |
//! | [`Registry::liar`] | in part | lists wrong artifact types, ignores the filter, never answers `OCI-Subject` |

mod distribution;
mod memory;
mod options;
mod raw;
mod requests;
mod tokens;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::{Authority, ServerFiles};
use crate::process::{Launch, Process};
use crate::tools::Tools;

pub use options::{Options, Quirk};
pub use raw::{Answer, RawClient};
pub use requests::{Mark, Request};
pub use tokens::User;

use tokens::TokenServer;

/// How long a registry may take to listen.
const START: Duration = Duration::from_secs(30);

/// A running registry. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Registry {
    // In this order: the processes end before the folder goes.
    process: Process,
    tokens: Option<TokenServer>,
    dir: TempDir,
    tools: Tools,
    options: Options,
    files: Option<ServerFiles>,
    address: String,
    host: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    OciRegistry,
    Distribution,
    Liar,
}

/// What a kind of registry needs to know to start.
struct Setting<'a> {
    dir: &'a Path,
    options: &'a Options,
    files: Option<&'a ServerFiles>,
    tokens: Option<&'a TokenServer>,
    /// The address to listen on.
    address: &'a str,
}

impl Registry {
    /// The registry with the referrers API. It keeps everything in memory.
    pub fn ociregistry(tools: &Tools) -> Options {
        Options::new(tools, Kind::OciRegistry)
    }

    /// distribution, which has no referrers API. It keeps everything in a folder, over restarts.
    pub fn distribution(tools: &Tools) -> Options {
        Options::new(tools, Kind::Distribution)
    }

    /// go-containerregistry's registry, a natural liar about referrers. It keeps everything in memory.
    pub fn liar(tools: &Tools) -> Options {
        Options::new(tools, Kind::Liar)
    }

    async fn start(tools: Tools, options: Options) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("affix-registry-")
            .tempdir()?;
        let files = match (options.authority(), options.place()) {
            (Some(authority), None) => Some(authority.server(dir.path())?),
            (Some(authority), Some(place)) => {
                let lifetime = Duration::from_hours(24 * 365);
                Some(authority.server_named(dir.path(), &[&place.name], lifetime)?)
            }
            (None, _) => None,
        };
        let tokens = match options.users() {
            Some(users) => Some(
                TokenServer::start(
                    &tools,
                    dir.path(),
                    users,
                    options.lifetime(),
                    files.as_ref(),
                )
                .await?,
            ),
            None => None,
        };
        let (process, address) = Self::launch(
            &tools,
            &Setting {
                dir: dir.path(),
                options: &options,
                files: files.as_ref(),
                tokens: tokens.as_ref(),
                address: options
                    .place()
                    .map_or("127.0.0.1:0", |place| &place.address),
            },
        )
        .await?;
        let host = match (&tokens, options.place()) {
            (Some(_), _) => tokens::by_name(&address),
            (None, Some(place)) => address.rsplit_once(':').map_or_else(
                || place.name.clone(),
                |(_, port)| format!("{}:{port}", place.name),
            ),
            (None, None) => address.clone(),
        };
        Ok(Self {
            process,
            tokens,
            dir,
            tools,
            options,
            files,
            address,
            host,
        })
    }

    async fn launch(tools: &Tools, setting: &Setting<'_>) -> anyhow::Result<(Process, String)> {
        let launch = match setting.options.kind() {
            Kind::Distribution => distribution::launch(tools, setting)?,
            Kind::OciRegistry | Kind::Liar => memory::launch(tools, setting)?,
        };
        listen(tools, &launch.orphans_folder(setting.dir)).await
    }

    /// `127.0.0.1:PORT`, as references begin; `localhost:PORT` where tokens are asked for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http://HOST`, or `https://HOST`.
    pub fn url(&self) -> String {
        format!(
            "{}://{}",
            if self.is_tls() { "https" } else { "http" },
            self.host
        )
    }

    /// Whether the registry speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.files.is_some()
    }

    /// The certificate of the authority that signed the registry's; none where it speaks plain HTTP.
    pub fn ca_pem(&self) -> Option<&str> {
        self.options.authority().map(Authority::pem)
    }

    /// The name and password that may do everything here; none where no authentication is asked for.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.options.credentials()
    }

    /// A plain HTTP client of this registry that may do everything.
    ///
    /// # Errors
    ///
    /// Where no client can be made.
    pub fn raw(&self) -> anyhow::Result<RawClient> {
        RawClient::new(&self.url(), self.ca_pem(), self.credentials())
    }

    /// Every request that was answered, in the order of the answers.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn requests(&self) -> anyhow::Result<Vec<Request>> {
        self.requests_since(Mark::default())
    }

    /// The requests that were answered after a mark.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn requests_since(&self, mark: Mark) -> anyhow::Result<Vec<Request>> {
        requests::read(&self.access_log(), mark)
    }

    /// The present end of the log of requests.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        requests::mark(&self.access_log())
    }

    /// Every request that the token server answered; none where there is no token server.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub fn token_requests(&self) -> anyhow::Result<Vec<Request>> {
        self.tokens
            .as_ref()
            .map_or(Ok(Vec::new()), TokenServer::requests)
    }

    fn access_log(&self) -> PathBuf {
        match self.options.kind() {
            Kind::Distribution => distribution::log(self.dir.path()),
            Kind::OciRegistry | Kind::Liar => memory::access_log(self.dir.path()),
        }
    }

    /// Ends the registry: connections to it are refused until [`Registry::start_again`].
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }

    /// Starts the registry again on the same port. One that keeps its data in memory is empty then.
    ///
    /// # Errors
    ///
    /// Where it does not listen.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let (process, _) = Self::launch(
            &self.tools,
            &Setting {
                dir: self.dir.path(),
                options: &self.options,
                files: self.files.as_ref(),
                tokens: self.tokens.as_ref(),
                address: &self.address,
            },
        )
        .await?;
        self.process = process;
        Ok(())
    }

    /// Freezes the registry: connections open, and nobody answers.
    pub fn pause(&mut self) {
        self.process.pause();
    }

    /// Lets a frozen registry go on.
    pub fn resume(&mut self) {
        self.process.resume();
    }
}

/// Starts a server and waits for the address in its log.
async fn listen(tools: &Tools, launch: &Launch) -> anyhow::Result<(Process, String)> {
    let mut process = launch.start(tools)?;
    let address = process
        .wait_for(START, "address that it listens on", listening_on)
        .await?;
    Ok((process, address))
}

/// The address after the words `listening on`, which every server of the testbed prints.
fn listening_on(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    rest.get(..end).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_taken_once_its_line_is_whole() {
        assert_eq!(listening_on("listening on 127.0.0.1:41"), None);
        assert_eq!(
            listening_on("listening on 127.0.0.1:4123\n").as_deref(),
            Some("127.0.0.1:4123")
        );
        let line = r#"time="x" level=info msg="listening on 127.0.0.1:4123, tls" version=v3"#;
        assert_eq!(listening_on(line).as_deref(), Some("127.0.0.1:4123"));
    }
}
