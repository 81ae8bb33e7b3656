//! The policy of a signing key: the annotation `affix.dev/repositories` of its Secret limits the repositories that it signs in.
//!
//! The policy fails closed: a malformed pattern allows nothing and is reported. Host and repository are compared separately, so a
//! repository on a foreign host cannot contain an allowed host.

use crate::api::Reason;
use crate::attachment::Problem;
use affix_registry::HostPattern;
use affix_registry::glob;
use affix_registry::oci::{Reference, cut};

/// The annotation that lists the allowed repositories.
pub(in crate::engine) const ANNOTATION: &str = "affix.dev/repositories";

/// The key may not sign in the repository of the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum NotAllowed {
    /// A pattern is malformed.
    #[error(
        "its pattern {0:?} cannot be read: write HOST/REPOSITORY with * for any characters, such as registry.example.com/team/*"
    )]
    Malformed(String),
    /// The host of a pattern names no label, so it would match every host.
    #[error(
        "its pattern {0:?} allows every host: name at least one label of the host, such as registry.example.com/team/* or *.example.com/team/*"
    )]
    AnyHost(String),
    /// No pattern matches.
    #[error("it allows {allowed} and not {repository}: add a pattern to it, or use another key")]
    NoMatch {
        /// The value of the annotation.
        allowed: String,
        /// Host and repository.
        repository: String,
    },
}

/// Checks that the annotation of the object at `location`, a Secret or a ServiceAccount, allows the repository of `reference`.
///
/// # Errors
/// `RepositoryNotAllowed`, or `KeyInvalid` if the annotation allows every host.
pub(super) fn allow(
    location: &str,
    annotation: &str,
    reference: &Reference,
) -> Result<(), Problem> {
    check(annotation, reference).map_err(|error| {
        let reason = match error {
            NotAllowed::AnyHost(_) => Reason::KeyInvalid,
            NotAllowed::Malformed(_) | NotAllowed::NoMatch { .. } => Reason::RepositoryNotAllowed,
        };
        Problem::new(
            reason,
            format_args!("{location}, annotation {ANNOTATION}: {error}"),
        )
    })
}

/// Checks that `annotation` (patterns separated by commas or white space) allows the repository of `reference`.
///
/// `*` in the host matches any characters of one label, and at least one label has no `*`. In the repository it matches any characters.
pub(in crate::engine) fn check(annotation: &str, reference: &Reference) -> Result<(), NotAllowed> {
    let mut matched = false;
    for text in annotation
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|text| !text.is_empty())
    {
        let malformed = || NotAllowed::Malformed(cut(text));
        let (host, repository) = text.split_once('/').ok_or_else(malformed)?;
        let name = host.split(':').next().unwrap_or(host);
        let names_a_label = name
            .split('.')
            .any(|label| !label.is_empty() && !label.contains('*'));
        let host: HostPattern = host.parse().map_err(|_| malformed())?;
        if !host.to_string().starts_with('[') && !names_a_label {
            return Err(NotAllowed::AnyHost(cut(text)));
        }
        let readable =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/*".contains(c);
        if repository.is_empty() || !repository.chars().all(readable) {
            return Err(malformed());
        }
        matched |= host.matches(&reference.host) && glob(repository, reference.repository.as_str());
    }
    if matched {
        return Ok(());
    }
    let allowed = if annotation.trim().is_empty() {
        "nothing".to_owned()
    } else {
        cut(annotation.trim())
    };
    Err(NotAllowed::NoMatch {
        allowed,
        repository: format!(
            "{}/{}",
            reference.host.as_str(),
            reference.repository.as_str()
        ),
    })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails, as it should"
)]
mod tests {
    use super::*;

    fn allows(annotation: &str, image: &str) -> bool {
        check(annotation, &format!("{image}:v1").parse().unwrap()).is_ok()
    }

    #[test]
    fn a_star_matches_any_depth_of_a_repository_and_one_label_of_a_host() {
        assert!(allows(
            "registry.example.com/team/*",
            "registry.example.com/team/app"
        ));
        assert!(allows(
            "registry.example.com/team/*",
            "registry.example.com/team/a/b"
        ));
        assert!(allows(
            "*.example.com:5000/team/app",
            "r1.example.com:5000/team/app"
        ));
        assert!(!allows(
            "registry.example.com/team/*",
            "registry.example.com/teams/app"
        ));
        assert!(!allows(
            "registry.example.com/team/*",
            "registry.example.com:5000/team/app"
        ));
        assert!(!allows(
            "registry.example.com/team",
            "registry.example.com/team/app"
        ));
    }

    #[test]
    fn a_repository_on_a_foreign_host_cannot_contain_an_allowed_host() {
        assert!(!allows(
            "*.example.com/team/*",
            "evil.io/r.example.com/team/app"
        ));
    }

    #[test]
    fn a_host_pattern_without_a_named_label_is_refused() {
        let image = "evil.io:5000/team/app:v1".parse().unwrap();
        for pattern in [
            "*/team/*",
            "*:*/team/*",
            "*:5000/team/*",
            "*.*/team/*",
            "e*.i*:*/team/*",
        ] {
            for annotation in [
                pattern.to_owned(),
                format!("evil.io:5000/team/*, {pattern}"),
            ] {
                let error = check(&annotation, &image).unwrap_err();
                assert!(
                    matches!(error, NotAllowed::AnyHost(_)) && error.to_string().contains(pattern),
                    "{annotation}: {error}"
                );
            }
        }
        for pattern in ["*.io:*/team/*", "evil.*:5000/*", "e*.io:5000/team/*"] {
            assert!(check(pattern, &image).is_ok(), "{pattern}");
        }
        let image = "[::1]:5000/team/app:v1".parse().unwrap();
        assert!(check("[::1]:*/team/*", &image).is_ok());
    }

    #[test]
    fn one_matching_pattern_is_enough_with_any_separator() {
        for annotation in ["a.io/x,b.io/y", "a.io/x, b.io/y", " a.io/x\n b.io/y\n"] {
            assert!(
                allows(annotation, "b.io/y") && !allows(annotation, "b.io/x"),
                "{annotation:?}"
            );
        }
    }

    #[test]
    fn a_malformed_pattern_allows_nothing_and_is_named() {
        let image = "a.io/x:v1".parse().unwrap();
        for (annotation, part) in [
            ("a.io", "\"a.io\""),
            ("a.io/x, a.io/", "\"a.io/\""),
            ("a.io/X", "\"a.io/X\""),
            ("/x", "\"/x\""),
        ] {
            let error = check(annotation, &image).unwrap_err();
            assert!(
                matches!(error, NotAllowed::Malformed(_)) && error.to_string().contains(part),
                "{annotation}: {error}"
            );
        }
        assert_eq!(
            check("", &image).unwrap_err().to_string(),
            "it allows nothing and not a.io/x: add a pattern to it, or use another key"
        );
        assert_eq!(
            check("b.io/*", &image).unwrap_err().to_string(),
            "it allows b.io/* and not a.io/x: add a pattern to it, or use another key"
        );
    }
}
