//! Exit codes, errors and output of commands.

use std::io::Write as _;
use std::process::ExitCode;

/// The result of a command that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything was done.
    Done,
    /// Something was not done. The output says why.
    Incomplete,
    /// The user interrupted the command: 128 + SIGINT, as in shells.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Incomplete => Self::from(1),
            Exit::Interrupted => Self::from(130),
        }
    }
}

/// The reason why a command could not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The input is wrong; one line for each error.
    #[error("{}", .0.join("\nerror: "))]
    BadInput(Vec<String>),
    /// A registry, a cluster or another remote system failed.
    #[error("{0}")]
    Failed(String),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
}

impl Error {
    /// Creates an error for bad input with one cause.
    pub(super) fn bad_input(cause: impl std::fmt::Display) -> Self {
        Self::BadInput(vec![cause.to_string()])
    }

    /// Returns the exit code.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::BadInput(_) => ExitCode::from(2),
            Self::Failed(_) | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}

/// Writes the output of the command. A closed pipe (`affix tree … | head`) does not change the exit code.
///
/// # Errors
/// If the output cannot be written for another reason.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Writes a message to stderr. A closed stderr is ignored.
pub(super) fn message(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
