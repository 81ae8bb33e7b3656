//! The user's own logins to registries, as docker and podman keep them. Read, never written; no credential helper is run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use affix_registry::Keychain;
use affix_registry::oci::Host;

/// The most that is read of one file, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The logins for `hosts`, from where the environment says that they are. What cannot be used is said in the log.
pub(super) fn of_user(hosts: &BTreeSet<&Host>) -> Keychain {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let places = places(variable, std::env::home_dir());
    let (keychains, warnings) = read(&places, hosts);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Keychain::merge(keychains)
}

/// Where logins are kept, the first to be asked first: what a variable names, docker's file, podman's file.
fn places(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> Vec<PathBuf> {
    let docker = variable("DOCKER_CONFIG")
        .or_else(|| Some(home?.join(".docker")))
        .map(|folder| folder.join("config.json"));
    let podman =
        variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers").join("auth.json"));
    [variable("REGISTRY_AUTH_FILE"), docker, podman]
        .into_iter()
        .flatten()
        .collect()
}

fn read(places: &[PathBuf], hosts: &BTreeSet<&Host>) -> (Vec<Keychain>, Vec<String>) {
    let mut keychains = Vec::new();
    let mut warnings = Vec::new();
    for place in places {
        let shown = place.display();
        let json = match content(place) {
            Ok(Some(json)) => json,
            Ok(None) => continue,
            Err(error) => {
                warnings.push(format!("the logins in {shown} cannot be used: {error}"));
                continue;
            }
        };
        match Keychain::parse(&json) {
            Ok(keychain) => keychains.push(keychain),
            Err(error) => warnings.push(format!("the logins in {shown} cannot be used: {error}")),
        }
        for (host, helper) in helpers(&json, hosts) {
            warnings.push(format!(
                "{shown} keeps the login to {host} in the credential helper {helper:?}, which affix does not run: give the login in a \
                 Secret that spec.secretRef names, or in a file with \"auths\" that REGISTRY_AUTH_FILE names"
            ));
        }
    }
    (keychains, warnings)
}

fn content(place: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut json = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut json)?;
    Ok(Some(json))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Helpers {
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
    auths: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

/// The hosts whose login stands in a helper, as far as the file shows it: a helper of their own, or an entry without a login
/// beside a store for all.
fn helpers(json: &[u8], hosts: &BTreeSet<&Host>) -> Vec<(String, String)> {
    let known: Helpers = serde_json::from_slice(json).unwrap_or_default();
    let names = |key: &str, host: &Host| {
        let key = key
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let key = key.split('/').next().unwrap_or(key);
        key == host.as_str()
            || key
                .parse::<Host>()
                .is_ok_and(|key| key.api_host() == host.api_host())
    };
    let of = |host: &Host| {
        let own = known
            .cred_helpers
            .iter()
            .find(|(key, _)| names(key, host))
            .map(|(_, helper)| helper.clone());
        let stored = known
            .auths
            .iter()
            .any(|(key, login)| names(key, host) && login.is_empty());
        own.or_else(|| (stored && !known.creds_store.is_empty()).then(|| known.creds_store.clone()))
    };
    hosts
        .iter()
        .filter_map(|host| Some((host.to_string(), of(host)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that unwraps fails, as it should"
    )]

    use super::*;

    fn helped(json: &str, host: &str) -> Vec<(String, String)> {
        let host: Host = host.parse().unwrap();
        helpers(json.as_bytes(), &BTreeSet::from([&host]))
    }

    #[test]
    fn a_login_that_only_a_helper_has_is_noticed() {
        let json = r#"{"auths":{"https://r.example.com/v2/":{},"x.example.com":{"auth":"eDp5"},"https://index.docker.io/v1/":{}},
            "credsStore":"desktop","credHelpers":{"gcr.io":"gcloud"}}"#;
        for (host, helper) in [
            ("r.example.com", "desktop"),
            ("gcr.io", "gcloud"),
            ("docker.io", "desktop"),
        ] {
            assert_eq!(helped(json, host), [(host.to_owned(), helper.to_owned())]);
        }
        for host in ["x.example.com", "other.example.com"] {
            assert!(helped(json, host).is_empty(), "{host}");
        }
        assert!(helped("[]", "r.example.com").is_empty());
    }

    #[test]
    fn a_variable_is_asked_before_the_home_folder() {
        let none = |_: &str| None;
        assert_eq!(
            places(none, Some("/home/u".into())),
            [PathBuf::from("/home/u/.docker/config.json")]
        );
        let set = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let expected = [
            "/REGISTRY_AUTH_FILE",
            "/DOCKER_CONFIG/config.json",
            "/XDG_RUNTIME_DIR/containers/auth.json",
        ];
        assert_eq!(places(set, None), expected.map(PathBuf::from));
        assert!(places(none, None).is_empty());
    }
}
