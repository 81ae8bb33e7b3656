//! Image references: `host[:port]/repository[:tag][@digest]` (distribution-spec, "Pulling
//! manifests").
//!
//! There is no default registry. A reference without a host is rejected, because a guessed registry
//! can be controlled by an attacker.

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, DigestError, cut};

/// A registry's DNS name or IP address, with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Box<str>);

impl Host {
    /// Returns the host as it was written, with its port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name or address without the port. An IPv6 address has no brackets here.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some(rest) = self.0.strip_prefix('[') {
            return rest.split(']').next().unwrap_or(rest);
        }
        self.0.split(':').next().unwrap_or(&self.0)
    }

    /// Returns the port, if there is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let after = self.0.rsplit_once(']').map_or(&*self.0, |(_, rest)| rest);
        after
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
    }

    /// Returns the host that serves the API. It differs from the written host for `docker.io` and
    /// `index.docker.io`.
    #[must_use]
    pub fn api_host(&self) -> &str {
        match &*self.0 {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if is_host(text) {
            Ok(Self(text.into()))
        } else {
            Err(ReferenceError::Host(cut(text)))
        }
    }
}

/// A repository name within its registry (distribution-spec, "Pulling manifests", `<name>`). At
/// most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Box<str>);

impl Repository {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for a repository name outside the grammar of the distribution specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "repository {0:?} is malformed: parts of lower-case letters and digits, separated inside by '.', '_', '__' or '-', joined by '/'"
)]
pub struct RepositoryError(String);

impl FromStr for Repository {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        if text.len() <= 255 && text.split('/').all(is_path_component) {
            Ok(Self(text.into()))
        } else {
            Err(RepositoryError(cut(text)))
        }
    }
}

/// A tag (distribution-spec, "Pulling manifests", `<reference>`). At most 128 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// Returns the tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true for tags that hold referrers (`sha256-<hex>`) or cosign's signatures,
    /// attestations and SBOMs (`sha256-<hex>.sig`, `.att`, `.sbom`). Such a tag does not name an
    /// image.
    #[must_use]
    pub fn is_referrers_tag(&self) -> bool {
        let Some((algorithm, rest)) = self.0.split_once('-') else {
            return false;
        };
        let encoded = [".sig", ".att", ".sbom"]
            .iter()
            .find_map(|end| rest.strip_suffix(end))
            .unwrap_or(rest);
        matches!(algorithm, "sha256" | "sha512")
            && encoded.len() == 64
            && encoded.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for a tag outside the grammar of the distribution specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tag {0:?} is malformed: 1 to 128 letters, digits, '_', '.' and '-', the first a letter, a digit or '_'"
)]
pub struct TagError(String);

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let mut bytes = text.bytes();
        let first = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if first
            && text.len() <= 128
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        {
            Ok(Self(text.into()))
        } else {
            Err(TagError(cut(text)))
        }
    }
}

/// An image reference with an explicit registry and a tag, a digest, or both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The registry.
    pub host: Host,
    /// The repository.
    pub repository: Repository,
    /// The tag, if there is one.
    pub tag: Option<Tag>,
    /// The digest, if there is one. It takes precedence over the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Returns a reference to `digest` in the same repository, without a tag.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// Returns the tag if it decides the image. It does not if there is a digest.
    #[must_use]
    pub const fn followed(&self) -> Option<&Tag> {
        if self.digest.is_none() {
            self.tag.as_ref()
        } else {
            None
        }
    }

    /// Returns `host/repository`, the form that patterns of repositories match.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The reason for which text is not a valid reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text starts with a scheme.
    #[error(
        "image {0:?} starts with a scheme: remove it{plain_http}",
        plain_http = if .0.starts_with("http://") {
            ", and set insecure: true if the registry uses plain HTTP"
        } else {
            ""
        }
    )]
    Scheme(String),
    /// The text does not name a registry.
    #[error(
        "image {0:?} names no registry: write host/repository, such as {hint}",
        hint = with_registry(.0)
    )]
    NoHost(String),
    /// The first part is not a valid host.
    #[error(
        "registry {0:?} is malformed: a DNS name or an IP address, then optionally :port from 1 to 65535"
    )]
    Host(String),
    /// The text has neither a tag nor a digest.
    #[error("image {0:?} names neither a tag nor a digest: add :tag or @sha256:…")]
    NoTagOrDigest(String),
    /// The repository is malformed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The tag is malformed.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// Returns a reference with a registry that resembles `image`. Container engines pull an image without
/// a registry from Docker Hub, where an image without a namespace is under `library/`.
fn with_registry(image: &str) -> String {
    let image = image.trim_start_matches('/');
    let repository = image.split('@').next().unwrap_or(image);
    let (name, tag) = match repository.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (repository, ""),
    };
    // A host without a repository, such as registry.example.com:5000.
    let is_host = !name.contains('/') && (name.contains('.') || name == "localhost");
    if name.is_empty() || is_host {
        let port = Some(tag).filter(|port| is_host && port.parse::<u16>().is_ok());
        return match (is_host, port) {
            (true, Some(port)) => format!("{name}:{port}/app:v1"),
            (true, None) => format!("{name}/app:v1"),
            _ => "docker.io/library/nginx:1".to_owned(),
        };
    }
    let namespace = if name.contains('/') { "" } else { "library/" };
    let name = name.to_ascii_lowercase();
    let rest = image.get(name.len()..).unwrap_or_default();
    let missing = if rest.is_empty() { ":latest" } else { "" };
    format!("docker.io/{namespace}{name}{rest}{missing}")
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains("://") {
            return Err(ReferenceError::Scheme(cut(text)));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, path) = rest
            .split_once('/')
            .ok_or_else(|| ReferenceError::NoHost(cut(text)))?;
        // Container engines use the same rule: a first part without a dot, a colon or "localhost"
        // is a path.
        if !host.contains(['.', ':', '[']) && host != "localhost" {
            return Err(ReferenceError::NoHost(cut(text)));
        }
        let host = host.parse()?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (path, None),
        };
        let repository = repository.parse()?;
        if tag.is_none() && digest.is_none() {
            return Err(ReferenceError::NoTagOrDigest(cut(text)));
        }
        Ok(Self {
            host,
            repository,
            tag,
            digest,
        })
    }
}

