//! `affix version`: version, commit and date of the build.

use clap::ValueEnum;
use serde_json::json;

use crate::cli::exit::{Error, Exit, print};
use crate::cli::output::report;

/// The commit of the build, from the environment of the compiler.
const COMMIT: Option<&str> = option_env!("AFFIX_COMMIT");
/// The date of the build, from the environment of the compiler.
const DATE: Option<&str> = option_env!("AFFIX_DATE");

/// Print the version, the commit and the date of this build
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  # Print the version for a script
  affix version -o json | jq -r .version")]
pub(in crate::cli) struct Args {
    /// Print JSON, instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<VersionFormat>,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VersionFormat {
    /// JSON
    Json,
}

/// Runs the command.
pub(in crate::cli) fn run(args: &Args) -> Result<Exit, Error> {
    let version = env!("CARGO_PKG_VERSION");
    // A build without git sets the variables to empty strings.
    let [commit, date] = [COMMIT, DATE].map(|value| value.filter(|value| !value.is_empty()));
    let text = match args.output {
        Some(VersionFormat::Json) => {
            report::json(&json!({"version": version, "commit": commit, "date": date}))?
        }
        None => format!(
            "affix {version}\ncommit: {}\ndate: {}\n",
            commit.unwrap_or("unknown"),
            date.unwrap_or("unknown")
        ),
    };
    print(&text)?;
    Ok(Exit::Done)
}
