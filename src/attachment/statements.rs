//! The signed statements of a resource: the predicates of the spec, or a choice among the statements of the build.

use bytes::Bytes;

use crate::api::{ArtifactFile, Attestation, ConfigMapFiles, PredicateDocument};
use affix_registry::glob;

use super::content::describe;
use super::files::{File, FileError, FileTarget, Inputs};
use super::image::Entry;
use super::selection::SelectedEntry;

/// The desired statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statements {
    /// One statement about each target, with a predicate of the spec.
    Given {
        /// The type of the predicates, a URI.
        predicate_type: String,
        /// The predicates.
        predicates: Vec<GivenPredicate>,
    },
    /// The statements that the build put beside each platform.
    Build(PredicateTypes),
}

/// A predicate of the spec, which need not be JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenPredicate {
    /// Its place in the spec, for messages.
    pub at: String,
    /// The targets.
    pub target: FileTarget,
    /// The document.
    pub bytes: Bytes,
}

/// Patterns of predicate types with the wildcards `*` and `?`, and with `!` in front for excluded types. The last matching one decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateTypes(Vec<String>);

impl PredicateTypes {
    /// Returns true if statements with this type of predicate are signed.
    #[must_use]
    pub fn includes(&self, predicate_type: &str) -> bool {
        let (exclusions, inclusions): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|pattern| pattern.starts_with('!'));
        let decides = self.0.iter().rev().find(|pattern| {
            let pattern = pattern.strip_prefix('!').unwrap_or(pattern);
            glob(pattern, predicate_type)
        });
        match decides {
            Some(pattern) => !pattern.starts_with('!'),
            // A list of exclusions alone starts from every type.
            None => inclusions.is_empty() && !exclusions.is_empty(),
        }
    }
}

impl std::fmt::Display for PredicateTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Statements {
    /// Parses the statements of a spec. `None`: it states neither predicates nor the build, or both.
    ///
    /// # Errors
    /// Fails for a malformed target, an absent source or two predicates for one target.
    pub(super) fn parse(
        attestation: &Attestation,
        inputs: &Inputs,
    ) -> Result<Option<Self>, FileError> {
        let is_given =
            !attestation.predicates.is_empty() || !attestation.predicates_from.is_empty();
        let (from_build, predicate_type) = (&attestation.from_build, attestation.predicate_type());
        match (from_build, predicate_type) {
            (Some(from_build), None) if !is_given => {
                let patterns = from_build.predicate_types().map(str::to_owned).collect();
                Ok(Some(Self::Build(PredicateTypes(patterns))))
            }
            (None, Some(predicate_type)) if is_given => Ok(Some(Self::Given {
                predicate_type: predicate_type.to_owned(),
                predicates: parse_predicates(attestation, inputs)?,
            })),
            _ => Ok(None),
        }
    }

    /// Returns a warning for each predicate that no selected target gets.
    #[must_use]
    pub fn idle(&self, chosen: &[SelectedEntry<'_>]) -> Vec<String> {
        let Self::Given { predicates, .. } = self else {
            return Vec::new();
        };
        let is_idle = |of: &&GivenPredicate| {
            let mut targets = chosen.iter().filter(|chosen| chosen.skip.is_none());
            !targets.any(|chosen| of.target.covers(chosen.entry))
        };
        let warning = |of: &GivenPredicate| {
            let GivenPredicate { at, target, .. } = of;
            format!("{at} is for {target}, which is not one of the targets")
        };
        predicates.iter().filter(is_idle).map(warning).collect()
    }
}

/// Returns the position of the predicate for a target.
///
/// # Errors
/// Fails if there is none, or if there are two.
pub fn predicate_for(predicates: &[GivenPredicate], entry: &Entry) -> Result<usize, FileError> {
    let mut covering = predicates
        .iter()
        .enumerate()
        .filter(|(_, of)| of.target.covers(entry));
    match (covering.next(), covering.next()) {
        (Some((nth, _)), None) => Ok(nth),
        (Some((_, one)), Some((_, other))) => Err(FileError::TwoPredicates {
            at: other.at.clone(),
            other: one.at.clone(),
            target: describe(entry),
        }),
        (None, _) => Err(FileError::NoPredicate {
            target: describe(entry),
        }),
    }
}

fn parse_predicates(
    attestation: &Attestation,
    inputs: &Inputs,
) -> Result<Vec<GivenPredicate>, FileError> {
    let mut predicates: Vec<GivenPredicate> = Vec::new();
    for (nth, document) in attestation.predicates.iter().enumerate() {
        let at = format!("spec.attestation.predicates[{nth}]");
        let File { target, bytes, .. } = File::resolve(&as_file(document), &at, inputs)?;
        if let Some(other) = predicates.iter().find(|of| of.target.overlaps(&target)) {
            return Err(FileError::TwoPredicates {
                other: other.at.clone(),
                target: target.to_string(),
                at,
            });
        }
        predicates.push(GivenPredicate { at, target, bytes });
    }
    for (nth, from) in attestation.predicates_from.iter().enumerate() {
        let at = format!("spec.attestation.predicatesFrom[{nth}]");
        let files = ConfigMapFiles {
            config_map_ref: from.config_map_ref.clone(),
            media_type: None,
        };
        let files = File::from_config_map(&files, &at, inputs)?;
        predicates.extend(files.into_iter().map(|file| GivenPredicate {
            at: format!("{at}, key {:?}", file.title),
            target: file.target,
            bytes: file.bytes,
        }));
    }
    Ok(predicates)
}

/// Returns a predicate as a file, whose targets and sources are the same.
fn as_file(document: &PredicateDocument) -> ArtifactFile {
    ArtifactFile {
        name: "predicate".to_owned(),
        media_type: None,
        target: document.target.clone(),
        value: document.value.clone(),
        value_from: document.value_from.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_pattern_decides_about_a_predicate_type() {
        let includes = |patterns: &[&str], predicate_type: &str| {
            let patterns = patterns.iter().map(|pattern| (*pattern).to_owned());
            PredicateTypes(patterns.collect()).includes(predicate_type)
        };
        let (spdx, slsa) = (
            "https://spdx.dev/Document",
            "https://slsa.dev/provenance/v1",
        );
        assert!(includes(&["*"], spdx) && includes(&["https://slsa.dev/provenance/*"], slsa));
        assert!(!includes(&["https://slsa.dev/provenance/*"], spdx) && includes(&[spdx], spdx));
        assert!(includes(&["!*slsa*"], spdx) && !includes(&["!*slsa*"], slsa));
        assert!(!includes(&["*", "!*slsa*"], slsa) && includes(&["!*", slsa], slsa));
    }
}