fn is_host(text: &str) -> bool {
    if text.len() > 255 {
        return false;
    }
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match after {
            "" => return true,
            _ => ("localhost", after.strip_prefix(':').or(Some(""))),
        }
    } else {
        match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        }
    };
    let label = |label: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        label.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let port_ok = port.is_none_or(|port| {
        port.len() <= 5
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    port_ok && name.split('.').all(label)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let edges = bytes.first().is_some_and(|b| alphanumeric(*b))
        && bytes.last().is_some_and(|b| alphanumeric(*b));
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    edges
        && separators
            .into_iter()
            .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn a_reference_prints_as_it_was_written() {
        for text in [
            "registry.example.com/team/app:v1".to_owned(),
            format!("registry.example.com/team/app@sha256:{HEX}"),
            format!("registry.example.com:5000/a/b__c/d---e:V_1.x@sha256:{HEX}"),
            "localhost/app:v1".to_owned(),
            "localhost:5000/app:v1".to_owned(),
            "[::1]:5000/app:v1".to_owned(),
            "127.0.0.1:80/app:v1".to_owned(),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_reference_is_refused_with_the_valid_form() {
        for (text, said) in [
            (
                "app:v1",
                "names no registry: write host/repository, such as docker.io/library/app:v1",
            ),
            (
                "grafana/grafana:11",
                "host/repository, such as docker.io/grafana/grafana:11",
            ),
            ("nginx:1", "such as docker.io/library/nginx:1"),
            ("nginx", "such as docker.io/library/nginx:latest"),
            ("Grafana/Grafana:11", "such as docker.io/grafana/grafana:11"),
            (
                "team/app@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                "such as docker.io/team/app@sha256:44136fa3",
            ),
            ("localhost:5000", "such as localhost:5000/app:v1"),
            ("r.example.com", "such as r.example.com/app:v1"),
            ("r.example.com:v1", "such as r.example.com/app:v1"),
            ("library/nginx:1", "such as docker.io/library/nginx:1"),
            ("https://r.example.com/app:v1", "with a scheme: remove it"),
            ("http://r.example.com/app:v1", "set insecure: true"),
            ("r.example.com/app", "add :tag or @sha256:…"),
            ("r.example.com/App:v1", "repository \"App\" is malformed"),
            ("r.example.com/a..b:v1", "repository \"a..b\" is malformed"),
            (
                "r.example.com/a___b:v1",
                "repository \"a___b\" is malformed",
            ),
            ("r.example.com//a:v1", "is malformed"),
            ("r.example.com/a:-v1", "tag \"-v1\" is malformed"),
            ("r.example.com/a:", "tag \"\" is malformed"),
            ("r.example.com/a@sha256:12", "takes 64"),
            ("r.example.com/a@md5:12", "use sha256 or sha512"),
            (
                "r.example.com:0/a:v1",
                "registry \"r.example.com:0\" is malformed",
            ),
            ("r.example.com:99999/a:v1", "is malformed"),
            ("r_x.example.com/a:v1", "is malformed"),
            ("user@r.example.com/a:v1", "use sha256 or sha512"),
            ("[::1/a:v1", "is malformed"),
            ("[::1]x/a:v1", "is malformed"),
            ("", "such as docker.io/library/nginx:1"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            let only_http = text.starts_with("http:") == error.contains("insecure");
            assert!(only_http, "{text}: {error}");
        }
    }

    #[test]
    fn a_host_has_a_name_and_an_optional_port() {
        for (text, name, port) in [
            ("r.io", "r.io", None),
            ("r.io:5", "r.io", Some(5)),
            ("[::1]:5", "::1", Some(5)),
            ("[::1]", "::1", None),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!((host.name(), host.port()), (name, port), "{text}");
        }
    }

    #[test]
    fn tags_of_referrers_and_signatures_are_told_from_those_of_images() {
        for (tag, held) in [
            (format!("sha256-{HEX}"), true),
            (format!("sha256-{HEX}.sig"), true),
            (format!("sha256-{HEX}.att"), true),
            (format!("sha256-{HEX}.sbom"), true),
            (format!("sha256-{HEX}.txt"), false),
            ("sha256-abc".to_owned(), false),
            ("v1".to_owned(), false),
        ] {
            assert_eq!(
                tag.parse::<Tag>().unwrap().is_referrers_tag(),
                held,
                "{tag}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_to_itself_or_is_refused(text in "[a-zA-Z0-9.:/@_\\[\\]-]{0,80}|\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                assert_eq!(reference.to_string(), text);
            }
        }
    }
}
