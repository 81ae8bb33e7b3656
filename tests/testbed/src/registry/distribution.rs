//! distribution: its configuration file.

#![allow(
    clippy::indexing_slicing,
    reason = "a JSON object that was made here takes any key"
)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::tokens::{ISSUER, SERVICE};
use super::{Quirk, Setting};
use crate::certificates::write;
use crate::process::Launch;
use crate::tools::{Tool, Tools};

/// The cost of the password's hash: the least that bcrypt takes, since nothing here is secret.
const BCRYPT_COST: u32 = 4;

/// Its log takes the access log too.
pub(super) fn log(dir: &Path) -> PathBuf {
    dir.join("registry.log")
}

pub(super) fn launch(tools: &Tools, setting: &Setting<'_>) -> anyhow::Result<Launch> {
    let config = setting.dir.join("distribution.yaml");
    write(&config, &format!("{:#}\n", configuration(setting)?))?;
    Ok(Launch::new(
        "distribution",
        tools.path(Tool::Distribution)?,
        log(setting.dir),
    )
    .arg("serve")
    .arg(config))
}

/// The configuration as JSON, which is YAML.
fn configuration(setting: &Setting<'_>) -> anyhow::Result<Value> {
    let options = setting.options;
    let mut http = json!({"addr": setting.address, "secret": "testbed"});
    if let Some(files) = setting.files {
        http["tls"] = json!({"certificate": files.certificate, "key": files.key});
    }
    let mut config = json!({
        "version": "0.1",
        // It says at this level where it listens.
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": setting.dir.join("data")},
            "delete": {"enabled": !options.has(Quirk::NoDelete)},
            "maintenance": {"uploadpurging": {"enabled": false}},
        },
        "http": http,
    });
    if options.has(Quirk::MissingChildren) {
        config["validation"] = json!({"manifests": {"indexes": {"platforms": "none"}}});
    }
    if let Some((user, password)) = options.password() {
        let file = setting.dir.join("htpasswd");
        write(
            &file,
            &format!("{user}:{}\n", bcrypt::hash(password, BCRYPT_COST)?),
        )?;
        config["auth"] = json!({"htpasswd": {"realm": "testbed", "path": file}});
    }
    if let Some(tokens) = setting.tokens {
        config["auth"] = json!({"token": {
            "realm": tokens.realm(), "service": SERVICE, "issuer": ISSUER, "jwks": tokens.jwks(),
        }});
    }
    Ok(config)
}
