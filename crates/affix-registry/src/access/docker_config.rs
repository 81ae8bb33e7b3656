//! `.dockerconfigjson`: logins by registry and repository path.
//!
//! The entry with the longest matching path wins, then an entry without wildcards, then the first
//! entry. Credential helpers are never run, because a Secret must not select a program to execute.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::access::host_pattern::labels_match;
use crate::access::login_source::{Issuer, LoginSource};
use crate::access::secret::Secret;
use crate::oci::{Host, Repository, cut, without_bom};

/// Logins by registry and repository path, in their original order.
#[derive(Debug, Clone, Default)]
pub struct Keychain {
    entries: Vec<Entry>,
    warnings: Vec<String>,
    helpers: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Host in lower case. May contain `*`.
    host: String,
    port: Option<u16>,
    /// Leading parts of the repository name. Empty for all repositories.
    path: Vec<String>,
    /// The login, or the cause for which it cannot be used.
    credential: Result<Credential, String>,
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
    /// A login that a service issues.
    Issued(Issuer),
}

/// The reason for which a docker config cannot be used. Messages state the position, never the
/// content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// The bytes are not a docker config.
    #[error(
        "the docker config is malformed at line {line}, column {column}: it must be a JSON object, with the logins in an object \"auths\""
    )]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The key of an entry does not name a registry.
    #[error(
        "the docker config's key {0:?} names no registry: write host[:port][/path], such as registry.example.com/team"
    )]
    Key(String),
}

impl DockerConfigError {
    fn at(error: &serde_json::Error) -> Self {
        Self::Malformed {
            line: error.line(),
            column: error.column(),
        }
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    auths: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(default, rename = "credsStore")]
    creds_store: serde_json::Value,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: serde_json::Value,
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
    /// Entries that name no registry are skipped with a [warning](Self::warnings). An entry with a
    /// malformed login is an error only for the registry that it names, when a session is opened.
    ///
    /// # Errors
    /// If the bytes are not a JSON object, or "auths" is not an object.
    pub fn parse(json: &[u8]) -> Result<Self, DockerConfigError> {
        let Some(json) = object(json)? else {
            return Ok(Self::default());
        };
        let document: Document<'_> =
            serde_json::from_slice(json).map_err(|error| DockerConfigError::at(&error))?;
        let store = document.creds_store.as_str();
        let helpers = document.cred_helpers.as_object();
        Ok(Self {
            helpers: store.is_some_and(|store| !store.is_empty())
                || helpers.is_some_and(|helpers| !helpers.is_empty()),
            ..Self::from_auths(document.auths.unwrap_or_default())
        })
    }

    /// Parses the content of a `kubernetes.io/dockercfg` Secret: the object that
    /// [`parse`](Self::parse) expects under "auths". OpenShift adds such a Secret to every
    /// ServiceAccount.
    ///
    /// # Errors
    /// If the bytes are not a JSON object.
    pub fn parse_dockercfg(json: &[u8]) -> Result<Self, DockerConfigError> {
        let Some(json) = object(json)? else {
            return Ok(Self::default());
        };
        serde_json::from_slice(json)
            .map(Self::from_auths)
            .map_err(|error| DockerConfigError::at(&error))
    }

    fn from_auths(auths: BTreeMap<String, &RawValue>) -> Self {
        let mut keychain = Self::default();
        for (key, login) in auths {
            let credential = match credential(login.get()) {
                Ok(None) => continue,
                Ok(Some(credential)) => Ok(credential),
                Err(why) => Err(format!("the login of {} {why}", quoted(&key))),
            };
            let place = split_key(&key);
            match (&credential, &place) {
                (_, None) => keychain.warnings.push(format!(
                    "the docker config's entry {} is skipped: it names no registry",
                    quoted(&key)
                )),
                (Err(why), _) => keychain
                    .warnings
                    .push(format!("an entry of the docker config is skipped: {why}")),
                (Ok(_), Some(_)) => {}
            }
            keychain
                .entries
                .extend(place.map(|(host, port, path)| Entry {
                    host,
                    port,
                    path,
                    credential,
                }));
        }
        keychain
    }

    /// Returns the warnings on skipped entries. They name the entry and never its login.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Adds a warning, for example on a pull secret that cannot be read.
    #[must_use]
    pub fn with_warning(mut self, warning: String) -> Self {
        self.warnings.push(warning);
        self
    }

    /// Puts the name of the source in front of each warning.
    #[must_use]
    pub fn from_source(mut self, source: &str) -> Self {
        for warning in &mut self.warnings {
            *warning = format!("{source}: {warning}");
        }
        self
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
        let credential = Ok(Credential::Basic {
            username: username.to_owned(),
            password,
        });
        Ok(Self {
            entries: vec![Entry {
                host,
                port,
                path,
                credential,
            }],
            ..Self::default()
        })
    }

