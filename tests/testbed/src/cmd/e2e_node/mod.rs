//! `testbed e2e-node`: the chart with default values on a real node.
//!
//! This process starts itself again in namespaces of its own. There it starts the node, runs the checks and prints their figures.

mod admission;
mod checks;
mod image;
mod lab;
mod traffic;

use std::ffi::OsString;
use std::path::PathBuf;

use affix_testbed::node::isolation;
use affix_testbed::tools::Tools;
use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::say;
use lab::Lab;

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct E2eNode {
    /// The program in the image; without it, the `affix` beside this program.
    #[arg(long, value_name = "FILE")]
    affix: Option<PathBuf>,
    /// Only say whether this machine can run a node: exit status 1 and the reason if it cannot.
    #[arg(long)]
    preflight: bool,
    /// The folder for the node's data: this process is in the namespaces.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

impl E2eNode {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let affix = match &self.affix {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("affix"),
        };
        let affix = affix.canonicalize().with_context(|| {
            format!(
                "there is no {}: build it with `cargo build`",
                affix.display()
            )
        })?;
        if let Some(dir) = self.inside {
            let tools = Tools::node().await?;
            return Lab::start(&tools, &dir, affix).await?.check().await;
        }
        let obstacle = isolation::obstacle()?;
        match (self.preflight, obstacle) {
            (true, None) => return Ok(()),
            (true, Some(reason)) => bail!("{reason}"),
            (false, Some(reason)) => {
                say(&format!("SKIPPED: {reason}"));
                return Ok(());
            }
            (false, None) => {}
        }
        // Missing tools are built outside, with the network.
        Tools::node().await?;
        let dir = tempfile::Builder::new().prefix("affix-node-").tempdir()?;
        let args: Vec<OsString> = vec![
            "e2e-node".into(),
            "--affix".into(),
            affix.into(),
            "--inside".into(),
            dir.path().into(),
        ];
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        let status = isolation::run(&std::env::current_exe()?, &args, dir.path(), stop).await?;
        dir.close().context("the node's data cannot be removed")?;
        if !status.success() {
            bail!("the checks ended with {status}");
        }
        Ok(())
    }
}
