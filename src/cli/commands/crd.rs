//! `affix crd`: the CustomResourceDefinition.

use crate::cli::exit::{Error, Exit, print};

/// Print the CustomResourceDefinition of ImageAttachment
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  # Install the CRD
  affix crd | kubectl apply --server-side -f -

  # Write the CRD to a file
  affix crd > affix.dev_imageattachments.yaml")]
pub(in crate::cli) struct Args {}

/// Runs the command.
pub(in crate::cli) fn run(_: &Args) -> Result<Exit, Error> {
    print(&crate::api::crd_yaml())?;
    Ok(Exit::Done)
}
