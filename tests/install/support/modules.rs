//! Files of other projects from their Go modules. The command go downloads them and verifies them with Go's checksum database.

use std::path::PathBuf;
use std::time::Duration;

use affix_testbed::run::Run;

/// Returns the folder of a module, `path@version`.
pub(crate) async fn module(module: &str) -> PathBuf {
    let outside = tempfile::tempdir().unwrap();
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
    let described = download.output().await.unwrap().json().unwrap();
    PathBuf::from(described["Dir"].as_str().unwrap())
}
