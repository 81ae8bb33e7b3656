//! `testbed build`.

use affix_testbed::tools::Tools;

use super::say;

/// Which tools to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// `core` is what most tests and the demo need; `all` adds the verifiers, the judges, helm and kube-controller-manager;
    /// `node` is what `e2e-node` needs.
    #[arg(value_enum, default_value_t = Group::Core)]
    group: Group,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Group {
    Core,
    All,
    Node,
}

impl Build {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let tools = match self.group {
            Group::Core => Tools::core().await?,
            Group::All => Tools::all().await?,
            Group::Node => Tools::node().await?,
        };
        for (_, path) in tools.iter() {
            say(&path.display().to_string());
        }
        Ok(())
    }
}
