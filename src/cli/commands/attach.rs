//! `affix attach`: one pass of the engine, without a cluster.

use k8s_openapi::jiff::Timestamp;

use crate::cli::documents::{Documents, FileArgs};
use crate::cli::exit::{Error, Exit, print};
use crate::cli::local::{self, Finished};
use crate::cli::output::report::{self, Format, View};
use crate::engine::Mode;

/// Attach the artifacts of ImageAttachments, once and without a cluster
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The login for the registry is that of the resource (spec.secretRef or spec.serviceAccountName, with these objects among the files). \
Otherwise it is yours: REGISTRY_AUTH_FILE, then $DOCKER_CONFIG/config.json or ~/.docker/config.json, then \
$XDG_RUNTIME_DIR/containers/auth.json. Credential helpers are not run.

A second run changes nothing: attachments that exist are kept. Nothing is removed.

Examples:
  # Attach the artifacts of one file
  affix attach -f end-of-life.yaml

  # Read several files, or every .yaml, .yml and .json file of a folder
  affix attach -f resource.yaml -f signatures.yaml
  affix attach -f config/

  # Read the output of another command
  kustomize build . | affix attach -f -

  # Print the resources with their status, for scripts
  affix attach -f end-of-life.yaml -o json

Exit codes: 0 everything is attached, 1 something is not, 2 the input is invalid and no request was sent."
)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Print the resources with their status, instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    work(&args.files, args.output, Mode::Attach).await
}

/// Runs `attach` or `plan`.
pub(super) async fn work(
    files: &FileArgs,
    output: Option<Format>,
    mode: Mode,
) -> Result<Exit, Error> {
    let mut documents = Documents::load(files)?;
    if mode == Mode::Plan {
        documents.read_status()?;
    }
    local::show_notices(&documents);
    let (activity, view) = if mode == Mode::Plan {
        ("planning", View::Plan)
    } else {
        ("attaching", View::Attached)
    };
    let jobs = local::prepare(&documents, mode)?;
    let (all, interrupted) = local::run(&local::engine(), &jobs, activity).await;
    let text = match output {
        Some(format) => report::resources(&all, format, Timestamp::now())?,
        None => report::tables(&all, view),
    };
    print(&text)?;
    let succeeded = |finished: &Finished<'_>| {
        finished
            .outcome
            .as_ref()
            .is_some_and(|outcome| report::is_success(outcome, view))
    };
    Ok(match (interrupted, all.iter().all(succeeded)) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Incomplete,
    })
}
