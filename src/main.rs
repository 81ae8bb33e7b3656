//! The binary `affix`: the arguments, an exit code. Everything else is the library's.

use std::process::ExitCode;

use affix::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::of(std::env::args_os()))
}
