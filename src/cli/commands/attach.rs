//! `affix attach`: one pass of the engine, without a cluster.

use std::path::PathBuf;

use k8s_openapi::jiff::Timestamp;

use super::image::ImageArgs;
use crate::cli::documents::{Documents, FileArgs, ScopeArgs};
use crate::cli::exit::{Error, Exit, message, print};
use crate::cli::local::sets::{self, PlannedSet};
use crate::cli::local::{self, Finished};
use crate::cli::output::report::{self, Format, View};
use crate::cli::output::sets as output_sets;
use crate::engine::Mode;
use affix_registry::HostPattern;

/// Attach the artifacts of ImageAttachments and ImageAttachmentSets, once and without a cluster
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "affix attach [OPTIONS] -f FILE…\n       affix attach [OPTIONS] IMAGE (--end-of-life DATE | --artifact-type TYPE [FILE]… | --sign-with KEY-FILE)",
    after_long_help = "The resources come from files (-f), or the flags describe one resource for IMAGE.

The login for the registry is that of the resource (spec.secretRef or spec.serviceAccountName, with these objects among the files). \
Otherwise it is yours: REGISTRY_AUTH_FILE, then $DOCKER_CONFIG/config.json or ~/.docker/config.json, then \
$XDG_RUNTIME_DIR/containers/auth.json, then ~/.config/containers/auth.json. The credential helpers that these files name (credHelpers, \
credsStore) are run; those of a Secret never are.

A second run changes nothing: attachments that exist are kept. Nothing is removed, except for the marks of a set on images that are back \
to life, if the ImageAttachments of the set are among the files with their status: -o yaml prints them.

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

  # Attach to the images of a set, and keep the status for the next run
  affix attach -f set.yaml -o yaml > state.yaml
  affix attach -f state.yaml -o yaml > new-state.yaml

  # Mark an image as no longer supported, attach an SBOM, sign: without a file of resources
  affix attach registry.example.com/team/app:v1 --end-of-life 2027-03-20
  affix attach registry.example.com/team/app:v1 --artifact-type application/spdx+json sbom.json:application/spdx+json
  affix attach registry.example.com/team/app:v1 --sign-with cosign.key

  # Print the resource that does the same in a cluster
  affix attach registry.example.com/team/app:v1 --end-of-life 2027-03-20 --dry-run -o yaml

Exit codes: 0 everything is attached, 1 something is not, 2 the input is invalid and no request was sent."
)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    image: ImageArgs,

    /// File, folder (its .yaml, .yml and .json files) or - for stdin with ImageAttachments, ImageAttachmentSets and the ConfigMaps, Secrets and
    /// ServiceAccounts that they reference; may be repeated
    #[arg(short = 'f', long = "filename", required_unless_present = "image", num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    scope: ScopeArgs,

    /// Hosts that the registry may name for uploads although their address is private or loopback, such as localhost:9000
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    upload_hosts: Vec<HostPattern>,

    /// Print the resources with their status, instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    let mode = if args.image.dry_run {
        Mode::Plan
    } else {
        Mode::Attach
    };
    let Some(image) = &args.image.image else {
        let files = FileArgs {
            files: args.files,
            scope: args.scope,
        };
        let documents = Documents::load(&files)?;
        return work(documents, args.output, mode, args.upload_hosts).await;
    };
    let prints_only = args.image.dry_run && args.output.is_some();
    let built = args.image.build(image, &args.scope, prints_only).await?;
    let documents = built.documents()?;
    match args.output {
        Some(format) if args.image.dry_run => {
            if let Some(note) = built.key_note() {
                message(&note);
            }
            print(&report::objects(&built.objects, format)?)?;
            Ok(Exit::Done)
        }
        output => work(documents, output, mode, args.upload_hosts).await,
    }
}

/// Runs `attach` or `plan`.
pub(super) async fn work(
    mut documents: Documents,
    output: Option<Format>,
    mode: Mode,
    upload_hosts: Vec<HostPattern>,
) -> Result<Exit, Error> {
    if mode == Mode::Plan {
        documents.read_status()?;
    }
    local::show_notices(&documents);
    let (activity, view) = if mode == Mode::Plan {
        ("planning", View::Plan)
    } else {
        ("attaching", View::Attached)
    };
    let engine = local::engine(upload_hosts);
    let mut planned = sets::expand(&mut documents, &engine, mode).await?;
    sets::show_notices(&planned);
    let jobs = local::prepare(&documents, mode).await?;
    if mode == Mode::Attach {
        sets::withdraw(&engine, &documents, &mut planned).await;
    }
    let (all, interrupted) = local::run(&engine, &jobs, activity).await;
    let now = Timestamp::now();
    let text = match output {
        Some(format) => report::with_sets(&planned, &all, format, now)?,
        None => output_sets::tables(&planned, mode) + &report::tables(&all, view),
    };
    print(&text)?;
    let succeeded = |finished: &Finished<'_>| {
        finished
            .outcome
            .as_ref()
            .is_some_and(|outcome| report::is_success(outcome, view))
    };
    let is_complete = all.iter().all(succeeded) && planned.iter().all(PlannedSet::is_complete);
    Ok(match (interrupted, is_complete) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Done,
        (false, false) => Exit::Incomplete,
    })
}
