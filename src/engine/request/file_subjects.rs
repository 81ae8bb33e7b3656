//! Inspection of files before they are attached: a file that names other images as its subjects is refused.

use std::collections::BTreeMap;

use crate::api::Reason;
use crate::attachment::{Entry, Problem, TargetContent};
use crate::signing::{NamedSubjects, named_subjects};
use affix_registry::oci::{Digest, annotation};

/// Maximum number of digests in a message.
const MAX_NAMED: usize = 3;

/// The subjects that the files of a resource name. Each file is inspected once for all targets.
#[derive(Default)]
pub(in crate::engine) struct FileSubjects(BTreeMap<Digest, NamedSubjects>);

impl FileSubjects {
    /// Checks the files of one target.
    ///
    /// # Errors
    /// `SubjectMismatch` for the first file that names only other digests.
    pub(in crate::engine) fn check(
        &mut self,
        content: &TargetContent,
        target: &Entry,
    ) -> Result<(), Problem> {
        let digest = &target.subject.digest;
        for (layer, bytes) in content.layers.iter().zip(&content.blobs) {
            let named = self
                .0
                .entry(layer.digest.clone())
                .or_insert_with(|| named_subjects(bytes));
            if !named.excludes(digest) {
                continue;
            }
            let NamedSubjects::Digests(named) = named else {
                continue;
            };
            let mut names: Vec<String> = named
                .iter()
                .take(MAX_NAMED)
                .map(ToString::to_string)
                .collect();
            if named.len() > MAX_NAMED {
                names.push(format!("{} more", named.len() - MAX_NAMED));
            }
            let title = layer
                .annotations
                .get(annotation::TITLE)
                .map(String::as_str)
                .unwrap_or_default();
            let platform = target.platform().unwrap_or_else(|| "index".to_owned());
            return Err(Problem::new(
                Reason::SubjectMismatch,
                format_args!(
                    "the file {title:?} was made for {} and not for the target {platform} ({digest}): give it the target that it was made for",
                    names.join(" and ")
                ),
            ));
        }
        Ok(())
    }
}
