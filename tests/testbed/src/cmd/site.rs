//! `testbed site`.

use std::path::{Path, PathBuf};

use affix_testbed::site;
use anyhow::bail;

use super::say;

/// Where to build the site.
#[derive(Debug, clap::Args)]
pub(crate) struct Site {
    /// The folder of the site, which is replaced.
    folder: PathBuf,
}

impl Site {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let site = site::build(&root, &self.folder)?;
        let dead = site::dead_in_pages(&site)?;
        if !dead.is_empty() {
            bail!("dead links in the site:\n{}", dead.join("\n"));
        }
        say(&site.join("index.html").display().to_string());
        Ok(())
    }
}
