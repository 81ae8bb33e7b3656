//! `affix attach`: the controller's work, once, without a cluster.

use k8s_openapi::jiff::Timestamp;

use super::desk;
use super::documents::{Documents, FileArgs};
use super::exit::{Error, Exit, print, tell};
use super::report::{self, Format, Tense};
use crate::engine::Mode;

/// Attach what ImageAttachments ask for, once and without a cluster
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The registry is reached with the login that the resource names (spec.secretRef or spec.serviceAccountName, with their \
objects among the files), else with yours: REGISTRY_AUTH_FILE, then $DOCKER_CONFIG/config.json or ~/.docker/config.json, then \
$XDG_RUNTIME_DIR/containers/auth.json. Credential helpers are not run.

Attaching twice changes nothing: what is there already is found and kept. Nothing is ever removed.

Examples:
  affix attach -f end-of-life.yaml
  affix attach -f resource.yaml -f signatures.yaml     several files
  affix attach -f config/                              every .yaml, .yml and .json file of a folder
  kustomize build . | affix attach -f -                from another command
  affix attach -f end-of-life.yaml -o json             the resources with their status, for scripts

Exit codes: 0 all is attached, 1 not all is, 2 the input is wrong and nothing was asked of a registry."
)]
pub(super) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Print the resources with their status instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Attaches.
pub(super) async fn run(args: Args) -> Result<Exit, Error> {
    work(&args.files, args.output, Mode::Attach).await
}

/// What `attach` and `plan` share: they differ in whether anything is written, and in their words.
pub(super) async fn work(
    files: &FileArgs,
    output: Option<Format>,
    mode: Mode,
) -> Result<Exit, Error> {
    let mut documents = Documents::load(files)?;
    if mode == Mode::Plan {
        documents.read_status()?;
    }
    for notice in &documents.notices {
        tell(&format!("notice: {notice}"));
    }
    let (doing, tense) = if mode == Mode::Plan {
        ("planning", Tense::Future)
    } else {
        ("attaching", Tense::Past)
    };
    let jobs = desk::prepare(&documents, mode)?;
    let (done, interrupted) = desk::run(&desk::engine(), &jobs, doing).await;
    let text = match output {
        Some(format) => report::resources(&done, format, Timestamp::now())?,
        None => report::tables(&done, tense),
    };
    print(&text)?;
    let good = |done: &desk::Done<'_>| {
        done.outcome
            .as_ref()
            .is_some_and(|outcome| report::is_good(outcome, tense))
    };
    Ok(match (interrupted, done.iter().all(good)) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Incomplete,
    })
}
