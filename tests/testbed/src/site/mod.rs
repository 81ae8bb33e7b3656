//! The static site of the documentation: stages the pages, runs mdBook on them, and finds dead links in the result.
//!
//! mdBook reads one folder. The documentation links to files outside of `docs/`, such as the README, samples and tests. [`build`] copies
//! those files into the site too, so that every link that works in the repository works in the site
//! (docs/decisions/0136-build-the-site-with-mdbook-from-a-staged-copy.md).

mod links;
mod stage;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

pub use links::{anchor, dead_in_pages, dead_in_repository};

/// The version of mdBook.
const VERSION: &str = "0.5.4";

/// Builds the site of the repository `root` into the folder `site`, which it replaces. Returns the folder.
///
/// # Errors
///
/// If mdBook cannot be installed, a page cannot be staged, or mdBook reports an error or a warning.
pub fn build(root: &Path, site: &Path) -> anyhow::Result<PathBuf> {
    let mdbook = crate::tools::cargo_tool("mdbook", VERSION, &["search"])?;
    let work = tempfile::Builder::new().prefix("affix-site-").tempdir()?;
    stage::stage(root, work.path())?;
    let output = Command::new(mdbook)
        .arg("build")
        .arg(work.path())
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .output()
        .context("mdbook cannot be started")?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || log.contains("WARN") || log.contains("ERROR") {
        bail!("mdbook build: {}\n{log}", output.status);
    }
    if site.exists() {
        std::fs::remove_dir_all(site)
            .with_context(|| format!("{} cannot be replaced", site.display()))?;
    }
    copy(&work.path().join("book"), site)?;
    Ok(site.to_owned())
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)
                .with_context(|| format!("{} cannot be copied", path.display()))?;
        }
    }
    Ok(())
}
