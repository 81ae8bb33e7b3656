//! Patterns of registries for [`Options::allowed_registries`](crate::Options::allowed_registries).

use std::fmt;
use std::str::FromStr;

use crate::access::glob::glob;
use crate::oci::{Host, cut};

/// A pattern of registries, for example `ghcr.io`, `*.example.com` or `registry.example.com:*`.
///
/// `*` matches any characters within one label, as in a Secret's wildcards. A pattern without a
/// port matches only registries without a port. `:*` matches any port and none. The pattern `*`
/// matches every registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    text: Box<str>,
    name: Box<str>,
    port: Port,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    Any,
    Is(Option<u16>),
}

impl HostPattern {
    /// Returns true if `host` matches. Case is ignored.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        if &*self.text == "*" {
            return true;
        }
        let port = match self.port {
            Port::Any => true,
            Port::Is(port) => port == host.port(),
        };
        port && labels_match(&self.name, &host.name().to_ascii_lowercase())
    }
}

/// Compares names label by label. `*` in a label of the pattern matches any characters.
pub(crate) fn labels_match(pattern: &str, name: &str) -> bool {
    if pattern.contains(':') || name.contains(':') {
        return pattern == name; // IPv6 addresses have no labels
    }
    pattern.split('.').count() == name.split('.').count()
        && pattern
            .split('.')
            .zip(name.split('.'))
            .all(|(p, n)| glob(p, n))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The error for text that is not a pattern of registries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pattern of registries: write a host, such as ghcr.io, *.example.com or registry.example.com:5000"
)]
pub struct HostPatternError(String);

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let refused = || HostPatternError(cut(text));
        let (bare, any_port) = text
            .strip_suffix(":*")
            .map_or((text, false), |bare| (bare, true));
        // With letters in place of the stars, the rest must be a valid host.
        let host: Host = bare.replace('*', "x").parse().map_err(|_| refused())?;
        let name = match bare.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => bare.split(':').next().unwrap_or(bare),
        };
        let port = if any_port {
            Port::Any
        } else {
            Port::Is(host.port())
        };
        Ok(Self {
            text: text.into(),
            name: name.to_ascii_lowercase().into(),
            port,
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str) -> bool {
        pattern
            .parse::<HostPattern>()
            .unwrap()
            .matches(&host.parse().unwrap())
    }

    #[test]
    fn a_star_stands_for_one_label_or_a_part_of_it() {
        assert!(
            matches("*.example.com", "a.example.com") && !matches("*.example.com", "example.com")
        );
        assert!(
            !matches("*.example.com", "a.b.example.com")
                && !matches("*.example.com", "a.example.com.evil.io")
        );
        assert!(
            matches("re*-*.io", "reg-1.io")
                && !matches("re*-*.io", "reg1.io")
                && matches("GHCR.io", "ghcr.IO")
        );
        assert!(matches("*", "a.b.c:5000") && !matches("example.com", "notexample.com"));
    }

    #[test]
    fn ports_must_agree_unless_any_is_allowed() {
        assert!(
            !matches("r.io", "r.io:5000")
                && matches("r.io:5000", "r.io:5000")
                && !matches("r.io:5000", "r.io:5001")
        );
        assert!(
            matches("r.io:*", "r.io:5000")
                && matches("r.io:*", "r.io")
                && matches("[::1]:*", "[::1]:5000")
        );
    }

    #[test]
    fn an_invalid_host_pattern_is_refused_with_an_example() {
        for text in ["", "https://r.io", "r.io/team", "r..io", "r.io:x", "-.io"] {
            let error = text.parse::<HostPattern>().unwrap_err().to_string();
            assert!(error.contains("such as ghcr.io"), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused_and_never_panics(text in "[a-z*.:\\[\\]0-9-]{0,30}|\\PC{0,20}") {
            if let Ok(pattern) = text.parse::<HostPattern>() {
                let _ = pattern.matches(&"a.b.c:5000".parse().unwrap());
                assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
