//! `affix plan`: what `attach` would do, without a write.

use super::attach::work;
use super::documents::FileArgs;
use super::exit::{Error, Exit};
use super::report::Format;
use crate::engine::Mode;

/// Show target by target what attach would do, and why, without writing anything
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Each manifest of the image gets one line:
  attach   no equal attachment is there, so one would be made
  adopt    an equal attachment is there, whoever made it
  keep     the resource's own attachment is there
  remove   the resource made it, and does not want it any more
  skip     the manifest is none of the resource's targets
  fail     the attachment cannot be made, and why

What a resource made stands in its status. So keep and remove come from a resource as a cluster has it; without a status nothing is the \
resource's own, as for attach.

Examples:
  affix plan -f end-of-life.yaml
  affix plan -f config/ -o yaml                     the resources with the plan in their status
  kubectl get ia -A -o yaml | affix plan -f -       what is in a cluster; add -f for what it names

Exit codes: 0 the plan can be carried out, 1 not all of it can, 2 the input is wrong and nothing was asked of a registry.")]
pub(super) struct Args {
    #[command(flatten)]
    files: FileArgs,

    /// Print the resources with the plan in their status instead of tables
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Plans.
pub(super) async fn run(args: Args) -> Result<Exit, Error> {
    work(&args.files, args.output, Mode::Plan).await
}
