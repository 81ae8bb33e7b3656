//! `testbed`: build the testbed's tools, show affix on it, or bring it up by hand.

mod cmd;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match cmd::Command::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In words: what went wrong is seldom in the testbed's own code, where a backtrace would point.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
