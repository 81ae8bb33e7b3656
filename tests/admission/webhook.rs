//! `affix webhook` and `affix controller` as processes.

use std::path::Path;

use affix_testbed::process::{Launch, Process};
use tempfile::TempDir;

use crate::place::{PATIENCE, Place};

/// A running affix. Dropping it kills it; where the test fails, its log is printed.
pub(crate) struct Affix {
    pub(crate) process: Process,
    _dir: TempDir,
}

impl Affix {
    fn start(place: &Place, args: &[&str]) -> Self {
        Self::start_with(place, &place.plane.kubeconfig(), args)
    }

    /// One that asks the API server by this kubeconfig.
    pub(crate) fn start_with(place: &Place, kubeconfig: &Path, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("affix-admission-")
            .tempdir()
            .unwrap();
        let process = Launch::new("affix", env!("CARGO_BIN_EXE_affix"), dir.path().join("log"))
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
            .start(&place.tools)
            .unwrap();
        Self { process, _dir: dir }
    }

    /// The controller on the namespace.
    pub(crate) fn controller(place: &Place, flags: &[&str]) -> Self {
        Self::start(
            place,
            &[
                &["controller", "--watch-namespaces", &place.name][..],
                flags,
            ]
            .concat(),
        )
    }

    /// The webhook, with the namespace's configurations sent to it.
    pub(crate) async fn webhook(place: &Place, flags: &[&str]) -> (Self, String) {
        let own = [
            "webhook",
            "--listen-addr",
            "127.0.0.1:0",
            "--namespace",
            &place.name,
            "--dns-names",
            "127.0.0.1",
        ];
        let configurations = [
            "--validating-webhook-configuration",
            &place.name,
            "--mutating-webhook-configuration",
            &place.name,
        ];
        let mut affix = Self::start(place, &[&own[..], &configurations[..], flags].concat());
        let address = affix.serves("webhooks").await;
        place.configure(&address).await;
        (affix, address)
    }

    /// The webhook as `config/` installs it, with the rights of its service account and no others.
    pub(crate) async fn installed(place: &Place, flags: &[&str]) -> Self {
        const NAME: &str = "affix-webhook";
        let kubeconfig = place
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
        let mut affix = Self::start_with(place, &kubeconfig, &[&own[..], flags].concat());
        let address = affix.serves("webhooks").await;
        place.configure_as(NAME, &address).await;
        affix
    }

    /// The address at which it serves something.
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
        self.process.wait_for(PATIENCE, what, found).await.unwrap()
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
