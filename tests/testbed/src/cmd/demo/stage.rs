//! The stage of the demo: what runs while it lasts, and the shell that its commands run in.
//!
//! Owns the processes, which end with it, and a home folder, so that nothing of the user's (logins, kubeconfig) is seen or changed.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::process::{Launch, Process};
use affix_testbed::registry::Registry;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use anyhow::{Context, bail};
use tempfile::TempDir;

use super::super::say;
use super::{API, TAG};

/// How many of the operator's last lines a failure shows.
const LINES: usize = 20;
/// How often is looked whether the operator still runs.
const POLL: Duration = Duration::from_millis(100);

/// What runs.
pub(super) struct Stage {
    // In this order: who uses another ends before it.
    controller: Option<Process>,
    /// The control plane.
    pub(super) cluster: ControlPlane,
    /// The registry with the referrers API.
    pub(super) modern: Registry,
    /// distribution.
    pub(super) plain: Registry,
    home: TempDir,
    path: OsString,
    tools: Tools,
}

impl Stage {
    /// Starts all but the operator.
    pub(super) async fn set(tools: &Tools, affix: &Path) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("affix-demo-").tempdir()?;
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin)?;
        let tool = |tool| tools.path(tool).map(Path::to_owned);
        let programs = [
            ("affix", affix.to_owned()),
            ("kubectl", tool(Tool::Kubectl)?),
            ("oras", tool(Tool::Oras)?),
            ("cosign", tool(Tool::Cosign)?),
        ];
        for (name, program) in programs {
            symlink(program, bin.join(name))
                .with_context(|| format!("{name} cannot be put into {}", bin.display()))?;
        }
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&others)))?;
        let (cluster, modern, plain) = tokio::try_join!(
            ControlPlane::start(tools),
            Registry::ociregistry(tools).start(),
            Registry::distribution(tools).start()
        )?;
        Ok(Self {
            controller: None,
            cluster,
            modern,
            plain,
            home,
            path,
            tools: tools.clone(),
        })
    }

    /// Each registry's namespace, and its host.
    pub(super) fn places(&self) -> [(&'static str, String); 2] {
        [
            (API, self.modern.host().to_owned()),
            (TAG, self.plain.host().to_owned()),
        ]
    }

    /// Shows a command as one would type it, runs exactly that, and shows what it prints.
    pub(super) async fn run(&self, line: &str) -> anyhow::Result<()> {
        command(line);
        let ran = Run::new("/bin/sh")
            .args(["-c", line])
            .dir(root())
            .env("PATH", &self.path)
            .env("HOME", self.home.path());
        let ran = ran
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .output()
            .await?;
        for text in [&ran.out, &ran.err] {
            if !text.is_empty() {
                say(text.trim_end());
            }
        }
        if !ran.status.success() {
            bail!("the command `{line}` ended with {}", ran.status);
        }
        Ok(())
    }

    /// The same, for a command that waits for what the operator does: it is given up as soon as the operator has ended.
    pub(super) async fn run_beside_controller(&mut self, line: &str) -> anyhow::Result<()> {
        let mut controller = self.controller.take();
        let ended = async {
            loop {
                if let Some(status) = controller
                    .as_mut()
                    .map(Process::ended)
                    .transpose()?
                    .flatten()
                {
                    bail!("the operator ended with {status} while it was needed");
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let ran = tokio::select! {
            ran = self.run(line) => ran,
            ended = ended => ended,
        };
        self.controller = controller;
        ran
    }

    /// Starts the operator. It runs until [`Stage::end`].
    pub(super) fn start_controller(&mut self) -> anyhow::Result<()> {
        // No fixed port, which another program may have.
        let args = [
            "controller",
            "--allow-loopback",
            "--metrics-addr=0",
            "--health-addr=0",
        ];
        command(&format!("affix {} &", args.join(" ")));
        let log = self.home.path().join("controller.log");
        let affix = self.home.path().join("bin/affix");
        let launch = Launch::new("affix controller", affix, log)
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig());
        self.controller = Some(
            launch
                .env("HOME", self.home.path())
                .orphans_folder(self.home.path())
                .start(&self.tools)?,
        );
        Ok(())
    }

    /// An error with the end of the operator's log.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(log) = self
            .controller
            .as_ref()
            .and_then(|controller| controller.log().ok())
        else {
            return error;
        };
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(LINES)..)
            .unwrap_or_default()
            .join("\n");
        anyhow::anyhow!("{error:#}\n\nThe end of the operator's log:\n{tail}")
    }

    /// Ends the operator in order, and then all else.
    ///
    /// # Errors
    ///
    /// Where the operator does not end as one that was asked to.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(mut controller) = self.controller.take() {
            let status = controller.stop().await?;
            if !status.success() {
                bail!(
                    "the operator was asked to end and ended with {status}:\n{}",
                    controller.log()?
                );
            }
        }
        Ok(())
    }
}

/// The checkout, where the commands run: samples and definitions are named from there.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A heading above a scene.
pub(super) fn heading(text: &str) {
    say(&format!("\n{}", bold(&format!("== {text}"))));
}

fn command(line: &str) {
    say(&bold(&format!("$ {line}")));
}

/// Bold on a terminal that wants it.
fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
