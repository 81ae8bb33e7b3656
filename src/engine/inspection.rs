//! Looking into files before they are attached: one that was made for another image must not end up on this one.

use std::collections::BTreeMap;

use crate::api::Reason;
use crate::attachment::{Entry, Problem, TargetContent};
use crate::signing::{Named, named_subjects};
use affix_registry::oci::{Digest, annotation};

/// How many digests a message names.
const MOST: usize = 3;

/// What the files of a resource name, each looked into once however many targets it goes to.
#[derive(Default)]
pub(super) struct Inspection(BTreeMap<Digest, Named>);

impl Inspection {
    /// # Errors
    /// `SubjectMismatch` for the first file that names other digests only.
    pub(super) fn check(&mut self, content: &TargetContent, target: &Entry) -> Result<(), Problem> {
        let digest = &target.subject.digest;
        for (layer, bytes) in content.layers.iter().zip(&content.blobs) {
            let named = self
                .0
                .entry(layer.digest.clone())
                .or_insert_with(|| named_subjects(bytes));
            if !named.excludes(digest) {
                continue;
            }
            let Named::Digests(named) = named else {
                continue;
            };
            let mut names: Vec<String> = named.iter().take(MOST).map(ToString::to_string).collect();
            if named.len() > MOST {
                names.push(format!("{} more", named.len() - MOST));
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
