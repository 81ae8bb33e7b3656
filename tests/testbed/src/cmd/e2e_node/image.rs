//! The images of the checks: affix by `release/image.sh`, and applications.

use std::path::{Path, PathBuf};
use std::process::Command;

use affix_testbed::images::{Image, Index, Pushed};
use affix_testbed::node::{Node, pause_program};
use affix_testbed::peer::Peer;
use affix_testbed::run::Run;
use affix_testbed::tools::{Tool, Tools};
use anyhow::Context;

/// Builds the image of affix and pushes it to `image`, as `make image` does. The base is the C library of this machine, for which the
/// binary was built, and the certificate of the node's authority.
pub(super) async fn affix(
    tools: &Tools,
    node: &Node,
    peer: &Peer,
    binary: &Path,
    dir: &Path,
    image: &str,
) -> anyhow::Result<()> {
    let base = dir.join("base");
    for library in libraries(binary)? {
        let target = base.join(library.strip_prefix("/")?);
        std::fs::create_dir_all(target.parent().context("a library is in a folder")?)?;
        std::fs::copy(&library, target)?;
    }
    std::fs::create_dir_all(base.join("etc/ssl/certs"))?;
    std::fs::write(
        base.join("etc/ssl/certs/ca-certificates.crt"),
        node.ca_pem(),
    )?;
    std::fs::write(
        base.join("etc/passwd"),
        "nonroot:x:65532:65532::/:/sbin/nologin\n",
    )?;
    // A debug build with its symbols is ten times as large.
    let stripped = dir.join("affix");
    let strip = Run::new("strip")
        .args([
            "--strip-all".as_ref(),
            "-o".as_ref(),
            stripped.as_os_str(),
            binary.as_os_str(),
        ])
        .output()
        .await?;
    strip.stdout()?;
    let run = Run::new("bash").args([repository().join("release/image.sh")]);
    let run = peer
        .environment()
        .into_iter()
        .fold(run, |run, (name, value)| run.env(name, value));
    run.env("CRANE", tools.path(Tool::Crane)?)
        .env("BINARY", stripped)
        .env("BASE", base)
        .env("IMAGE", image)
        .output()
        .await?
        .stdout()
        .map(drop)
}

/// Pushes a runnable application for two platforms.
pub(super) async fn application(tools: &Tools, node: &Node, tag: &str) -> anyhow::Result<Pushed> {
    let program = pause_program(tools)?;
    let image = |platform| Image::new(platform, tag).program(&program);
    Index::new()
        .image(image("linux/amd64"))
        .image(image("linux/arm64"))
        .push(&node.registry().raw()?, "team/app", tag)
        .await
}

/// The root of the repository.
pub(super) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The dynamic linker and the libraries of a program.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}
