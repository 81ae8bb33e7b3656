//! The outcome of a pass: the targets, one verdict over all of them, and the events.

use std::collections::BTreeSet;

use affix_registry::oci::Digest;
use k8s_openapi::jiff::Timestamp;

use crate::api::{
    ImageStatus, Leftover, Origin, PushAccess, Reason, Superseded, SupportedMode, TargetStatus,
};
use crate::attachment::Problem;
use crate::engine::failure::Failure;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::table::{print_leftovers, print_targets, tally};
use crate::engine::records::target::TargetRecord;

use super::change::AttachmentChange;
use super::event::PassEvent;
use super::verdict::Verdict;

/// The outcome of a pass, as status shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The image, if it was resolved.
    pub image: Option<ImageStatus>,
    /// The way in which the registry lists referrers, if a listing was read.
    pub referrers_mode: Option<SupportedMode>,
    /// All entries of the image; `None` if nothing was read, so that status stays as it is.
    pub rows: Option<Vec<TargetStatus>>,
    /// The number of skipped entries that `rows` does not list.
    pub skipped_not_listed: usize,
    /// The number of selected entries that `rows` does not list, of a selection that is too large.
    pub selected_not_listed: usize,
    /// Attachments that this resource owns and no longer wants.
    pub leftovers: Option<Vec<Leftover>>,
    /// The moves of the tag; `None` keeps those in status.
    pub superseded: Option<Vec<Superseded>>,
    /// The Ready condition.
    pub verdict: Verdict,
    /// The remarks on a resolved image, or the problem that prevented it.
    pub resolved: Result<Vec<String>, Problem>,
    /// Events.
    pub notes: Vec<PassEvent>,
    /// The attachments that the pass made, adopted, restored and removed.
    pub changes: Vec<AttachmentChange>,
    /// The digest of the public key or certificate that signs, if the pass opened the key.
    pub key: Option<Digest>,
    /// The number of requests to the registry, without those for tokens.
    pub requests: u64,
    /// The registry's answer to the question whether the resource may push, if it was asked.
    pub push_access: Option<PushAccess>,
    /// The time from which verifiers reject the signatures of the key, if it is known.
    pub signatures_end: Option<Timestamp>,
}

impl Outcome {
    /// Returns the outcome of a pass that failed before it had any target.
    #[must_use]
    pub fn failed(failure: &Failure) -> Self {
        Self {
            resolved: Err(failure.problem.clone()),
            verdict: Verdict::failed(failure),
            ..Self::unchanged()
        }
    }

    /// Returns the outcome of a pass that had nothing to do, so that status stays as it is.
    pub(in crate::engine) fn unchanged() -> Self {
        Self {
            image: None,
            referrers_mode: None,
            rows: None,
            skipped_not_listed: 0,
            selected_not_listed: 0,
            leftovers: None,
            superseded: None,
            verdict: Verdict::ready(Reason::Attached, String::new()),
            resolved: Ok(Vec::new()),
            notes: Vec::new(),
            changes: Vec::new(),
            key: None,
            requests: 0,
            push_access: None,
            signatures_end: None,
        }
    }

    /// Returns whether the registry matched status.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.rows.is_none() && self.verdict.ready
    }

    /// Returns whether a target has an attachment that someone else made.
    pub(in crate::engine) fn has_adopted(&self) -> bool {
        let rows = self.rows.iter().flatten();
        let origins = rows.into_iter().flat_map(|row| {
            let formats = row.formats.iter().map(|format| format.origin);
            formats.chain([row.origin])
        });
        origins
            .into_iter()
            .any(|origin| origin == Some(Origin::Adopted))
    }

    /// Returns whether the next pass should follow soon, with back-off, instead of at the interval.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        !self.verdict.ready && self.verdict.causes.iter().any(|cause| cause.is_hurried())
    }

    /// Returns `attached/selected` for `status.attached`.
    #[must_use]
    pub fn attached(&self) -> Option<String> {
        let rows = self.rows.as_ref()?;
        Some(tally(
            rows.iter().map(|row| row.state),
            self.selected_not_listed,
        ))
    }
}

/// The typed outcome of a pass that resolved its image.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Report {
    pub(in crate::engine) image: ImageStatus,
    pub(in crate::engine) referrers_mode: Option<SupportedMode>,
    /// `None` keeps the targets and leftovers of the previous pass.
    pub(in crate::engine) records: Option<(Vec<TargetRecord>, Vec<LeftoverRecord>)>,
    pub(in crate::engine) skipped_not_listed: usize,
    pub(in crate::engine) selected_not_listed: usize,
    pub(in crate::engine) superseded: Option<Vec<Superseded>>,
    /// Older marks on targets whose newest mark is the desired one. Readers ignore them.
    pub(in crate::engine) outranked: BTreeSet<Digest>,
    pub(in crate::engine) verdict: Verdict,
    pub(in crate::engine) remarks: Vec<String>,
    pub(in crate::engine) events: Vec<PassEvent>,
    pub(in crate::engine) changes: Vec<AttachmentChange>,
}

impl Report {
    pub(in crate::engine) fn new(image: ImageStatus) -> Self {
        Self {
            image,
            referrers_mode: None,
            records: None,
            skipped_not_listed: 0,
            selected_not_listed: 0,
            superseded: None,
            outranked: BTreeSet::new(),
            verdict: Verdict::ready(Reason::Attached, String::new()),
            remarks: Vec::new(),
            events: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Returns the targets of this pass.
    pub(in crate::engine) fn targets(&self) -> &[TargetRecord] {
        self.records.as_ref().map_or(&[], |(targets, _)| targets)
    }

    /// Returns the leftovers of this pass.
    pub(in crate::engine) fn leftovers(&self) -> &[LeftoverRecord] {
        self.records
            .as_ref()
            .map_or(&[], |(_, leftovers)| leftovers)
    }
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Self {
        Self {
            rows: report
                .records
                .as_ref()
                .map(|(targets, _)| print_targets(targets)),
            leftovers: report
                .records
                .as_ref()
                .map(|(_, leftovers)| print_leftovers(leftovers)),
            image: Some(report.image),
            referrers_mode: report.referrers_mode,
            skipped_not_listed: report.skipped_not_listed,
            selected_not_listed: report.selected_not_listed,
            superseded: report.superseded,
            verdict: report.verdict,
            resolved: Ok(report.remarks),
            notes: report.events,
            changes: report.changes,
            key: None,
            requests: 0,
            push_access: None,
            signatures_end: None,
        }
    }
}
