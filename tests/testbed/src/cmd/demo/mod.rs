//! `testbed demo`: what affix does, on a real control plane and two real registries.
//!
//! Owns the scenes and their order. Refuses to show a command other than the one that it runs.

mod stage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::tools::{Tool, Tools};
use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::say;
use stage::{Stage, heading};

/// The namespace for the registry that has the referrers API.
const API: &str = "referrers-api";
/// The namespace for distribution, which has none.
const TAG: &str = "fallback-tag";

/// What to show.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// The program to show; without it, the `affix` beside this program.
    #[arg(long, value_name = "FILE")]
    affix: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let affix = match self.affix {
            Some(path) => path,
            None => std::env::current_exe()?.with_file_name("affix"),
        };
        let affix = affix.canonicalize().with_context(|| {
            format!(
                "there is no {}: build it with `cargo build`",
                affix.display()
            )
        })?;
        // What is missing is built before Ctrl-C is caught: a build is ended by the terminal itself.
        let tools = Tools::with(&[Tool::Cosign]).await?;
        // Each of these is an end in order. What was started ends with the value that stands for it.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            played = play(&tools, &affix) => played,
            _ = interrupt.recv() => bail!("interrupted; all that was started has been ended"),
            _ = terminate.recv() => bail!("told to end; all that was started has been ended"),
            _ = hangup.recv() => bail!("the terminal is gone; all that was started has been ended"),
        }
    }
}

/// The scenes, in order. Where one fails, the end of the operator's log is in the error.
async fn play(tools: &Tools, affix: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut stage = scene_testbed(tools, affix).await?;
    let played = async {
        let pushed = scene_image(&stage).await?;
        scene_operator(&mut stage).await?;
        scene_end_of_life(&mut stage).await?;
        scene_signature_files(&mut stage).await?;
        scene_signatures(&mut stage, &pushed).await?;
        scene_result(&mut stage, &pushed).await?;
        scene_superseded(&mut stage).await?;
        scene_set(&mut stage).await
    };
    if let Err(error) = played.await {
        return Err(stage.explain(error));
    }
    stage.end().await?;
    say(&format!(
        "That was affix, in {:.0} s. All that was started has been ended.",
        began.elapsed().as_secs_f32()
    ));
    Ok(())
}

async fn scene_testbed(tools: &Tools, affix: &Path) -> anyhow::Result<Stage> {
    heading("A control plane and two registries, for as long as this takes");
    let began = Instant::now();
    let stage = Stage::set(tools, affix).await?;
    say(&format!(
        "{:<24} kube-apiserver with etcd, ready after {:.1} s",
        stage.cluster.url(),
        began.elapsed().as_secs_f32()
    ));
    say(&format!(
        "{:<24} a registry with the referrers API of OCI 1.1",
        stage.modern.url()
    ));
    say(&format!(
        "{:<24} distribution, which has no such API: there a tag lists what is attached",
        stage.plain.url()
    ));
    Ok(stage)
}

async fn scene_image(stage: &Stage) -> anyhow::Result<[Pushed; 2]> {
    heading("An image for three platforms, with one build attestation, is pushed to both");
    let image = Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"))
        .image(Image::new("linux/arm/v7", "d1d1"))
        .attestation("linux/amd64");
    let pushed = [
        image.push(&stage.modern.raw()?, "team/app", "v1").await?,
        image.push(&stage.plain.raw()?, "team/app", "v1").await?,
    ];
    // The same bytes, and so the same digests, are in the other.
    let [modern, _] = &pushed;
    stage
        .run(&format!("affix tree --plain-http {}", modern.tagged()))
        .await?;
    Ok(pushed)
}

async fn scene_operator(stage: &mut Stage) -> anyhow::Result<()> {
    heading("The operator");
    stage.run("kubectl apply --server-side -f crds/").await?;
    stage
        .run("kubectl wait --for=condition=Established crd/imageattachments.affix.dev crd/imageattachmentsets.affix.dev")
        .await?;
    stage
        .run(&format!(
            "kubectl create namespace {API} && kubectl create namespace {TAG}"
        ))
        .await?;
    stage.start_controller()
}

async fn scene_end_of_life(stage: &mut Stage) -> anyhow::Result<()> {
    heading(
        "Scenario 1: the end of life of linux/amd64 is marked, on the index and on that platform only",
    );
    stage
        .run("sed -n '/^spec/,$p' tests/testbed/demo/end-of-life.yaml")
        .await?;
    apply(stage, "tests/testbed/demo/end-of-life.yaml").await
}

