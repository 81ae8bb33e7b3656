//! `affix man`: manual pages. Packages and release archives contain them.

use std::path::PathBuf;

use clap::Command;

use crate::cli::exit::{Error, Exit};

/// Write the manual pages of all commands to a folder
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  # Read the manual page of attach
  mkdir -p man && affix man man && man ./man/affix-attach.1")]
pub(in crate::cli) struct Args {
    /// The folder, which must exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs the command. `command` is the whole command line of affix.
pub(in crate::cli) fn run(args: &Args, command: Command) -> Result<Exit, Error> {
    clap_mangen::generate_to(command, &args.folder).map_err(|error| {
        Error::Failed(format!(
            "cannot write manual pages to {}: {error}",
            args.folder.display()
        ))
    })?;
    Ok(Exit::Done)
}
