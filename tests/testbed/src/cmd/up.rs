//! `testbed up`: the testbed for use by hand.

use affix_testbed::control_plane::ControlPlane;
use affix_testbed::images::{Image, Index};
use affix_testbed::registry::Registry;
use affix_testbed::tools::{Tool, Tools};
use tokio::signal::unix::{SignalKind, signal};

use super::say;

/// What to bring up.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Only the registries.
    #[arg(long)]
    no_cluster: bool,
}

impl Up {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let tools = Tools::core().await?;
        let modern = Registry::ociregistry(&tools).start().await?;
        let plain = Registry::distribution(&tools).start().await?;
        let image = Index::new()
            .image(Image::new("linux/amd64", "b1b1"))
            .image(Image::new("linux/arm64", "c1c1"))
            .image(Image::new("linux/arm/v7", "d1d1"))
            .attestation("linux/amd64");
        say(
            "An image for linux/amd64, linux/arm64 and linux/arm/v7, with one build attestation, is in both registries:",
        );
        for (registry, title) in [
            (&modern, "with the referrers API"),
            (&plain, "distribution, without it"),
        ] {
            let pushed = image.push(&registry.raw()?, "team/app", "v1").await?;
            say(&format!(
                "  {}  ({title})\n  {}",
                pushed.tagged(),
                pushed.pinned()
            ));
        }
        // Lives until the end of this function.
        let cluster = if self.no_cluster {
            None
        } else {
            Some(ControlPlane::start(&tools).await?)
        };
        if let Some(cluster) = &cluster {
            say("\nA control plane is ready:");
            say(&format!(
                "  export KUBECONFIG={}",
                cluster.kubeconfig().display()
            ));
            say(&format!(
                "  {} get namespaces",
                tools.path(Tool::Kubectl)?.display()
            ));
        }
        say(&format!(
            "\n  {} discover {}/team/app:v1",
            tools.path(Tool::Oras)?.display(),
            modern.host()
        ));
        say("\nEverything ends with Ctrl-C, or when standard input closes.");
        wait_for_the_end().await?;
        Ok(())
    }
}

/// Waits for SIGINT, SIGTERM, or the end of standard input.
async fn wait_for_the_end() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (closed, input) = tokio::sync::oneshot::channel();
    // A thread of its own: a read that the runtime knows of would keep it from ending.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        closed.send(())
    });
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = input => {}
    }
    Ok(())
}