async fn scene_signature_files(stage: &mut Stage) -> anyhow::Result<()> {
    heading(
        "Scenario 2: three signature files that were made elsewhere, each for its own manifest",
    );
    stage
        .run("sed -n '/^spec/,$p' config/samples/signature-files.yaml")
        .await?;
    apply(stage, "config/samples/signature-files.yaml").await
}

async fn scene_signatures(stage: &mut Stage, [modern, _]: &[Pushed; 2]) -> anyhow::Result<()> {
    heading(
        "Scenario 2, the other way: affix signs each manifest with a key that cosign made, and cosign verifies",
    );
    // cosign writes the public half into the folder that it runs in.
    stage
        .run(&format!(
            "cd ~ && COSIGN_PASSWORD=demo cosign generate-key-pair k8s://{API}/cosign-key"
        ))
        .await?;
    stage
        .run("sed -n '/^spec/,$p' config/samples/signature-cosign.yaml")
        .await?;
    let here = here("config/samples/signature-cosign.yaml", &modern.host);
    stage
        .run(&format!("{here} |\n    kubectl apply -n {API} -f -"))
        .await?;
    stage
        .run_beside_controller(&format!(
            "kubectl wait --for=condition=Ready ia/app-v1-signed -n {API} --timeout=60s"
        ))
        .await?;
    for digest in [modern.digest(), modern.digest_of("linux/arm64")?] {
        let image = modern.at(digest);
        stage.run(&format!("cosign verify --key ~/cosign.pub --insecure-ignore-tlog \\\n    {image} >~/verified.json")).await?;
    }
    Ok(())
}

/// Applies a sample to each registry: with its host, and with the digest that the tag has there.
async fn apply(stage: &mut Stage, sample: &str) -> anyhow::Result<()> {
    for (namespace, host) in stage.places() {
        let here = here(sample, &host);
        stage
            .run(&format!(
                "{here} |\n    affix pin -f - | kubectl apply -n {namespace} -f -"
            ))
            .await?;
    }
    stage
        .run_beside_controller("kubectl wait --for=condition=Ready ia --all -A --timeout=60s")
        .await
}

/// The command that prints a sample with a registry of the demo for the one in the sample.
fn here(sample: &str, host: &str) -> String {
    format!("sed 's/registry.example.com/{host}/; s/insecure: false/insecure: true/' {sample}")
}

async fn scene_result(stage: &mut Stage, pushed: &[Pushed; 2]) -> anyhow::Result<()> {
    heading("What the cluster says");
    stage.run("kubectl get ia -A").await?;
    let each = |list: &str, line: &str| {
        format!("-o jsonpath='{{range .status.{list}[*]}}{line}{{\"\\n\"}}{{end}}'")
    };
    let one = format!("kubectl get ia app-v1-end-of-life -n {TAG}");
    stage
        .run(&format!(
            "{one} {}",
            each("conditions", "{.type}={.status} {.reason}: {.message}")
        ))
        .await?;
    stage
        .run(&format!(
            "{one} {}",
            each("targets", "{.state} {.kind} {.platform} {.reason}")
        ))
        .await?;
    heading("What the registries say");
    for image in pushed {
        stage
            .run(&format!("affix tree --plain-http {}", image.tagged()))
            .await?;
    }
    heading("What oras says, which knows nothing of affix");
    let [_, plain] = pushed;
    let arm64 = format!("--plain-http --platform linux/arm64 {}", plain.tagged());
    stage.run(&format!("oras discover {arm64}")).await?;
    let attached =
        format!("oras discover --format go-template='{{{{(first .referrers).digest}}}}' {arm64}");
    let repository = format!("{}/{}", plain.host, plain.repository);
    stage
        .run(&format!(
            "oras pull --plain-http -o ~ {repository}@$(\n    {attached})"
        ))
        .await?;
    stage.run("cat ~/c1c1.sig").await
}

