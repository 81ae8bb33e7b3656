//! The artifact types of end-of-life marks.

use std::str::FromStr;

use affix_registry::oci::ArtifactType;

/// A lifecycle artifact type and the annotation with its date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleType {
    /// The artifact type.
    pub artifact_type: ArtifactType,
    /// The key of the annotation.
    pub annotation: Box<str>,
}

impl FromStr for LifecycleType {
    type Err = String;

    /// Parses `TYPE=ANNOTATION`, or `application/NAME` with the default annotation
    /// `NAME.end-of-life.date`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, annotation) = text
            .split_once('=')
            .map_or((text, None), |(kind, annotation)| (kind, Some(annotation)));
        let artifact_type: ArtifactType = kind
            .parse()
            .map_err(|error: affix_registry::oci::ArtifactTypeError| error.to_string())?;
        let (_, name) = kind.split_once('/').unwrap_or(("", kind));
        let annotation = match annotation {
            Some("") => {
                return Err(format!(
                    "no annotation after '=' in {text:?}: write TYPE=ANNOTATION"
                ));
            }
            Some(annotation) => annotation.into(),
            None => format!("{name}.end-of-life.date").into(),
        };
        Ok(Self {
            artifact_type,
            annotation,
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

    #[test]
    fn a_type_without_annotation_gets_the_default_annotation() {
        let microsoft: LifecycleType = "application/vnd.microsoft.artifact.lifecycle"
            .parse()
            .unwrap();
        assert_eq!(
            &*microsoft.annotation,
            crate::api::EndOfLife::DEFAULT_ANNOTATION
        );
        let own: LifecycleType = "application/vnd.demo.eol=eol".parse().unwrap();
        assert_eq!(
            (own.artifact_type.as_str(), &*own.annotation),
            ("application/vnd.demo.eol", "eol")
        );
        assert!(
            "lifecycle"
                .parse::<LifecycleType>()
                .unwrap_err()
                .contains("type/subtype")
        );
        assert!(
            "a/b="
                .parse::<LifecycleType>()
                .unwrap_err()
                .contains("no annotation after")
        );
    }
}
