//! The binary `affix`: an allocator, the arguments, an exit code. Everything else is the library's.

use std::process::ExitCode;

use affix::cli::{Cli, run};
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    run(Cli::parse()).await
}
