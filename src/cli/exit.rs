//! How a command ends: the exit codes of the design, and the errors that lead to them.

use std::io::Write as _;
use std::process::ExitCode;

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// All was done.
    Done,
    /// Something was not done, and the output says what.
    Incomplete,
    /// The user stopped it (128 + SIGINT, as shells have it).
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

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// What the user gave is wrong; one line each.
    #[error("{}", .0.join("\nerror: "))]
    BadInput(Vec<String>),
    /// A registry, or something else outside, did not play along.
    #[error("{0}")]
    Failed(String),
    /// The output could not be written.
    #[error("the output cannot be written: {0}")]
    Output(std::io::Error),
}

impl Error {
    /// Bad input, for one cause.
    pub(super) fn bad_input(what: impl std::fmt::Display) -> Self {
        Self::BadInput(vec![what.to_string()])
    }

    /// The exit code.
    pub(super) const fn exit(&self) -> Code {
        match self {
            Self::BadInput(_) => Code(2),
            Self::Failed(_) | Self::Output(_) => Code(1),
        }
    }
}

/// A number that is an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Writes the command's output. A reader who has seen enough (`affix tree … | head`) changes nothing about how the command ends.
///
/// # Errors
/// When it cannot be written for another cause.
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

/// Tells people something beside the output. Where nobody listens, nothing is lost.
pub(super) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
