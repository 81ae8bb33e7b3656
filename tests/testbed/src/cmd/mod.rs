//! The subcommands of `testbed`, one file each.

mod bench;
mod build;
mod demo;
mod e2e_node;
mod site;
mod up;

/// The real control plane and the real registries that affix is tested against.
#[derive(Debug, clap::Parser)]
#[command(name = "testbed")]
pub(crate) enum Command {
    /// Measure affix against other people's tools, side by side on this machine.
    Bench(bench::Bench),
    /// Build the tools that the cache lacks, and print where each is.
    Build(build::Build),
    /// Show what affix does, on a control plane and two registries that end with it.
    Demo(demo::Demo),
    /// Install the chart on a real node and check what only a node can show; the node ends with it. Needs root.
    E2eNode(e2e_node::E2eNode),
    /// Build the static site of the documentation and check its links.
    Site(site::Site),
    /// Start a control plane and two registries, say how to use them, and run until Ctrl-C.
    Up(up::Up),
}

impl Command {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Bench(bench) => bench.run().await,
            Self::Build(build) => build.run().await,
            Self::Demo(demo) => demo.run().await,
            Self::E2eNode(e2e) => e2e.run().await,
            Self::Site(site) => site.run(),
            Self::Up(up) => up.run().await,
        }
    }
}

/// Prints a line to standard output. A reader that has gone is no reason to fail.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}
