//! The node with its images, the commands of the checks, and their figures.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::images::Pushed;
use affix_testbed::node::Node;
use affix_testbed::peer::Peer;
use affix_testbed::run::Ran;
use affix_testbed::tools::{Tool, Tools};
use anyhow::{Context, bail};

use super::super::say;
use super::image;
use super::traffic::Calls;

/// The namespace of affix, with restricted Pod Security.
pub(super) const SYSTEM: &str = "affix-system";
/// The maximum time for a rollout.
pub(super) const ROLLOUT: &str = "--timeout=3m";
/// The maximum time until a state that a check waits for.
const WAIT: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(200);

/// The node with everything that the checks use.
pub(super) struct Lab {
    pub(super) node: Node,
    pub(super) peer: Peer,
    /// The repository of affix's image.
    pub(super) repository: String,
    /// An image that is past its end of life from the check of attachments on.
    pub(super) old: Pushed,
    /// An image that is signed from that check on.
    pub(super) good: Pushed,
    began: Instant,
    pub(super) figures: Vec<String>,
}

impl Lab {
    /// Starts the node and pushes the images.
    pub(super) async fn start(tools: &Tools, dir: &Path, affix: PathBuf) -> anyhow::Result<Self> {
        let began = Instant::now();
        let node = Node::start(tools, dir).await?;
        line("the node is ready", began);
        let built = Instant::now();
        let peer = Peer::of(tools, node.registry())?;
        let repository = format!("{}/affix/affix", node.registry().host());
        let image = format!("{repository}:{}", env!("CARGO_PKG_VERSION"));
        image::affix(tools, &node, &peer, &affix, dir, &image).await?;
        // The same binary in another image, for the upgrade.
        let next = format!("{repository}:next");
        peer.crane(["mutate", &image, "--tag", &next, "--label", "next=true"])
            .await?
            .stdout()?;
        let old = image::application(tools, &node, "v1").await?;
        let good = image::application(tools, &node, "v2").await?;
        line("the images are in the registry", built);
        Ok(Self {
            node,
            peer,
            repository,
            old,
            good,
            began,
            figures: Vec::new(),
        })
    }

    /// Runs all checks, and prints the state of the cluster if one fails.
    pub(super) async fn check(mut self) -> anyhow::Result<()> {
        let checked = self.all().await;
        if let Err(error) = checked {
            self.explain().await;
            return Err(error);
        }
        say("");
        for figure in &self.figures {
            say(figure);
        }
        say(&format!(
            "all checks passed in {:.0} s with the node's start",
            self.began.elapsed().as_secs_f32()
        ));
        Ok(())
    }

    pub(super) fn cluster(&self) -> &ControlPlane {
        self.node.cluster()
    }

    /// Runs kubectl with success.
    pub(super) async fn kubectl(&self, line: &str) -> anyhow::Result<String> {
        self.kubectl_ran(line).await?.stdout()
    }

    /// Runs kubectl with any result. The arguments are separated by blanks.
    pub(super) async fn kubectl_ran(&self, line: &str) -> anyhow::Result<Ran> {
        self.cluster().kubectl(line.split_whitespace()).await
    }

    /// Applies manifests with success.
    pub(super) async fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        let ran = self.cluster().kubectl_with(["apply", "-f", "-"], manifests);
        ran.await?.stdout()
    }

    /// Runs a tool in the home of the lab, with the kubeconfig and any result.
    pub(super) async fn tool<A: Into<OsString>>(
        &self,
        tool: Tool,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Ran> {
        self.peer
            .run(tool)?
            .args(args)
            .env("KUBECONFIG", self.cluster().kubeconfig())
            .timeout(Duration::from_mins(5))
            .output()
            .await
    }

    /// Runs `helm COMMAND affix … --namespace affix-system`.
    pub(super) async fn helm(&self, line: &str) -> anyhow::Result<Ran> {
        let chart = image::repository()
            .join("charts/affix")
            .display()
            .to_string();
        let args = line
            .split_whitespace()
            .map(|word| word.replace("CHART", &chart))
            .chain(["--namespace".to_owned(), SYSTEM.to_owned()]);
        self.tool(Tool::Helm, args).await
    }

    /// Repeats `attempt` until it returns a value.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> anyhow::Result<Result<T, String>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + WAIT;
        loop {
            match attempt().await? {
                Ok(value) => return Ok(value),
                Err(last) if Instant::now() > deadline => {
                    bail!("no {what} within {WAIT:?}: {last}")
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Records the peak of the resident memory of each process of affix.
    pub(super) fn note_memory(&mut self, when: &str) -> anyhow::Result<()> {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let read = |file| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            let command = read("cmdline");
            let mut words = command.split('\0');
            if !words.next().is_some_and(|word| word.ends_with("bin/affix")) {
                continue;
            }
            let peak = read("status")
                .lines()
                .find_map(|line| {
                    line.strip_prefix("VmHWM:")
                        .map(str::trim)
                        .map(str::to_owned)
                })
                .context("a process has a peak of memory")?;
            let component = words.next().unwrap_or_default();
            self.figures
                .push(format!("peak memory of the {component}, {when}: {peak}"));
        }
        Ok(())
    }

    /// Records requests, of which none may have failed.
    pub(super) fn note_calls(&mut self, calls: &Calls) -> anyhow::Result<()> {
        self.figures.push(format!(
            "calls under failurePolicy Fail: {}, failed: {}, slowest: {} ms",
            calls.all,
            calls.failed.len(),
            calls.slowest.as_millis()
        ));
        if calls.all == 0 || !calls.failed.is_empty() {
            bail!(
                "{} of {} calls failed: {:#?}",
                calls.failed.len(),
                calls.all,
                calls.failed.iter().take(5).collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// Prints what helps to understand a failure.
    async fn explain(&self) {
        for command in [
            "get all,imageattachments --all-namespaces --output wide",
            "get events --all-namespaces --sort-by=.lastTimestamp",
            "logs --namespace affix-system --selector app.kubernetes.io/name=affix --prefix --tail 20",
        ] {
            if let Ok(ran) = self.kubectl_ran(command).await {
                say(&format!("\n$ kubectl {command}\n{}{}", ran.out, ran.err));
            }
        }
    }
}

/// Prints a result with its time.
pub(super) fn line(what: &str, began: Instant) {
    say(&format!("{:>6.1} s  {what}", began.elapsed().as_secs_f32()));
}
