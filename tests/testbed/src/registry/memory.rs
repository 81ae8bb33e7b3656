//! The two registries that keep everything in memory: they share their flags.

use std::path::{Path, PathBuf};

use super::{Kind, Quirk, Setting};
use crate::process::Launch;
use crate::tools::{Tool, Tools};

pub(super) fn access_log(dir: &Path) -> PathBuf {
    dir.join("access.log")
}

pub(super) fn launch(tools: &Tools, setting: &Setting<'_>) -> anyhow::Result<Launch> {
    let (tool, name) = match setting.options.kind() {
        Kind::Liar => (Tool::Liar, "liar"),
        _ => (Tool::OciRegistry, "ociregistry"),
    };
    let mut launch = Launch::new(name, tools.path(tool)?, setting.dir.join("registry.log"))
        .args(["-addr", setting.address])
        .arg("-access-log")
        .arg(access_log(setting.dir));
    if let Some(files) = setting.files {
        launch = launch
            .arg("-tls-cert")
            .arg(&files.certificate)
            .arg("-tls-key")
            .arg(&files.key);
    }
    if let Some((user, password)) = setting.options.password() {
        launch = launch.arg("-basic").arg(format!("{user}:{password}"));
    }
    if let Some(tokens) = setting.tokens {
        launch = launch
            .arg("-token-realm")
            .arg(tokens.realm())
            .args(["-token-service", super::tokens::SERVICE, "-token-jwks"])
            .arg(tokens.jwks());
    }
    let flags = [
        (Quirk::ImmutableTags, "-immutable-tags"),
        (Quirk::NoReferrersApi, "-disable-referrers-api"),
        (Quirk::NoFilter, "-disable-referrers-filtering"),
        (Quirk::NoSinglePost, "-disable-single-post-upload"),
        (Quirk::NoDigestHeader, "-omit-digest-header"),
        (Quirk::NoDelete, "-disable-delete"),
    ];
    for (quirk, flag) in flags {
        if setting.options.has(quirk) {
            launch = launch.arg(flag);
        }
    }
    Ok(launch)
}
