//! `affix webhook` and `affix controller` as processes.

use std::path::Path;

use affix_testbed::process::{Launch, Process};
use tempfile::TempDir;

use crate::support::namespace::{TIMEOUT, TestNamespace};

/// A running affix process. Dropping it kills it. If the test fails, its log is printed.
pub(crate) struct Affix {
    pub(crate) process: Process,
    _dir: TempDir,
}

impl Affix {
    fn start(namespace: &TestNamespace, args: &[&str]) -> Self {
        Self::start_with(namespace, &namespace.plane.kubeconfig(), args)
    }

    /// Starts affix with a kubeconfig.
    pub(crate) fn start_with(namespace: &TestNamespace, kubeconfig: &Path, args: &[&str]) -> Self {
        Self::start_in(namespace, kubeconfig, args, &[])
    }

    /// Starts affix with a kubeconfig and environment variables.
    fn start_in(
        namespace: &TestNamespace,
        kubeconfig: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("affix-admission-")
            .tempdir()
            .unwrap();
        let launch = Launch::new("affix", env!("CARGO_BIN_EXE_affix"), dir.path().join("log"));
        let process = environment
            .iter()
            .fold(launch, |launch, (name, value)| launch.env(name, value))
            .args(["--log-format", "text"])
            .args(args.iter().copied())
            .args([
                "--allow-loopback",
                "--metrics-addr",
                "127.0.0.1:0",
                "--health-addr",
                "127.0.0.1:0",
            ])
            .env("RUST_LOG", "affix=debug,info")
            .env("KUBECONFIG", kubeconfig)
            .orphans_folder(dir.path())
            .start(&namespace.tools)
            .unwrap();
        Self { process, _dir: dir }
    }

    /// Starts the controller for the namespace.
    pub(crate) fn controller(namespace: &TestNamespace, flags: &[&str]) -> Self {
        Self::start(
            namespace,
            &[
                &["controller", "--watch-namespaces", &namespace.name][..],
                flags,
            ]
            .concat(),
        )
    }

    /// Starts the webhook and installs its configurations.
    pub(crate) async fn webhook(namespace: &TestNamespace, flags: &[&str]) -> (Self, String) {
        Self::webhook_in(namespace, &namespace.name, flags, &[]).await
    }

    /// Starts the webhook with `own_namespace` and environment variables, and installs its configurations
    /// for the objects of `namespace`.
    pub(crate) async fn webhook_in(
        namespace: &TestNamespace,
        own_namespace: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> (Self, String) {
        let own = [
            "webhook",
            "--listen-addr",
            "127.0.0.1:0",
            "--namespace",
            own_namespace,
            "--dns-names",
            "127.0.0.1",
        ];
        let configurations = [
            "--validating-webhook-configuration",
            &namespace.name,
            "--mutating-webhook-configuration",
            &namespace.name,
        ];
        let args = [&own[..], &configurations[..], flags].concat();
        let mut affix =
            Self::start_in(namespace, &namespace.plane.kubeconfig(), &args, environment);
        let address = affix.serves("webhooks").await;
        namespace.configure(&address).await;
        (affix, address)
    }

    /// Starts the webhook with the permissions of its service account in `config/`.
    pub(crate) async fn installed(namespace: &TestNamespace, flags: &[&str]) -> Self {
        const NAME: &str = "affix-webhook";
        let kubeconfig = namespace
            .plane
            .service_account_kubeconfig("affix-system", NAME)
            .await
            .unwrap();
        let own = [
            "webhook",
            "--listen-addr",
            "127.0.0.1:0",
            "--namespace",
            "affix-system",
            "--dns-names",
            "127.0.0.1",
        ];
        let mut affix = Self::start_with(namespace, &kubeconfig, &[&own[..], flags].concat());
        let address = affix.serves("webhooks").await;
        namespace.configure_as(NAME, &address).await;
        affix
    }

    /// Returns the address of an endpoint.
    pub(crate) async fn serves(&mut self, what: &str) -> String {
        let found = |log: &str| {
            let line = log
                .lines()
                .find(|line| line.contains(&format!("serving {what}")))?;
            Some(
                line.split_once("address=")?
                    .1
                    .split_whitespace()
                    .next()?
                    .to_owned(),
            )
        };
        self.process.wait_for(TIMEOUT, what, found).await.unwrap()
    }
}

impl Drop for Affix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.process.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "the end of affix's log:\n{}",
                lines
                    .get(lines.len().saturating_sub(60)..)
                    .unwrap_or_default()
                    .join("\n")
            );
        }
    }
}
