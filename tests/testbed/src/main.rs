//! `testbed`: build the testbed's tools, or bring the testbed up by hand.

mod cmd;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    cmd::Command::parse().run().await
}
