//! Concludes the report of a pass: leftovers, verdict, and the bounds of status.

use std::time::Duration;

use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::table::{bound, bound_selected};
use crate::engine::records::target::TargetRecord;
use crate::engine::report::leftovers;
use crate::engine::report::outcome::Report;
use crate::engine::report::verdict::Verdict;
use affix_registry::oci::Digest;

/// Concludes a pass. `gone` are owned attachments that the registry does not have anymore.
pub(in crate::engine) fn conclude(
    context: &Context<'_>,
    report: Report,
    mut records: Vec<TargetRecord>,
    mut leftovers: Vec<LeftoverRecord>,
    gone: &[Digest],
    retry_after: Option<Duration>,
) -> Report {
    let request = context.request;
    leftovers::complete(&request.previous, &records, &mut leftovers, gone);
    let is_accepted = request.accepts_leftovers || !request.intent.desired.speaks();
    let matters = |leftover: &LeftoverRecord| {
        !is_accepted && !report.outranked.contains(&leftover.attachment)
    };
    let verdict = Verdict::over(&records, retry_after).with_leftovers(
        &leftovers,
        matters,
        request.previous.generation,
    );
    Report {
        verdict,
        skipped_not_listed: bound(&mut records),
        records: Some((records, leftovers)),
        ..report
    }
}

/// Concludes a pass that starts no work since the selection does not allow it. Records of attachments are kept. A transient failure keeps
/// the targets of the same image and spec.
pub(in crate::engine) fn refuse(
    context: &Context<'_>,
    report: Report,
    mut records: Vec<TargetRecord>,
    failure: &Failure,
) -> Report {
    let previous = &context.request.previous;
    let is_same = previous.is_current
        && previous
            .image
            .as_ref()
            .is_some_and(|image| image.to_string() == report.image.digest);
    let verdict = Verdict::failed(failure);
    if is_same && failure.problem.reason.is_retried() {
        return Report { verdict, ..report };
    }
    let selected_not_listed = bound_selected(&mut records);
    Report {
        verdict,
        selected_not_listed,
        ..conclude(context, report, records, Vec::new(), &[], None)
    }
}
