//! `.dockerconfigjson`: logins by registry and repository path.
//!
//! The entry with the longest matching path wins, then an entry without wildcards, then the first
//! entry. Credential helpers are never run, because a Secret must not select a program to execute.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::access::host_pattern::labels_match;
use crate::access::secret::Secret;
use crate::oci::{Host, Repository, cut};

/// Logins by registry and repository path, in their original order.
#[derive(Debug, Clone, Default)]
pub struct Keychain {
    entries: Vec<Entry>,
    helpers: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Host in lower case. May contain `*`.
    host: String,
    port: Option<u16>,
    /// Leading parts of the repository name. Empty for all repositories.
    path: Vec<String>,
    credential: Credential,
}

/// A credential for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// No credential.
    Anonymous,
    /// User name and password.
    Basic { username: String, password: Secret },
    /// A refresh token for the registry's token service.
    Identity(Secret),
    /// A bearer token for the registry itself.
    Registry(Secret),
}

/// The reason for which a docker config cannot be used. Messages state the position, never the
/// content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// The bytes are not a docker config.
    #[error(
        "the docker config is malformed at line {line}, column {column}: it must be a JSON object with an object \"auths\""
    )]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The `auth` value of an entry is not the base64 of `user:password`.
    #[error(
        "the docker config's \"auth\" for {0:?} is malformed: it must be the base64 of user:password"
    )]
    Auth(String),
    /// The key of an entry does not name a registry.
    #[error(
        "the docker config's key {0:?} names no registry: write host[:port][/path], such as registry.example.com/team"
    )]
    Key(String),
}

#[derive(Deserialize)]
struct Document {
    auths: Option<BTreeMap<String, Option<Login>>>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Deserialize, Default)]
struct Login {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl Keychain {
    /// Returns a keychain without logins.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Parses the content of a `kubernetes.io/dockerconfigjson` Secret or of
    /// `~/.docker/config.json`.
    ///
    /// Entries without a login are ignored. Docker writes them if a credential helper is in use.
    ///
    /// # Errors
    /// If the bytes are not a docker config or an entry is invalid. An ignored invalid login would
    /// cause a misleading error from the registry later.
    pub fn parse(json: &[u8]) -> Result<Self, DockerConfigError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|error| DockerConfigError::Malformed {
                line: error.line(),
                column: error.column(),
            })?;
        let helpers = document.creds_store.is_some_and(|store| !store.is_empty())
            || document
                .cred_helpers
                .as_ref()
                .is_some_and(|helpers| !helpers.is_empty());
        let Some(auths) = document.auths else {
            // A user's config may have only helpers. A Secret without "auths" has the wrong
            // content.
            return if helpers {
                Ok(Self {
                    entries: Vec::new(),
                    helpers,
                })
            } else {
                Err(DockerConfigError::Malformed { line: 1, column: 1 })
            };
        };
        let mut entries = Vec::new();
        for (key, login) in auths {
            if let Some(credential) = credential(&key, login.unwrap_or_default())? {
                let (host, port, path) =
                    split_key(&key).ok_or_else(|| DockerConfigError::Key(cut(&key)))?;
                entries.push(Entry {
                    host,
                    port,
                    path,
                    credential,
                });
            }
        }
        Ok(Self { entries, helpers })
    }

    /// Returns a keychain with one login. `registry` is `host[:port][/path]`.
    ///
    /// # Errors
    /// If `registry` does not have this form.
    pub fn login(
        registry: &str,
        username: &str,
        password: Secret,
    ) -> Result<Self, DockerConfigError> {
        let (host, port, path) =
            split_key(registry).ok_or_else(|| DockerConfigError::Key(cut(registry)))?;
        let credential = Credential::Basic {
            username: username.to_owned(),
            password,
        };
        Ok(Self {
            entries: vec![Entry {
                host,
                port,
                path,
                credential,
            }],
            helpers: false,
        })
    }

    /// Joins keychains in their order, as for a service account's `imagePullSecrets`. The first of
    /// equally good matches wins.
    #[must_use]
    pub fn merge(keychains: impl IntoIterator<Item = Self>) -> Self {
        keychains
            .into_iter()
            .fold(Self::default(), |mut all, next| {
                all.entries.extend(next.entries);
                all.helpers |= next.helpers;
                all
            })
    }

    /// Returns true if there is no login.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns true if a config names credential helpers.
    pub(crate) const fn names_helpers(&self) -> bool {
        self.helpers
    }

    /// Returns the login for a repository.
    pub(crate) fn find(&self, host: &Host, repository: &Repository) -> Credential {
        let best = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.matches(host, repository))
            .max_by_key(|(position, entry)| {
                (
                    entry.path.len(),
                    !entry.host.contains('*'),
                    std::cmp::Reverse(*position),
                )
            });
        best.map_or(Credential::Anonymous, |(_, entry)| entry.credential.clone())
    }
}

