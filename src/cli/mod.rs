//! The command `affix`: arguments, one file a subcommand, what people read on their terminal.
//!
//! Owns: arguments, files given with `-f`, the user's own logins, tables, and exit codes (0 done, 1 not all done, 2 bad input).
//! Refuses: to decide anything about attachments (the same [`crate::engine`] as in the cluster does), to write to disk, and to
//! let what a registry sent reach a terminal unescaped.

mod attach;
mod controller;
mod crd;
mod desk;
mod detach;
mod documents;
mod exit;
mod flags;
mod interrupt;
mod logging;
mod login;
mod panics;
mod pin;
mod plan;
mod report;
mod switches;
mod table;
mod text;
#[cfg(feature = "otlp")]
mod traces;
mod tree;
mod webhook;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Builder;

use exit::{Error, Exit, tell};
use logging::{LogFormat, LogLevel};

/// The arguments of `affix`.
#[derive(Debug, Parser)]
#[command(name = "affix", version, about, long_about = LONG_ABOUT, after_long_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How log lines on stderr are written: text by default, but JSON for the operator away from a terminal; RUST_LOG chooses which
    /// (such as RUST_LOG=affix=debug)
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// The least that is logged: info by default for the operator, warn for the other commands; RUST_LOG, where it is set, decides instead
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

impl Cli {
    /// The arguments of a process, its name first; where they are wrong, or only ask for help, it ends here.
    #[must_use]
    pub fn of(args: impl IntoIterator<Item = OsString>) -> Self {
        let found = switches::alike(Self::command()).get_matches_from(args);
        Self::from_arg_matches(&found).unwrap_or_else(|error| error.exit())
    }
}

const LONG_ABOUT: &str = "Attaches signatures, end-of-life marks and other artifacts to multi-platform images: to the index and to each \
platform, as OCI 1.1 referrers. In a cluster `affix controller` keeps them there; the other commands need no cluster.";

const EXAMPLES: &str = "Examples:
  See what is attached to an image and to each of its platforms:
    affix tree registry.example.com/team/app:v1

  See what an ImageAttachment would do, then do it, without a cluster:
    affix plan -f end-of-life.yaml
    affix attach -f end-of-life.yaml

  Take away what a file has attached:
    affix detach -f end-of-life.yaml

  Turn the tags of resources into tag@digest for a pull request:
    affix pin -f config/

  Install the resource definition into a cluster:
    affix crd | kubectl apply --server-side -f -

Exit codes: 0 all was done, 1 not all was done, 2 the input is wrong and nothing was done.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the operator: keeps in a cluster what its ImageAttachments ask for
    Controller(Box<controller::Args>),
    /// Runs the admission webhooks: refuses what cannot work, and tells people when they run what is out of date
    Webhook(Box<webhook::Args>),
    Attach(attach::Args),
    Plan(plan::Args),
    Detach(detach::Args),
    Tree(tree::Args),
    Pin(pin::Args),
    Crd(crd::Args),
}

/// Runs a subcommand to its end. Errors are written to stderr; the exit code says how it went.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    panics::tell_only_the_place();
    let is_operator = matches!(cli.command, Command::Controller(_) | Command::Webhook(_));
    // A command waits for the network and for little else: to start threads would take longer than what they could share.
    let mut runtime = if is_operator {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(carry_out(cli, is_operator)),
        Err(error) => {
            tell(&format!("error: the process cannot begin to work: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(cli: Cli, is_operator: bool) -> ExitCode {
    let _logging = if is_operator {
        logging::start(
            cli.log_format.unwrap_or_else(LogFormat::of_operator),
            cli.log_level.unwrap_or(LogLevel::Info),
        )
    } else {
        logging::start(
            cli.log_format.unwrap_or(LogFormat::Text),
            cli.log_level.unwrap_or(LogLevel::Warn),
        )
    };
    let ended = match cli.command {
        Command::Controller(args) => args
            .run()
            .await
            .map(|()| Exit::Done)
            .map_err(|error| Error::Failed(error.to_string())),
        Command::Webhook(args) => args
            .run()
            .await
            .map(|()| Exit::Done)
            .map_err(|error| Error::Failed(error.to_string())),
        Command::Attach(args) => attach::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Detach(args) => detach::run(args).await,
        Command::Tree(args) => tree::run(args).await,
        Command::Pin(args) => pin::run(args).await,
        Command::Crd(args) => crd::run(&args),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            tell(&format!("error: {error}"));
            error.exit().into()
        }
    }
}
