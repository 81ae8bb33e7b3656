//! The command `affix`.
//!
//! `commands` has one file per subcommand; all of them use the same [`crate::engine`] as the controller. `documents` reads the files of
//! `-f`, `local` runs the engine without a cluster, and `output` prints tables and trees. Text from registries and files is escaped
//! before it reaches a terminal. Exit codes: 0 done, 1 not everything done, 2 invalid input.

mod boolean_flags;
mod commands;
mod documents;
mod exit;
mod flags;
mod interrupt;
mod label_selector;
mod local;
mod logging;
mod output;
mod panics;
#[cfg(feature = "otlp")]
mod traces;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Builder;

use commands::cluster::{report, status};
use commands::shell::{complete, completion, man};
use commands::{attach, controller, crd, detach, pin, plan, tree, version, webhook};
use exit::{Error, Exit, message};
use logging::{LogFormat, LogLevel};

/// The arguments of `affix`.
#[derive(Debug, Parser)]
#[command(name = "affix", version, about, long_about = LONG_ABOUT, after_long_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Format of the log on stderr; by default text, but json for controller and webhook if stderr is not a terminal
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// Lowest level that is logged; by default info for controller and webhook, warn for other commands. RUST_LOG takes precedence,
    /// for example RUST_LOG=affix=debug
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

impl Cli {
    /// Parses the arguments of a process, the name of the program first. It exits on errors and after `--help`.
    #[must_use]
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let found = boolean_flags::with_go_syntax(Self::command()).get_matches_from(args);
        Self::from_arg_matches(&found).unwrap_or_else(|error| error.exit())
    }
}

const LONG_ABOUT: &str = "Attach signatures, end-of-life marks and other artifacts to multi-platform images: to the index and to each platform, \
as OCI 1.1 referrers.

controller and webhook run in a cluster. The other commands need no cluster.";

const EXAMPLES: &str = "Examples:
  # Show the referrers of an image and of its platforms
  affix tree registry.example.com/team/app:v1

  # Show the changes of an ImageAttachment, then make them, without a cluster
  affix plan -f end-of-life.yaml
  affix attach -f end-of-life.yaml

  # Remove the attachments of a file
  affix detach -f end-of-life.yaml

  # Mark an image as no longer supported, without a file
  affix attach registry.example.com/team/app:v1 --end-of-life 2027-03-20

  # Replace tags by tag@digest
  affix pin -f config/

  # Install the CRD into a cluster
  affix crd | kubectl apply --server-side -f -

Exit codes: 0 everything was done, 1 something was not done, 2 the input is invalid and nothing was done.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator, which reconciles the ImageAttachments of a cluster
    Controller(Box<controller::Args>),
    /// Run the admission webhooks, which validate ImageAttachments and warn about pods with images past their end of life
    Webhook(Box<webhook::Args>),
    Attach(Box<attach::Args>),
    Plan(plan::Args),
    Detach(detach::Args),
    Tree(tree::Args),
    Status(status::Args),
    Report(report::Args),
    Pin(pin::Args),
    Crd(crd::Args),
    Version(version::Args),
    Completion(completion::Args),
    #[command(hide = true)]
    Man(man::Args),
    #[command(name = "__complete", hide = true)]
    Complete(complete::Args),
}

/// The stack of each thread of the operator: that of the main thread on Linux. A pass without optimisation needs more than the 2 MiB of
/// other threads.
const STACK_SIZE: usize = 8 << 20;

/// Runs a subcommand and returns its exit code. Errors are written to stderr.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    panics::install_hook();
    let is_operator = matches!(cli.command, Command::Controller(_) | Command::Webhook(_));
    // A command mostly waits for the network, so the start of threads would take longer than they could save.
    let mut runtime = if is_operator {
        let mut threads = Builder::new_multi_thread();
        threads.thread_stack_size(STACK_SIZE);
        threads
    } else {
        Builder::new_current_thread()
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(execute(cli, is_operator)),
        Err(error) => {
            message(&format!(
                "error: cannot start the asynchronous runtime: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli, is_operator: bool) -> ExitCode {
    let _logging = if is_operator {
        logging::start(
            cli.log_format.unwrap_or_else(LogFormat::operator_default),
            cli.log_level.unwrap_or(LogLevel::Info),
        )
    } else {
        logging::start(
            cli.log_format.unwrap_or(LogFormat::Text),
            cli.log_level.unwrap_or(LogLevel::Warn),
        )
    };
    let result = match cli.command {
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
        Command::Attach(args) => attach::run(*args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Detach(args) => detach::run(args).await,
        Command::Tree(args) => tree::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Report(args) => report::run(args).await,
        Command::Pin(args) => pin::run(args).await,
        Command::Crd(args) => crd::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => completion::run(&args, Cli::command()),
        Command::Man(args) => man::run(&args, Cli::command()),
        Command::Complete(args) => complete::run(args, Cli::command()),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            message(&format!("error: {error}"));
            error.exit_code()
        }
    }
}