    /// Returns a keychain with the login that `source` issues for a registry.
    #[must_use]
    pub fn issued(registry: &Host, source: Arc<dyn LoginSource>) -> Self {
        Self {
            entries: vec![Entry {
                host: registry
                    .name()
                    .trim_matches(['[', ']'])
                    .to_ascii_lowercase(),
                port: registry.port(),
                path: Vec::new(),
                credential: Ok(Credential::Issued(Issuer(source))),
            }],
            ..Self::default()
        }
    }

    /// Joins keychains in their order, as for a service account's `imagePullSecrets`. The first of
    /// equally good matches wins.
    #[must_use]
    pub fn merge(keychains: impl IntoIterator<Item = Self>) -> Self {
        keychains
            .into_iter()
            .fold(Self::default(), |mut all, next| {
                all.entries.extend(next.entries);
                all.warnings.extend(next.warnings);
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

    /// Returns a keychain for each login that matches a repository, the best match first. The kubelet tries them in this
    /// order. Malformed logins come last, and opening a session with one fails.
    #[must_use]
    pub fn candidates(&self, host: &Host, repository: &Repository) -> Vec<Self> {
        let mut entries: Vec<&Entry> = Vec::new();
        for entry in &self.entries {
            let is_new = !entries
                .iter()
                .any(|other| other.credential == entry.credential);
            if entry.matches(host, repository) && is_new {
                entries.push(entry);
            }
        }
        // Equal matches keep their order.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.precision()));
        let only = |entry: &Entry| Self {
            entries: vec![entry.clone()],
            ..Self::default()
        };
        entries.into_iter().map(only).collect()
    }

    /// Returns the login for a repository.
    ///
    /// # Errors
    /// The cause if only malformed logins match.
    pub(crate) fn find(&self, host: &Host, repository: &Repository) -> Result<Credential, String> {
        let best = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.matches(host, repository))
            .max_by_key(|(position, entry)| (entry.precision(), std::cmp::Reverse(*position)));
        best.map_or(Ok(Credential::Anonymous), |(_, entry)| {
            entry.credential.clone()
        })
    }
}

/// Returns the JSON object in `json` without a byte order mark, or `None` if the document is empty
/// or `null`.
fn object(json: &[u8]) -> Result<Option<&[u8]>, DockerConfigError> {
    let json = without_bom(json);
    match json.trim_ascii() {
        b"" | b"null" => Ok(None),
        // serde would read a list as the fields in their order.
        text if text.first() == Some(&b'{') => Ok(Some(json)),
        _ => Err(DockerConfigError::Malformed { line: 1, column: 1 }),
    }
}

/// Returns a key for messages, without a login in front of the host.
fn quoted(key: &str) -> String {
    let shown = key.rsplit_once('@').map_or(key, |(_, host)| host);
    format!("{:?}", cut(shown))
}

impl Entry {
    /// Returns the rank among the entries that match. The greatest is the best.
    fn precision(&self) -> (bool, usize, bool) {
        (
            self.credential.is_ok(),
            self.path.len(),
            !self.host.contains('*'),
        )
    }

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

fn credential(json: &str) -> Result<Option<Credential>, &'static str> {
    let login: Option<Login> = serde_json::from_str(json)
        .map_err(|_| "is malformed: it must be a JSON object of texts")?;
    let login = login.unwrap_or_default();
    let given = |value: Option<String>| value.filter(|value| !value.is_empty());
    if let Some(token) = given(login.registrytoken) {
        return Ok(Some(Credential::Registry(token.into())));
    }
    if let Some(token) = given(login.identitytoken) {
        return Ok(Some(Credential::Identity(token.into())));
    }
    if let Some(auth) = given(login.auth) {
        const MALFORMED: &str = "has a malformed \"auth\": it must be the base64 of user:password";
        let auth = Zeroizing::new(auth);
        let trimmed = auth.trim().trim_end_matches('=');
        let bytes = STANDARD_NO_PAD
            .decode(trimmed)
            .or_else(|_| STANDARD.decode(trimmed))
            .map_err(|_| MALFORMED)?;
        let decoded = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&decoded).map_err(|_| MALFORMED)?;
        let (username, password) = text
            .trim_end_matches(['\0', '\n', '\r'])
            .split_once(':')
            .ok_or(MALFORMED)?;
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
            Ok(Credential::Basic { username, .. }) => username,
            Ok(other) => format!("{other:?}"),
            Err(why) => why,
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
    fn candidates_are_all_matching_logins_with_the_best_match_first() {
        let keys = [
            "r.io",
            "other.io/team",
            "*.io/team",
            "r.io/team",
            "r.io/teams",
        ];
        let first = keychain(&keys);
        let second = Keychain::login("r.io", "second", "p".into()).unwrap();
        let malformed = Keychain::parse(br#"{"auths": {"r.io/team": {"auth": "?"}}}"#).unwrap();
        let all = Keychain::merge([malformed, first.clone(), second, first]);
        let users: Vec<_> = all
            .candidates(&"r.io".parse().unwrap(), &"team/app".parse().unwrap())
            .iter()
            .map(|only| user(only, "r.io/team/app"))
            .collect();
        assert_eq!(users.len(), 5, "{users:?}");
        let (last, logins) = users.split_last().unwrap();
        assert_eq!(logins, ["r.io/team", "*.io/team", "r.io", "second"]);
        assert!(last.contains("malformed"), "{last}");
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
                .unwrap()
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
        for config in [
            r#"{"auths":"hunter2"}"#,
            r#"{"auths":{"r.io":{"password":"hunter2"}}"#,
            r#"["hunter2"]"#,
            "hunter2",
        ] {
            let error = Keychain::parse(config.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains("malformed at line 1, column") && !error.contains("hunter2"),
                "{config}: {error}"
            );
        }
    }

    #[test]
    fn a_malformed_login_is_an_error_for_its_registry_only() {
        for (login, said) in [
            (
                r#"{"password":["hunter2"]}"#,
                "the login of \"r.io\" is malformed",
            ),
            (r#""hunter2""#, "the login of \"r.io\" is malformed"),
            (
                r#"{"auth":"hunter2!"}"#,
                "must be the base64 of user:password",
            ),
            (
                r#"{"auth":"aHVudGVyMg=="}"#,
                "must be the base64 of user:password",
            ),
        ] {
            let config = format!(
                r#"{{"auths":{{"r.io":{login},"s.io":{{"username":"good","password":"p"}}}}}}"#
            );
            let keys = Keychain::parse(config.as_bytes()).unwrap();
            assert_eq!(user(&keys, "s.io/x"), "good");
            let (error, warning) = (user(&keys, "r.io/x"), keys.warnings().concat());
            for text in [&error, &warning] {
                assert!(text.contains(said) && !text.contains("hunter2"), "{text}");
            }
            let other = Keychain::login("r.io", "other", "p".into()).unwrap();
            assert_eq!(user(&Keychain::merge([keys, other]), "r.io/x"), "other");
        }
    }

    #[test]
    fn an_entry_that_names_no_registry_is_skipped_with_a_warning() {
        for key in [
            "my_host:8082",
            "https://",
            "https:///",
            "a b",
            "",
            "user:hunter2@my_host",
        ] {
            let keys = keychain(&[key, "r.io"]);
            assert_eq!(user(&keys, "r.io/x"), "r.io", "{key}");
            let shown = key.rsplit('@').next().unwrap();
            assert_eq!(
                keys.warnings(),
                [format!(
                    "the docker config's entry {shown:?} is skipped: it names no registry"
                )]
            );
        }
        for config in [
            "{}",
            "null",
            "",
            r#"{"currentContext":"default"}"#,
            r#"{"auths":null}"#,
            r#"{"auths":{"my_host":{}},"credsStore":null,"credHelpers":[]}"#,
            "\u{feff}{\"auths\":{}}",
        ] {
            let keys = Keychain::parse(config.as_bytes()).unwrap();
            assert!(keys.is_empty() && keys.warnings().is_empty(), "{config}");
        }
    }

    #[test]
    fn a_dockercfg_is_the_object_of_logins_itself() {
        let config = br#"{"172.30.0.1:5000":{"username":"serviceaccount","password":"t","email":"x","auth":"c2E6dA=="},"my_host":{"auth":"c2E6dA=="}}"#;
        let keys = Keychain::parse_dockercfg(config).unwrap();
        assert_eq!(user(&keys, "172.30.0.1:5000/ns/app"), "sa");
        assert_eq!(keys.warnings().len(), 1);
        assert!(Keychain::parse_dockercfg(b"[]").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_config_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), key in "[a-z*.:/\\[\\]0-9]{0,30}", auth in "[A-Za-z0-9+/=]{0,20}") {
            let _ = Keychain::parse(&bytes);
            let _ = Keychain::parse_dockercfg(&bytes);
            let keys = Keychain::parse(serde_json::json!({"auths": {key: {"auth": auth}}}).to_string().as_bytes()).unwrap();
            let _ = keys.find(&"a.b:80".parse().unwrap(), &"x/y".parse().unwrap());
        }

        #[test]
        fn an_odd_key_or_login_never_hides_another_login(key in "\\PC{0,30}", login in "\\PC{0,30}") {
            proptest::prop_assume!(!key.contains("good.io"));
            let auths = serde_json::json!({key: {"auth": login}, "good.io": {"username": "good", "password": "p"}});
            let wrapped = serde_json::json!({"auths": auths}).to_string();
            for keys in [Keychain::parse(wrapped.as_bytes()), Keychain::parse_dockercfg(auths.to_string().as_bytes())] {
                proptest::prop_assert_eq!(user(&keys.unwrap(), "good.io/x"), "good");
            }
        }
    }
}
