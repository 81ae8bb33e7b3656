//! `affix completion`: scripts that complete commands and flags in a shell.

use clap::{Command, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli::exit::{Error, Exit, print};

/// Print a script that completes commands and flags in a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  # Complete in this session
  source <(affix completion bash)

  # Complete in every session of fish
  affix completion fish > ~/.config/fish/completions/affix.fish

  # Complete in every session of zsh, in a folder of $fpath
  affix completion zsh > \"${fpath[1]}/_affix\"")]
pub(in crate::cli) struct Args {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: SupportedShell,
}

/// The shells with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SupportedShell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// Fish
    Fish,
}

/// Runs the command. `command` is the whole command line of affix.
pub(in crate::cli) fn run(args: &Args, mut command: Command) -> Result<Exit, Error> {
    let shell = match args.shell {
        SupportedShell::Bash => Shell::Bash,
        SupportedShell::Zsh => Shell::Zsh,
        SupportedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut command, "affix", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
