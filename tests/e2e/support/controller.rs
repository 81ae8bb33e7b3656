//! The operator as a process, and the webhook: the real binary, on one namespace.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use affix_testbed::process::{Launch, Process};
use affix_testbed::tools::Tools;
use tempfile::TempDir;

use super::namespace::{Namespace, PATIENCE};

/// How long the operator may take to serve.
const START: Duration = Duration::from_mins(5);

/// A running operator. Dropping it kills it; where the test fails, its log is printed.
pub(crate) struct Controller {
    process: Process,
    metrics: String,
    health: String,
    _dir: TempDir,
}

impl Controller {
    /// Starts the operator on a namespace, with quick retries.
    pub(crate) async fn start(namespace: &Namespace) -> Self {
        Self::start_with(namespace, &[]).await
    }

    /// The same with more flags.
    pub(crate) async fn start_with(namespace: &Namespace, flags: &[&str]) -> Self {
        let kubeconfig = namespace.plane.kubeconfig();
        Self::start_in(
            namespace,
            flags,
            &[("KUBECONFIG", kubeconfig.to_str().unwrap())],
        )
        .await
    }

    /// The same in an environment of the test's choice.
    pub(crate) async fn start_in(
        namespace: &Namespace,
        flags: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        Self::start_on(&namespace.tools, &namespace.name, flags, env).await
    }

    /// The same on any control plane, which the environment names.
    pub(crate) async fn start_on(
        tools: &Tools,
        namespace: &str,
        flags: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let mut launch = Launching::on(namespace);
        launch.args(&[
            "--log-format",
            "text",
            "--metrics-addr",
            "127.0.0.1:0",
            "--health-addr",
            "127.0.0.1:0",
        ]);
        launch.flags(flags);
        launch.env(&[("RUST_LOG", "affix=debug,info")]);
        launch.env(env);
        Self::serving(tools, launch).await
    }

    /// Starts the webhook with the certificate of a folder; also answers with the address of its webhooks.
    pub(crate) async fn start_webhook(namespace: &Namespace, certificate: &Path) -> (Self, String) {
        Self::start_webhook_with(namespace, certificate, &[]).await
    }

