//! The user's logins to registries, from the files of docker and podman. Credential helpers are not run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use affix_registry::Keychain;
use affix_registry::oci::Host;

/// The part of a file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Returns the user's logins for `hosts`. Files that cannot be used are reported in the log.
pub(in crate::cli) fn user_logins(hosts: &BTreeSet<&Host>) -> Keychain {
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

/// Returns the files with logins in order of precedence: the file of the variable, docker's file, podman's file.
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
                warnings.push(format!("cannot use the logins in {shown}: {error}"));
                continue;
            }
        };
        match Keychain::parse(&json) {
            Ok(keychain) => keychains.push(keychain),
            Err(error) => warnings.push(format!("cannot use the logins in {shown}: {error}")),
        }
        for (host, helper) in helpers(&json, hosts) {
            warnings.push(format!(
                "the login to {host} is in the credential helper {helper:?}, which affix does not run ({shown}): give the login in a \
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
    file.take(MAX_BYTES).read_to_end(&mut json)?;
    Ok(Some(json))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Helpers {
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
    auths: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
}

/// Returns the hosts whose login is in a credential helper: the host has a helper of its own, or an entry without a login and
/// there is a helper for all hosts.
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
    let helper_of = |host: &Host| {
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
        .filter_map(|host| Some((host.to_string(), helper_of(host)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn helper_of(json: &str, host: &str) -> Vec<(String, String)> {
        let host: Host = host.parse().unwrap();
        helpers(json.as_bytes(), &BTreeSet::from([&host]))
    }

    #[test]
    fn a_login_in_a_credential_helper_is_detected() {
        let json = r#"{"auths":{"https://r.example.com/v2/":{},"x.example.com":{"auth":"eDp5"},"https://index.docker.io/v1/":{}},
            "credsStore":"desktop","credHelpers":{"gcr.io":"gcloud"}}"#;
        for (host, helper) in [
            ("r.example.com", "desktop"),
            ("gcr.io", "gcloud"),
            ("docker.io", "desktop"),
        ] {
            assert_eq!(
                helper_of(json, host),
                [(host.to_owned(), helper.to_owned())]
            );
        }
        for host in ["x.example.com", "other.example.com"] {
            assert!(helper_of(json, host).is_empty(), "{host}");
        }
        assert!(helper_of("[]", "r.example.com").is_empty());
    }

    #[test]
    fn the_environment_takes_precedence_over_the_home_folder() {
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