async fn scene_superseded(stage: &mut Stage) -> anyhow::Result<()> {
    heading("Scenario 1 by itself: the tag moves on, and what it leaves behind is marked");
    let flawed = Index::new()
        .image(Image::new("linux/amd64", "b1b1"))
        .image(Image::new("linux/arm64", "c1c1"));
    let mended = Index::new()
        .image(Image::new("linux/amd64", "r1r1"))
        .image(Image::new("linux/arm64", "c1c1"));
    let push = async |stage: &Stage, index: &Index| -> anyhow::Result<[Pushed; 2]> {
        let (modern, plain) = (stage.modern.raw()?, stage.plain.raw()?);
        Ok([
            index.push(&modern, "team/base", "v1").await?,
            index.push(&plain, "team/base", "v1").await?,
        ])
    };
    let old = push(stage, &flawed).await?;
    stage
        .run("sed -n '/^spec/,$p' tests/testbed/demo/when-superseded.yaml")
        .await?;
    for (namespace, host) in stage.places() {
        // Nobody waits ten minutes for a demo.
        let here = here("tests/testbed/demo/when-superseded.yaml", &host)
            .replace("sed '", "sed 's/settle: 10m/settle: 0s/; ");
        stage
            .run(&format!("{here} |\n    kubectl apply -n {namespace} -f -"))
            .await?;
        let watching = format!(
            "kubectl wait --for=condition=Ready ia/base-v1-superseded -n {namespace} --timeout=60s"
        );
        stage.run_beside_controller(&watching).await?;
    }
    heading("A new index is pushed to base:v1, with another linux/amd64 and the same linux/arm64");
    push(stage, &mended).await?;
    // Without it affix would find out at the next interval.
    let now = "kubectl annotate ia/base-v1-superseded reconcile.fluxcd.io/requestedAt=\"$(date)\" --overwrite -n";
    for ((namespace, _), old) in stage.places().into_iter().zip(&old) {
        stage.run(&format!("{now} {namespace}")).await?;
        let marked = "kubectl wait --for=jsonpath='{.status.superseded[0].state}'=Attached ia/base-v1-superseded --timeout=60s -n";
        stage
            .run_beside_controller(&format!("{marked} {namespace}"))
            .await?;
        // The old index, which no tag names any more.
        stage
            .run(&format!("affix tree --plain-http {}", old.at(old.digest())))
            .await?;
    }
    stage.run("kubectl get ia -A").await
}

async fn scene_set(stage: &mut Stage) -> anyhow::Result<()> {
    heading(
        "A release train: one set for all releases, of which the newest three minors are supported",
    );
    let release = async |stage: &Stage, tag: &str, arm64: &str| -> anyhow::Result<Pushed> {
        let index = Index::new()
            .image(Image::new("linux/amd64", tag))
            .image(Image::new("linux/arm64", arm64));
        index.push(&stage.modern.raw()?, "team/train", tag).await
    };
    // The second release was a rebuild for linux/amd64 only.
    let oldest = release(stage, "v1.0.0", "e1e1").await?;
    release(stage, "v1.1.0", "e1e1").await?;
    release(stage, "v1.2.0", "e2e2").await?;
    stage
        .run("sed -n '/^spec/,$p' tests/testbed/demo/set.yaml")
        .await?;
    // A day is too long for a demo.
    let here = here("tests/testbed/demo/set.yaml", &oldest.host)
        .replace("sed '", "sed 's/settle: 24h/settle: 0s/; ");
    stage.run(&format!("{here} |\n    affix plan -f -")).await?;
    stage
        .run(&format!("{here} |\n    kubectl apply -n {API} -f -"))
        .await?;
    stage
        .run_beside_controller(&format!(
            "kubectl wait --for=condition=Ready ias/train -n {API} --timeout=60s"
        ))
        .await?;
    heading(
        "A fourth minor is released: the first one is out of life, but for the linux/arm64 that v1.1.0 has too",
    );
    release(stage, "v1.3.0", "e3e3").await?;
    // Without it affix would find out at the next interval.
    stage
        .run(&format!(
            "kubectl annotate ias/train reconcile.fluxcd.io/requestedAt=\"$(date)\" --overwrite -n {API}"
        ))
        .await?;
    stage
        .run_beside_controller(&format!(
            "kubectl wait --for=jsonpath='{{.status.ready}}'=1/1 ias/train -n {API} --timeout=60s"
        ))
        .await?;
    stage.run(&format!("kubectl get ias -n {API}")).await?;
    stage.run(&format!("affix status train -n {API}")).await?;
    stage
        .run(&format!("affix tree --plain-http {}", oldest.tagged()))
        .await
}