    /// The same with more flags.
    pub(crate) async fn start_webhook_with(
        namespace: &Namespace,
        certificate: &Path,
        flags: &[&str],
    ) -> (Self, String) {
        let folder = certificate.to_str().unwrap();
        let mut launch = Launching::of(&[
            "webhook",
            "--listen-addr",
            "127.0.0.1:0",
            "--certificate-dir",
            folder,
            "--validating-webhook-configuration",
            &namespace.name,
            "--mutating-webhook-configuration",
            "",
        ]);
        launch.args(&[
            "--log-format",
            "text",
            "--metrics-addr",
            "127.0.0.1:0",
            "--health-addr",
            "127.0.0.1:0",
        ]);
        launch.args(flags);
        launch.env(&[("KUBECONFIG", namespace.plane.kubeconfig().to_str().unwrap())]);
        let mut webhook = Self::serving(&namespace.tools, launch).await;
        let address = webhook
            .process
            .wait_for(START, "webhooks", |log| served(log, "webhooks"))
            .await
            .unwrap();
        // It listens before it has a certificate to show.
        let deadline = Instant::now() + START;
        while webhook.health("/readyz").await.0 != 200 {
            assert!(Instant::now() < deadline, "the webhook is not ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (webhook, address)
    }

    /// Starts it and waits until it serves.
    async fn serving(tools: &Tools, launching: Launching) -> Self {
        let (mut process, dir) = launching.start(tools);
        let serving = |what: &'static str| move |log: &str| served(log, what);
        let health = process
            .wait_for(START, "health address", serving("health"))
            .await
            .unwrap();
        let metrics = process
            .wait_for(START, "metrics address", serving("metrics"))
            .await
            .unwrap();
        Self {
            process,
            metrics,
            health,
            _dir: dir,
        }
    }

    /// The same by another program that is affix inside: `wrap` turns affix's arguments into that program's, and a variable that it needs.
    pub(crate) async fn start_by(
        namespace: &Namespace,
        program: PathBuf,
        wrap: impl FnOnce(Vec<String>) -> (Vec<String>, (&'static str, String)),
    ) -> Self {
        let kubeconfig = namespace.plane.kubeconfig();
        let mut launch = Launching::on(&namespace.name);
        launch.args(&[
            "--metrics-addr",
            "127.0.0.1:0",
            "--health-addr",
            "127.0.0.1:0",
        ]);
        launch.flags(&[]);
        let (args, (name, value)) = wrap(launch.args);
        let mut launch = Launching {
            program,
            args,
            env: launch.env,
        };
        launch.env(&[("KUBECONFIG", kubeconfig.to_str().unwrap()), (name, &value)]);
        Self::serving(&namespace.tools, launch).await
    }

    /// Starts the operator as a cluster does, with nothing said about its log but these flags and variables; it serves nothing.
    pub(crate) async fn start_logging(
        namespace: &Namespace,
        flags: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let mut launch = Launching::on(&namespace.name);
        launch.args(&["--metrics-addr", "0", "--health-addr", "0"]);
        launch.flags(flags);
        launch.env(&[("KUBECONFIG", namespace.plane.kubeconfig().to_str().unwrap())]);
        launch.env(env);
        let (process, dir) = launch.start(&namespace.tools);
        Self {
            process,
            metrics: String::new(),
            health: String::new(),
            _dir: dir,
        }
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.log().unwrap()
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> Memory {
        Memory(self.process.pid().unwrap())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// Freezes it (SIGSTOP).
    pub(crate) fn pause(&mut self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&mut self) {
        self.process.resume();
    }

    /// Waits until its log has this text.
    pub(crate) async fn says(&mut self, text: &'static str) {
        self.process
            .wait_for(PATIENCE, text, |log| log.contains(text).then_some(()))
            .await
            .unwrap();
    }

    /// Asks it to end (SIGTERM); answers with its exit status and all that it has logged. One that takes 20 s is killed, and its status is
    /// no success.
    pub(crate) async fn terminate(mut self) -> (std::process::ExitStatus, String) {
        let status = self.process.stop().await.unwrap();
        (status, self.log())
    }

    /// What it answers to a GET of `/healthz` or `/readyz`.
    pub(crate) async fn health(&self, path: &str) -> (u16, String) {
        get(&format!("http://{}{path}", self.health)).await
    }

    /// What it answers to a GET of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        self.metrics_as("application/openmetrics-text; version=1.0.0")
            .await
            .1
    }

    /// The content type and the text of `/metrics` for an `Accept` header.
    pub(crate) async fn metrics_as(&self, accept: &str) -> (String, String) {
        let request = reqwest::Client::new()
            .get(format!("http://{}/metrics", self.metrics))
            .header("Accept", accept);
        let answer = request.send().await.unwrap();
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        (kind, answer.text().await.unwrap())
    }
}

/// The operator's command line in the making.
struct Launching {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl Launching {
    fn on(namespace: &str) -> Self {
        Self::of(&[
            "controller",
            "--allow-loopback",
            "--watch-namespaces",
            namespace,
        ])
    }

    fn of(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self {
            program: env!("CARGO_BIN_EXE_affix").into(),
            args,
            env: Vec::new(),
        }
    }

    fn start(self, tools: &Tools) -> (Process, TempDir) {
        let dir = tempfile::Builder::new()
            .prefix("affix-controller-")
            .tempdir()
            .unwrap();
        let launch = Launch::new("affix", self.program, dir.path().join("log")).args(self.args);
        let launch = self
            .env
            .into_iter()
            .fold(launch, |launch, (name, value)| launch.env(name, value));
        (launch.orphans_folder(dir.path()).start(tools).unwrap(), dir)
    }

    fn args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    }

    /// A test's own flags; retries and intervals are quick where it says nothing of them.
    fn flags(&mut self, flags: &[&str]) {
        if !flags.contains(&"--min-interval") {
            self.args(&["--min-interval", "1s"]);
        }
        if !flags.contains(&"--min-retry-delay") {
            self.args(&["--min-retry-delay", "100ms", "--max-retry-delay", "1s"]);
        }
        self.args(flags);
    }

    fn env(&mut self, env: &[(&str, &str)]) {
        self.env.extend(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.process.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(80)..)
                .unwrap_or_default();
            println!("the end of the operator's log:\n{}", tail.join("\n"));
        }
    }
}

/// What the kernel says of a process's memory.
pub(crate) struct Memory(u32);

impl Memory {
    /// Resident now, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.read("VmRSS:")
    }

    /// The most that was resident since [`forget`](Self::forget), in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.read("VmHWM:")
    }

    /// Begins the peak anew.
    pub(crate) fn forget(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.0), "5").unwrap();
    }

    fn read(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The address in the line `serving <what> address=127.0.0.1:4123`.
fn served(log: &str, what: &str) -> Option<String> {
    let line = log
        .lines()
        .find(|line| line.contains(&format!("serving {what}")))?;
    let (_, rest) = line.split_once("address=")?;
    Some(rest.split_whitespace().next()?.to_owned())
}
