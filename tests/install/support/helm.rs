//! The program helm, with a home folder for each test.

use std::path::PathBuf;

use affix_testbed::run::{Ran, Run};
use affix_testbed::tools::{Tool, Tools};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::golden::repository;
use crate::support::objects;

/// The namespace of the installation.
pub(crate) const NAMESPACE: &str = "affix-system";
/// A helm that was built from its Go module has no default Kubernetes version.
const KUBERNETES: [&str; 2] = ["--kube-version", "1.36.3"];

/// The program helm, with or without a cluster.
pub(crate) struct Helm {
    tools: Tools,
    program: Tool,
    home: TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// Creates helm without a cluster.
    pub(crate) async fn new() -> Self {
        let tools = Tools::with(&[Tool::Helm, Tool::Kubeconform]).await.unwrap();
        Self {
            tools,
            program: Tool::Helm,
            home: tempfile::tempdir().unwrap(),
            kubeconfig: None,
        }
    }

    /// Creates helm 4 without a cluster.
    pub(crate) async fn next() -> Self {
        Self {
            tools: Tools::with(&[Tool::Helm4]).await.unwrap(),
            program: Tool::Helm4,
            ..Self::new().await
        }
    }

    /// Creates helm with the kubeconfig of an administrator.
    pub(crate) async fn of(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig: Some(kubeconfig),
            ..Self::new().await
        }
    }

    /// Returns helm 4 with the same cluster.
    pub(crate) async fn next_major(&self) -> Self {
        Self {
            kubeconfig: self.kubeconfig.clone(),
            ..Self::next().await
        }
    }

    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Runs helm.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let mut run = Run::new(self.tools.path(self.program).unwrap())
            .args(args.iter().copied())
            .env("HOME", self.home.path());
        if let Some(kubeconfig) = &self.kubeconfig {
            run = run.env("KUBECONFIG", kubeconfig);
        }
        run.output().await.unwrap()
    }

    /// Runs helm on the chart for the release `affix`. `command` is `template`, `install` or `upgrade`.
    pub(crate) async fn release(&self, command: &str, values: &[&str]) -> Ran {
        let chart = repository("charts/affix");
        let mut args = vec![
            command,
            "affix",
            chart.to_str().unwrap(),
            "--namespace",
            NAMESPACE,
        ];
        if command == "template" {
            args.extend(KUBERNETES);
        }
        args.extend(values.iter().flat_map(|value| ["--set-json", *value]));
        self.run(&args).await
    }

    /// Renders the chart to text.
    pub(crate) async fn text(&self, values: &[&str]) -> String {
        self.release("template", values).await.stdout().unwrap()
    }

    /// Renders the chart to objects.
    pub(crate) async fn objects(&self, values: &[&str]) -> Vec<Value> {
        objects::parse(&self.text(values).await)
    }

    /// Returns the error message of the chart for invalid values.
    pub(crate) async fn refusal(&self, values: &[&str]) -> String {
        self.release("template", values).await.failure().unwrap()
    }

    /// Returns the output of a successful `helm lint --strict`.
    pub(crate) async fn lint(&self, values: &[&str]) -> String {
        let chart = repository("charts/affix");
        let mut args = vec!["lint", "--strict", chart.to_str().unwrap()];
        args.extend(KUBERNETES);
        args.extend(values.iter().flat_map(|value| ["--set-json", *value]));
        self.run(&args).await.stdout().unwrap()
    }
}