impl Entry {
    fn matches(&self, host: &Host, repository: &Repository) -> bool {
        let hub = is_docker_hub(host.as_str()) && self.port.is_none() && is_docker_hub(&self.host);
        let same =
            self.port == host.port() && labels_match(&self.host, &host.name().to_ascii_lowercase());
        let mut parts = repository.as_str().split('/');
        (hub || same) && self.path.iter().all(|part| parts.next() == Some(part))
    }
}

/// Returns true for the names of Docker Hub.
fn is_docker_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io" | "www.docker.io"
    )
}

/// Parses a key by the kubelet's rules: a scheme and a leading `/v1` or `/v2` are dropped.
fn split_key(key: &str) -> Option<(String, Option<u16>, Vec<String>)> {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host: Host = authority
        .to_ascii_lowercase()
        .replace('*', "x")
        .parse()
        .ok()?;
    let name = match host.port() {
        Some(_) => authority.rsplit_once(':')?.0,
        None => authority,
    };
    let mut path: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    if path
        .first()
        .is_some_and(|first| matches!(first.as_str(), "v1" | "v2"))
    {
        path.remove(0);
    }
    Some((
        name.trim_matches(['[', ']']).to_ascii_lowercase(),
        host.port(),
        path,
    ))
}

fn credential(key: &str, login: Login) -> Result<Option<Credential>, DockerConfigError> {
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    if let Some(token) = given(login.registrytoken) {
        return Ok(Some(Credential::Registry(token.into())));
    }
    if let Some(token) = given(login.identitytoken) {
        return Ok(Some(Credential::Identity(token.into())));
    }
    if let Some(auth) = given(login.auth) {
        let malformed = || DockerConfigError::Auth(cut(key));
        let auth = Zeroizing::new(auth);
        let trimmed = auth.trim().trim_end_matches('=');
        let bytes = STANDARD_NO_PAD
            .decode(trimmed)
            .or_else(|_| STANDARD.decode(trimmed))
            .map_err(|_| malformed())?;
        let decoded = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&decoded).map_err(|_| malformed())?;
        let (username, password) = text
            .trim_end_matches(['\0', '\n', '\r'])
            .split_once(':')
            .ok_or_else(malformed)?;
        return Ok(Some(Credential::Basic {
            username: username.to_owned(),
            password: password.into(),
        }));
    }
    let (username, password) = (given(login.username), given(login.password));
    let is_login = username.is_some() || password.is_some();
    Ok(is_login.then(|| Credential::Basic {
        username: username.unwrap_or_default(),
        password: password.unwrap_or_default().into(),
    }))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn user(keychain: &Keychain, name: &str) -> String {
        let (host, repository) = name.split_once('/').unwrap();
        match keychain.find(&host.parse().unwrap(), &repository.parse().unwrap()) {
            Credential::Basic { username, .. } => username,
            other => format!("{other:?}"),
        }
    }

    fn keychain(keys: &[&str]) -> Keychain {
        let auths: serde_json::Map<_, _> = keys
            .iter()
            .map(|key| {
                (
                    (*key).to_owned(),
                    serde_json::json!({"username": key, "password": "p"}),
                )
            })
            .collect();
        Keychain::parse(serde_json::json!({"auths": auths}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_longest_path_wins_and_counts_by_whole_parts() {
        let keys = keychain(&[
            "r.io",
            "r.io/team",
            "r.io/team/app",
            "https://r.io/v2/other/",
        ]);
        for (name, key) in [
            ("r.io/x", "r.io"),
            ("r.io/team/x", "r.io/team"),
            ("r.io/team/app", "r.io/team/app"),
            ("r.io/team/app/y", "r.io/team/app"),
            ("r.io/team-b/app", "r.io"),
            ("r.io/other/z", "https://r.io/v2/other/"),
            ("s.io/team", "Anonymous"),
            ("r.io:5000/team", "Anonymous"),
        ] {
            assert_eq!(user(&keys, name), key, "{name}");
        }
    }

    #[test]
    fn wildcards_stand_for_one_label_and_yield_to_a_host_written_out() {
        let keys = keychain(&[
            "*.example.com",
            "a.example.com",
            "*.*.example.com:5000",
            "*.dkr.ecr.*.amazonaws.com/team",
        ]);
        for (name, key) in [
            ("a.example.com/x", "a.example.com"),
            ("b.example.com/x", "*.example.com"),
            ("example.com/x", "Anonymous"),
            ("a.b.example.com/x", "Anonymous"),
            ("a.b.example.com:5000/x", "*.*.example.com:5000"),
            (
                "1.dkr.ecr.eu-west-1.amazonaws.com/team/x",
                "*.dkr.ecr.*.amazonaws.com/team",
            ),
        ] {
            assert_eq!(user(&keys, name), key, "{name}");
        }
    }

    #[test]
    fn docker_hub_is_one_registry_under_all_its_names() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "registry-1.docker.io",
            "index.docker.io",
        ] {
            for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
                assert_eq!(user(&keychain(&[key]), &format!("{host}/library/x")), key);
            }
        }
        assert_eq!(
            user(&keychain(&["docker.io"]), "docker.io.evil.com/x"),
            "Anonymous"
        );
    }

    #[test]
    fn of_equal_matches_the_first_secret_wins() {
        let first = Keychain::login("r.io", "first", "p".into()).unwrap();
        let second = Keychain::login("r.io", "second", "p".into()).unwrap();
        assert_eq!(user(&Keychain::merge([first, second]), "r.io/x"), "first");
    }

    #[test]
    fn auth_identitytoken_and_registrytoken_are_read() {
        let find = |login: &str| {
            let config = format!(r#"{{"auths":{{"r.io":{login}}},"HttpHeaders":{{}}}}"#);
            Keychain::parse(config.as_bytes())
                .unwrap()
                .find(&"r.io".parse().unwrap(), &"x".parse().unwrap())
        };
        let basic = |password: &str| Credential::Basic {
            username: "user".into(),
            password: password.into(),
        };
        assert_eq!(find(r#"{"auth":"dXNlcjpwYTpzcw=="}"#), basic("pa:ss"));
        assert_eq!(
            find(r#"{"auth":"dXNlcjpwYTpzcw","username":"ignored"}"#),
            basic("pa:ss")
        );
        assert_eq!(
            find(r#"{"username":"user","password":"p","email":"x","auth":null}"#),
            basic("p")
        );
        assert_eq!(
            find(r#"{"auth":"dXNlcjo=","identitytoken":"t"}"#),
            Credential::Identity("t".into())
        );
        assert_eq!(
            find(r#"{"registrytoken":"t"}"#),
            Credential::Registry("t".into())
        );
        assert_eq!(find("{}"), Credential::Anonymous);
        assert_eq!(find("null"), Credential::Anonymous);
    }

    #[test]
    fn helpers_are_noticed_and_never_run() {
        let keys = Keychain::parse(br#"{"credsStore":"desktop","auths":{"r.io":{}}}"#).unwrap();
        assert!(keys.names_helpers() && keys.is_empty());
        assert!(
            Keychain::parse(br#"{"credHelpers":{"r.io":"/bin/sh"}}"#)
                .unwrap()
                .names_helpers()
        );
    }

    #[test]
    fn errors_state_the_position_and_never_the_content() {
        for (config, said) in [
            (
                r#"{"auths":{"r.io":{"password":["hunter2"]}}}"#,
                "malformed at line 1, column",
            ),
            (r#"{"auths":"hunter2"}"#, "malformed at line 1, column"),
            (r#"{"password":"hunter2"}"#, "with an object \"auths\""),
            ("hunter2", "malformed at line 1"),
            (
                r#"{"auths":{"r.io":{"auth":"hunter2!"}}}"#,
                "\"auth\" for \"r.io\" is malformed",
            ),
            (
                r#"{"auths":{"r.io":{"auth":"aHVudGVyMg=="}}}"#,
                "base64 of user:password",
            ),
            (
                r#"{"auths":{"https:///":{"password":"hunter2"}}}"#,
                "names no registry",
            ),
        ] {
            let error = Keychain::parse(config.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(said) && !error.contains("hunter2"),
                "{config}: {error}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_config_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), key in "[a-z*.:/\\[\\]0-9]{0,30}", auth in "[A-Za-z0-9+/=]{0,20}") {
            let _ = Keychain::parse(&bytes);
            if let Ok(keys) = Keychain::parse(serde_json::json!({"auths": {key: {"auth": auth}}}).to_string().as_bytes()) {
                let _ = keys.find(&"a.b:80".parse().unwrap(), &"x/y".parse().unwrap());
            }
        }
    }
}
