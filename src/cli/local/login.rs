//! The user's logins to registries: the files of docker and podman, and the credential helpers that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use affix_registry::Keychain;
use affix_registry::oci::{Host, without_bom};

use super::credential_helper::{self, Login};
use crate::cli::output::text::line;

/// The part of a file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The key of Docker Hub in docker's files and credential helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Returns the user's logins for `hosts`. Files and credential helpers that cannot be used are reported in the log.
pub(in crate::cli) async fn user_logins(hosts: &BTreeSet<&Host>) -> Keychain {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let mut keychains = Vec::new();
    for place in places(variable, std::env::home_dir().as_deref()) {
        keychains.extend(read(&place, hosts).await);
    }
    Keychain::merge(keychains)
}

/// Returns the files with logins in order of precedence: the file of the variable, docker's file, podman's files.
fn places(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<&Path>) -> Vec<PathBuf> {
    let in_home = |folder: &str| Some(home?.join(folder));
    let docker = variable("DOCKER_CONFIG")
        .or_else(|| in_home(".docker"))
        .map(|folder| folder.join("config.json"));
    let podman = |folder: PathBuf| folder.join("containers").join("auth.json");
    let config = variable("XDG_CONFIG_HOME").or_else(|| in_home(".config"));
    [
        variable("REGISTRY_AUTH_FILE"),
        docker,
        variable("XDG_RUNTIME_DIR").map(podman),
        config.map(podman),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the logins of one file. As with docker, a credential helper takes precedence over the logins in the file itself.
async fn read(place: &Path, hosts: &BTreeSet<&Host>) -> Vec<Keychain> {
    let shown = place.display();
    let json = match content(place) {
        Ok(Some(json)) => json,
        Ok(None) => return Vec::new(),
        Err(error) => {
            tracing::warn!("cannot use the logins in {shown}: {error}");
            return Vec::new();
        }
    };
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(without_bom(&json)) else {
        // The parser of logins names the position of the error.
        if let Err(error) = Keychain::parse(&json) {
            tracing::warn!("cannot use the logins in {shown}: {error}");
        }
        return Vec::new();
    };
    let config = Helpers::take_from(&mut fields);
    for key in &config.unreadable {
        let key = line(key, 80);
        tracing::warn!(
            "skipped the credential helper of {key:?} in {shown}: its value is not the name of a helper"
        );
    }
    let mut keychains = Vec::new();
    let asked = futures::future::join_all(hosts.iter().filter_map(|host| {
        let (helper, server) = config.helper_of(host)?;
        Some(async move { (*host, credential_helper::get(&helper, &server).await) })
    }));
    for (host, answer) in asked.await {
        match answer {
            Ok(Some(login)) => keychains.extend(keychain(host, &login)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("cannot use the login to {host} of {shown}: {error}");
            }
        }
    }
    match Keychain::parse(&serde_json::to_vec(&fields).unwrap_or_default()) {
        Ok(keychain) => keychains.push(keychain),
        Err(error) => tracing::warn!("cannot use the logins in {shown}: {error}"),
    }
    keychains
}

/// Returns the login of a credential helper as a keychain.
fn keychain(host: &Host, login: &Login) -> Option<Keychain> {
    let entry = match login {
        Login::Password { username, password } => {
            json!({"username": username, "password": password.as_str()})
        }
        Login::IdentityToken(token) => json!({"identitytoken": token.as_str()}),
    };
    let config = json!({"auths": {host.as_str(): entry}}).to_string();
    Keychain::parse(config.as_bytes()).ok()
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

/// The credential helpers of a docker configuration.
#[derive(Debug, Default)]
struct Helpers {
    /// The helper for all hosts.
    store: Option<String>,
    /// The helpers by host. An empty name means the logins of the file, as with docker.
    by_host: BTreeMap<String, String>,
    /// The keys of helpers by host whose value is not a text, and `credsStore` if its value is not.
    unreadable: Vec<String>,
    /// The keys of `auths`. docker writes one for each login that is in the helper.
    keys: Vec<String>,
}

impl Helpers {
    /// Takes the helpers out of a configuration, so that only the logins of the file remain.
    fn take_from(fields: &mut Map<String, Value>) -> Self {
        let mut unreadable = Vec::new();
        let mut text = |key: &str, value: Value| match value {
            Value::String(text) => Some(text),
            Value::Null => None,
            _ => {
                unreadable.push(key.to_owned());
                None
            }
        };
        let store = fields
            .remove("credsStore")
            .and_then(|value| text("credsStore", value))
            .filter(|store| !store.is_empty());
        let by_host = match fields.remove("credHelpers") {
            Some(Value::Object(helpers)) => helpers
                .into_iter()
                .filter_map(|(key, value)| text(&key, value).map(|helper| (key, helper)))
                .collect(),
            other => {
                other.and_then(|value| text("credHelpers", value));
                BTreeMap::new()
            }
        };
        // A configuration without logins is valid.
        let auths = fields.entry("auths").or_insert_with(|| json!({}));
        let keys = auths.as_object().into_iter().flat_map(Map::keys).cloned();
        Self {
            store,
            by_host,
            keys: keys.collect(),
            unreadable,
        }
    }

    /// Returns the helper for a host, and the server that it is asked for.
    fn helper_of(&self, host: &Host) -> Option<(String, String)> {
        let own = self.by_host.iter().find(|(key, _)| names(key, host));
        if let Some((key, helper)) = own {
            return (!helper.is_empty()).then(|| (helper.clone(), key.clone()));
        }
        let store = self.store.as_ref()?;
        let key = self.keys.iter().find(|key| names(key, host)).cloned();
        let server = key.unwrap_or_else(|| server_of(host));
        Some((store.clone(), server))
    }
}

/// Returns the name under which `docker login` stores the login of a host.
fn server_of(host: &Host) -> String {
    if names(DOCKER_HUB, host) {
        DOCKER_HUB.to_owned()
    } else {
        host.to_string()
    }
}

/// Returns whether a key of a docker configuration names a host.
fn names(key: &str, host: &Host) -> bool {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let key = key.split('/').next().unwrap_or(key);
    key == host.as_str()
        || key
            .parse::<Host>()
            .is_ok_and(|key| key.api_host() == host.api_host())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn helper_of(json: &str, host: &str) -> Option<(String, String)> {
        let mut fields = serde_json::from_str(json).unwrap();
        Helpers::take_from(&mut fields).helper_of(&host.parse().unwrap())
    }

    #[test]
    fn the_helper_of_a_host_comes_before_the_helper_of_all_hosts() {
        let json = r#"{"auths":{"https://r.example.com/v2/":{},"https://index.docker.io/v1/":{}},
            "credsStore":"desktop","credHelpers":{"gcr.io":"gcloud"}}"#;
        for (host, helper, server) in [
            ("r.example.com", "desktop", "https://r.example.com/v2/"),
            ("gcr.io", "gcloud", "gcr.io"),
            ("docker.io", "desktop", DOCKER_HUB),
            (
                "other.example.com:5000",
                "desktop",
                "other.example.com:5000",
            ),
        ] {
            let expected = Some((helper.to_owned(), server.to_owned()));
            assert_eq!(helper_of(json, host), expected, "{host}");
        }
        assert_eq!(
            helper_of(r#"{"credsStore":"pass"}"#, "docker.io"),
            Some(("pass".to_owned(), DOCKER_HUB.to_owned()))
        );
        let without = r#"{"auths":{"r.example.com":{}},"credsStore":"","credHelpers":null}"#;
        assert_eq!(helper_of(without, "r.example.com"), None);
        // As with docker, an empty name selects the logins of the file.
        let file = r#"{"credsStore":"desktop","credHelpers":{"r.example.com":""}}"#;
        assert_eq!(helper_of(file, "r.example.com"), None);
        assert!(helper_of(file, "gcr.io").is_some());
    }

    #[test]
    fn a_helper_that_is_not_a_text_is_named_and_leaves_the_others() {
        let json = r#"{"credsStore":7,"credHelpers":{"a.io":["x"],"b.io":"good","c.io":null}}"#;
        let mut fields = serde_json::from_str(json).unwrap();
        let helpers = Helpers::take_from(&mut fields);
        assert_eq!(helpers.unreadable, ["credsStore", "a.io"]);
        let good = helpers.helper_of(&"b.io".parse().unwrap());
        assert_eq!(good, Some(("good".to_owned(), "b.io".to_owned())));
        let mut fields = serde_json::from_str(r#"{"credHelpers":["x"]}"#).unwrap();
        assert_eq!(Helpers::take_from(&mut fields).unreadable, ["credHelpers"]);
    }

    #[test]
    fn the_environment_takes_precedence_over_the_home_folder() {
        let none = |_: &str| None;
        assert_eq!(
            places(none, Some(Path::new("/home/u"))),
            [
                PathBuf::from("/home/u/.docker/config.json"),
                PathBuf::from("/home/u/.config/containers/auth.json"),
            ]
        );
        let set = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let expected = [
            "/REGISTRY_AUTH_FILE",
            "/DOCKER_CONFIG/config.json",
            "/XDG_RUNTIME_DIR/containers/auth.json",
            "/XDG_CONFIG_HOME/containers/auth.json",
        ];
        assert_eq!(places(set, None), expected.map(PathBuf::from));
        assert!(places(none, None).is_empty());
    }
}
