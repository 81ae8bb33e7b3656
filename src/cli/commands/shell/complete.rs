//! `affix __complete`: completions for `kubectl affix`, in the protocol of cobra that kubectl speaks.
//!
//! kubectl runs `kubectl_complete-affix` with the words that the user typed, the last one incomplete. Each line of the answer is a word
//! and its description, separated by a tab. The last line is a number that tells the shell how to go on
//! (docs/decisions/0137-complete-kubectl-affix-with-the-engine-of-clap.md).

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::Command;
use clap_complete::engine;

use crate::cli::exit::{Error, Exit, print};

/// The shell completes no files by itself.
const NO_FILES: u8 = 4;
/// The shell adds no space, because the word goes on: it is a folder.
const NO_SPACE: u8 = 2;

/// Complete the words of a command line for kubectl
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The words after `kubectl affix`; the last one is incomplete
    #[arg(value_name = "WORD", last = true)]
    words: Vec<OsString>,
}

/// Runs the command. `command` is the whole command line of affix.
pub(in crate::cli) fn run(args: Args, mut command: Command) -> Result<Exit, Error> {
    let mut words = vec![OsString::from("affix")];
    words.extend(args.words);
    if words.len() == 1 {
        words.push(OsString::new());
    }
    let last = words.len() - 1;
    let folder = std::env::current_dir().ok();
    let candidates = engine::complete(&mut command, words, last, folder.as_deref())
        .map_err(|error| Error::Failed(format!("cannot complete: {error}")))?;
    let mut directive = NO_FILES;
    let mut answer = String::new();
    for candidate in candidates.iter().filter(|found| !found.is_hide_set()) {
        let word = candidate.get_value().to_string_lossy();
        if word.ends_with('/') {
            directive |= NO_SPACE;
        }
        let about = candidate
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let about = about.lines().next().unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(answer, "{word}\t{about}");
    }
    print(&format!("{answer}:{directive}\n"))?;
    Ok(Exit::Done)
}
