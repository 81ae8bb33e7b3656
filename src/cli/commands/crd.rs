//! `affix crd`: the CustomResourceDefinitions.

use crate::cli::exit::{Error, Exit, print};

/// Print the CustomResourceDefinitions of ImageAttachment and ImageAttachmentSet
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  # Install the CRDs
  affix crd | kubectl apply --server-side -f -

  # Write the CRDs to a file
  affix crd > affix-crds.yaml")]
pub(in crate::cli) struct Args {}

/// Runs the command.
pub(in crate::cli) fn run(_: &Args) -> Result<Exit, Error> {
    print(&crate::api::crds_yaml())?;
    Ok(Exit::Done)
}
