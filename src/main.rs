//! The binary `affix`.

use std::process::ExitCode;

use affix::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::from_args(std::env::args_os()))
}
