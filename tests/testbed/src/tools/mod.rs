//! The Go programs of the testbed. Owns which there are and where they are kept; their versions stand in the `go.mod` files of
//! `tests/testbed/go` and nowhere else. Refuses to download a binary: everything is built from modules.

mod building;
mod cache;
mod catalogue;
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::OnceCell;

pub use building::cargo_tool;
pub use catalogue::Tool;
pub use python::{MOTO, OPENBAO, PythonServer};

/// The variable that names a folder with `etcd` and `kube-apiserver` (and perhaps `kubectl`), as envtest has it.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The tools that were asked for, built. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tools {
    paths: Arc<BTreeMap<Tool, PathBuf>>,
    assets: Option<Arc<Path>>,
}

impl Tool {
    /// The version of the tool, as its `go.mod` has it: `v3.1.3`.
    ///
    /// # Errors
    ///
    /// Where the tool's source is here, so that it has no version, or the file cannot be read.
    pub fn version(self) -> anyhow::Result<String> {
        building::required(&self.recipe())
    }
}

impl Tools {
    /// What most tests and the demo need: the control plane, the registries, oras, crane and regctl. What the cache lacks is built
    /// first, which takes minutes on a machine that never did; progress goes to standard error.
    ///
    /// # Errors
    ///
    /// Where Go is missing or a build fails.
    pub async fn core() -> anyhow::Result<Self> {
        static CORE: OnceCell<Tools> = OnceCell::const_new();
        CORE.get_or_try_init(|| Self::build(Tool::core()))
            .await
            .cloned()
    }

    /// All of [`Tools::core`], and what verifies signatures, charts and the end of namespaces.
    ///
    /// # Errors
    ///
    /// Where Go is missing or a build fails.
    pub async fn all() -> anyhow::Result<Self> {
        static ALL: OnceCell<Tools> = OnceCell::const_new();
        ALL.get_or_try_init(|| Self::build(Tool::all()))
            .await
            .cloned()
    }

    /// All of [`Tools::core`], and what a node runs and what its checks need.
    ///
    /// # Errors
    ///
    /// Where Go is missing or a build fails.
    pub async fn node() -> anyhow::Result<Self> {
        Self::with(&Tool::node()).await
    }

    /// All of [`Tools::core`], and a Sigstore instance with cosign.
    ///
    /// # Errors
    ///
    /// Where Go is missing or a build fails.
    pub async fn sigstore() -> anyhow::Result<Self> {
        Self::with(&Tool::sigstore()).await
    }

    /// Only these tools and what starts them: for a test that needs one tool more than [`Tools::core`] has.
    ///
    /// # Errors
    ///
    /// Where Go is missing or a build fails.
    pub async fn with(extra: &[Tool]) -> anyhow::Result<Self> {
        let mut wanted = Tool::core();
        wanted.extend(extra);
        wanted.dedup();
        Self::build(wanted).await
    }

    async fn build(wanted: Vec<Tool>) -> anyhow::Result<Self> {
        let assets = std::env::var_os(ASSETS)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        tokio::task::spawn_blocking(move || Self::build_or_find(&wanted, assets)).await?
    }

    fn build_or_find(wanted: &[Tool], assets: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut paths = BTreeMap::new();
        let mut to_build = Vec::new();
        for tool in wanted {
            match assets.as_deref().and_then(|dir| tool.in_assets(dir)) {
                Some(path) => drop(paths.insert(*tool, path)),
                None => to_build.push(*tool),
            }
        }
        paths.extend(building::ensure(&to_build)?);
        Ok(Self {
            paths: Arc::new(paths),
            assets: assets.map(Arc::from),
        })
    }

    /// Where a tool is.
    ///
    /// # Errors
    ///
    /// Where it was not among those asked for.
    pub fn path(&self, tool: Tool) -> anyhow::Result<&Path> {
        self.paths
            .get(&tool)
            .map(PathBuf::as_path)
            .with_context(|| {
                format!("{tool:?} was not built: ask for it by Tools::all or Tools::with")
            })
    }

    /// The folder of `KUBEBUILDER_ASSETS`, where that is set: its `etcd` and `kube-apiserver` are the control plane then.
    pub fn assets(&self) -> Option<&Path> {
        self.assets.as_deref()
    }

    /// All tools with their paths, in the order of [`Tool`].
    pub fn iter(&self) -> impl Iterator<Item = (Tool, &Path)> {
        self.paths
            .iter()
            .map(|(tool, path)| (*tool, path.as_path()))
    }
}
