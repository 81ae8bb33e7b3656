//! `testbed bench`: affix measured against other people's tools, side by side on this machine.
//!
//! Owns the order of the measurements and where they are saved. Refuses to judge by a single run, and to save what a debug build
//! of affix or a run with `--smoke` measured.

mod admission;
mod api_server;
mod command;
mod controller;
mod growth;
mod images;
mod lab;
mod machine;
mod operator;
mod page;
mod plot;
mod run;
mod scale;
mod sets;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use affix_testbed::tools::Tools;
use anyhow::Context;

use super::say;
use lab::Lab;
use page::Page;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// The program to measure; without it, the `affix` beside this program.
    #[arg(long, value_name = "FILE")]
    affix: Option<PathBuf>,
    /// Only these parts.
    #[arg(long, value_enum, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// How often each pair is measured.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: usize,
    /// Resources of the largest measurement.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    most: usize,
    /// For how many seconds the operator is watched after a restart, and as long again at rest.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    watch: u64,
    /// A page whose parts are replaced by what was measured.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Everything once and small, to prove that the benchmark works.
    #[arg(long, conflicts_with = "save")]
    smoke: bool,
}

/// A part of the benchmark, and of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The command against oras, regctl and cosign.
    Command,
    /// The operator on few resources.
    Controller,
    /// The operator on many resources.
    Scale,
    /// The operator on many sets.
    Sets,
    /// How cost grows.
    Growth,
    /// The webhooks.
    Admission,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::Command,
        Self::Controller,
        Self::Scale,
        Self::Sets,
        Self::Growth,
        Self::Admission,
    ];

    /// The part's name in the page.
    const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Controller => "controller",
            Self::Scale => "scale",
            Self::Sets => "sets",
            Self::Growth => "growth",
            Self::Admission => "admission",
        }
    }
}

/// How much is measured.
#[derive(Debug, Clone)]
struct Effort {
    rounds: usize,
    most: usize,
    watch: Duration,
    smoke: bool,
}

impl Bench {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let affix = match self.affix {
            Some(path) => path,
            None => std::env::current_exe()?.with_file_name("affix"),
        };
        let affix = affix.canonicalize().with_context(|| {
            format!(
                "there is no {}: build it with `cargo build`",
                affix.display()
            )
        })?;
        let tools = Tools::all().await?;
        let effort = if self.smoke {
            Effort {
                rounds: 1,
                most: 20,
                watch: Duration::from_secs(2),
                smoke: true,
            }
        } else {
            Effort {
                rounds: self.rounds.max(1),
                most: self.most,
                watch: Duration::from_secs(self.watch.max(1)),
                smoke: false,
            }
        };
        let parts = if self.only.is_empty() {
            Part::ALL.to_vec()
        } else {
            self.only
        };
        for part in parts {
            let text = measure(part, &tools, &affix, &effort).await?;
            say(&format!("\n{text}"));
            if let Some(path) = &self.save {
                let mut page = Page::read(path)?;
                page.replace(part.name(), &text)?;
                page.write()?;
            }
        }
        Ok(())
    }
}

/// One part, on registries of its own.
async fn measure(
    part: Part,
    tools: &Tools,
    affix: &Path,
    effort: &Effort,
) -> anyhow::Result<String> {
    let machine = machine::describe();
    let lab = Lab::open(tools, affix).await?;
    let body = match part {
        Part::Command => command::measure(&lab, effort).await?,
        Part::Controller => controller::measure(&lab, effort).await?,
        Part::Scale => scale::measure(&lab, effort).await?,
        Part::Sets => sets::measure(&lab, effort).await?,
        Part::Growth => growth::measure(&lab, effort).await?,
        Part::Admission => admission::measure(&lab, effort).await?,
    };
    Ok(format!("{body}\n{machine}\n"))
}
