//! The part of a fetched manifest that a plan reads. A pass may fetch hundreds of manifests and holds this part of each.

use affix_registry::oci::{Digest, ImageManifest};

use crate::attachment::content::TargetContent;
use crate::attachment::mark::MarkKeys;
use crate::attachment::time::Created;

/// The maximum length of a foreign annotation's value that a pass holds, in characters.
pub(super) const MAX_VALUE_CHARS: usize = 256;

/// The result of a comparison of a fetched manifest with the desired content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedReferrer {
    /// True if the manifest equals the desired content.
    pub is_equal: bool,
    /// True if the manifest has the artifact type of the desired content.
    pub(super) has_type: bool,
    /// The time in its annotations.
    pub(super) created: Option<Created>,
    /// The date of an end-of-life mark.
    pub(super) date: Option<String>,
}

impl FetchedReferrer {
    /// Compares `manifest` with `content` on `subject`.
    #[must_use]
    pub fn new(
        content: &TargetContent,
        mark: Option<&MarkKeys>,
        subject: &Digest,
        manifest: &ImageManifest,
    ) -> Self {
        let date = mark.and_then(|keys| manifest.annotations.get(&keys.annotation));
        Self {
            is_equal: content.equals(subject, manifest),
            has_type: manifest.effective_artifact_type() == content.artifact_type.as_str(),
            created: Created::from_manifest(manifest),
            date: date.map(|date| date.chars().take(MAX_VALUE_CHARS).collect()),
        }
    }

    /// Returns true if the manifest has the date of an end-of-life mark.
    #[must_use]
    pub fn has_date(&self) -> bool {
        self.date.is_some()
    }
}
