//! The journal: a pass saves its intent before it writes to the registry.

use std::future::Future;

use crate::api::{ImageStatus, Superseded, TargetStatus};

use super::failure::Failure;
use super::records::leftover::LeftoverRecord;
use super::records::target::TargetRecord;

/// The state of a pass that is in progress, for [`status_in_progress`](super::status_in_progress).
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The image.
    pub(in crate::engine) image: &'a ImageStatus,
    /// The targets, with the attachments that will be pushed.
    pub(in crate::engine) targets: &'a [TargetRecord],
    /// Attachments of this resource that `targets` does not name.
    pub(in crate::engine) leftovers: &'a [LeftoverRecord],
    /// The moves of the tag, with their dates; `None` keeps the previous ones.
    pub(in crate::engine) superseded: Option<&'a [Superseded]>,
    /// The remarks of the condition Resolved that users must see before the next step.
    pub(in crate::engine) remarks: &'a [String],
    /// The next step, for users.
    pub(in crate::engine) step: &'static str,
}

/// Saves the state of a pass before each step that writes to the registry.
pub trait Journal: Sync {
    /// Saves the draft. On an error the pass neither pushes nor removes anything.
    fn save(&self, draft: &Draft<'_>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reports that one target is finished, with or without success.
    fn progress(&self, row: &TargetStatus) {
        let _ = row;
    }
}
