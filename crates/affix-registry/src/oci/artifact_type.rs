//! Artifact types: media types by RFC 6838, section 4.2.

use std::fmt;
use std::str::FromStr;

use super::digest::cut;

/// A well-formed artifact type, `type/subtype`, without parameters (image-spec, manifest.md,
/// `artifactType`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactType(Box<str>);

impl ArtifactType {
    /// Returns the text of the type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for text that is not a media type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an artifact type: write it as type/subtype, each of 1 to 127 letters, digits and !#$&^_.+-, such as application/vnd.example.thing"
)]
pub struct ArtifactTypeError(String);

impl FromStr for ArtifactType {
    type Err = ArtifactTypeError;

    fn from_str(text: &str) -> Result<Self, ArtifactTypeError> {
        match text.split_once('/') {
            Some((kind, subtype)) if restricted_name(kind) && restricted_name(subtype) => {
                Ok(Self(text.into()))
            }
            _ => Err(ArtifactTypeError(cut(text))),
        }
    }
}

/// `restricted-name` of RFC 6838, section 4.2.
fn restricted_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 127
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_needs_two_restricted_names() {
        for good in [
            "application/vnd.demo.artifact.lifecycle",
            "a/b",
            "application/vnd.x+json",
        ] {
            assert!(good.parse::<ArtifactType>().is_ok(), "{good}");
        }
        let long = format!("a/{}", "b".repeat(128));
        for bad in [
            "",
            "application",
            "a/",
            "/b",
            "a/b/c",
            "a/b c",
            "a/b;q=1",
            "-a/b",
            long.as_str(),
        ] {
            assert!(bad.parse::<ArtifactType>().is_err(), "{bad}");
        }
    }
}
