//! `affix crd`: the CustomResourceDefinition.

use super::exit::{Error, Exit, print};

/// Print the CustomResourceDefinition of ImageAttachment as YAML
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  affix crd | kubectl apply --server-side -f -
  affix crd > crds/affix.dev_imageattachments.yaml")]
pub(super) struct Args {}

/// Prints it.
pub(super) fn run(_: &Args) -> Result<Exit, Error> {
    print(&crate::api::crd_yaml())?;
    Ok(Exit::Done)
}
