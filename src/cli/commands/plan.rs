//! `affix plan`: the plan of `attach`, without changes.

use super::attach::work;
use crate::cli::documents::{Documents, FileArgs};
use crate::cli::exit::{Error, Exit};
use crate::cli::output::report::Format;
use crate::engine::Mode;

/// Show the changes that attach would make, without making them
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The plan has one line for each manifest of the image:
  attach   no equal attachment exists, so one would be created
  adopt    an equal attachment exists and would be used
  keep     the resource's own attachment exists
  remove   the resource created the attachment and no longer wants it
  wait     the attachment was pushed, and the registry does not list it yet; attach waits until the registry does
  unknown  the key is not among the files, so plan cannot tell whether its signature exists
  skip     the manifest is not a target of the resource
  fail     the attachment cannot be created

The status of a resource lists the attachments that it created. The plan can contain keep and remove only for resources with a status, as \
a cluster has them.

For a set, the plan begins with the table of its lifecycle, which has one line for each release cycle of a repository, and with its \
ImageAttachments:
  create    an image is signed or marked for the first time
  keep      the ImageAttachment exists among the files
  withdraw  its image is back to life, so its marks are removed
  delete    its image is no longer selected

Neither the key nor the pull secret of a resource is needed. Without the pull secret, your own login is used. Without the key, the plan shows \
the targets and cannot tell which of them are signed.

Examples:
  # Plan the resources of a file
  affix plan -f end-of-life.yaml

  # Print the resources with the plan in their status
  affix plan -f config/ -o yaml

  # Review the lifecycle of a set
  affix plan -f set.yaml

  # Plan the resources of a cluster; add -f for the objects that they reference
  kubectl get ia -A -o yaml | affix plan -f -

Exit codes: 0 the plan can be carried out, 1 a part of it cannot, 2 the input is invalid and no request was sent."
)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Print the resources with the plan in their status, instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Args) -> Result<Exit, Error> {
    let documents = Documents::load(&args.files)?;
    work(documents, args.output, Mode::Plan, Vec::new()).await
}
