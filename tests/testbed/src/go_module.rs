//! Files of other projects from their Go modules. The command go downloads them and verifies them with Go's checksum database.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::run::Run;

/// The folder of a module, `path@version`.
///
/// # Errors
///
/// Where the command go cannot download it.
pub async fn folder(module: &str) -> anyhow::Result<PathBuf> {
    let outside = tempfile::tempdir()?;
    let mut download = Run::new("go").args(["mod", "download", "-json", module]);
    for name in [
        "HOME",
        "GOPATH",
        "GOMODCACHE",
        "GOPROXY",
        "GOFLAGS",
        "GOSUMDB",
        "GONOSUMDB",
        "GOPRIVATE",
        "HTTPS_PROXY",
        "NO_PROXY",
    ] {
        if let Some(value) = std::env::var_os(name) {
            download = download.env(name, value);
        }
    }
    let download = download
        .env("GOWORK", "off")
        .dir(outside.path())
        .timeout(Duration::from_mins(10));
    let described = download.output().await?.json()?;
    let folder = described.get("Dir").and_then(serde_json::Value::as_str);
    let folder = folder.context("go names no folder")?;
    Ok(folder.into())
}
