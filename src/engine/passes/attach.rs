//! The pass that attaches content or signatures: selects the targets of the image and the content for each one.

use crate::api::{Reason, SignatureFormat, TargetState};
use crate::attachment::{Desired, DesiredContent, EntryKind, Problem, SelectedEntry, file_problem};
use crate::engine::apply::conclude::{conclude, refuse};
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::journal::Journal;
use crate::engine::observe::parents::with_parents;
use crate::engine::observe::referrers::DesiredTarget;
use crate::engine::records::table::{explain_pending, update};
use crate::engine::records::target::TargetRecord;
use crate::engine::report::outcome::Report;
use crate::engine::request::file_subjects::FileSubjects;
use crate::engine::request::signing_key::contents;

use super::reconcile_targets::{DesiredState, Resolution, begin, reconcile_targets};

/// Reasons of invalid input. With one of them the pass pushes nothing, so that no incomplete set of attachments is left.
const INVALID_INPUT: [Reason; 5] = [
    Reason::FileMissing,
    Reason::InvalidSpec,
    Reason::SubjectMismatch,
    Reason::KeyInvalid,
    Reason::SecretNotFound,
];

/// Attaches the desired content or signature to the selected targets.
pub(in crate::engine) async fn attach(
    context: &Context<'_>,
    resolution: &Resolution<'_>,
    journal: &impl Journal,
    claims: &impl Claims,
) -> Result<Report, Failure> {
    let intent = &context.request.intent;
    let image = context
        .in_time(with_parents(context, &resolution.resolved.image))
        .await??;
    let image = &*image;
    let mut report = begin(context, &resolution.resolved);
    let (chosen, remarks) = match intent.selection.choose(image) {
        Ok(chosen) => chosen,
        Err(error) => {
            let failure = Failure::new(error.reason(), format_args!("spec.{error}"));
            return Ok(refuse_selection(
                context,
                report,
                &intent.selection.judge(image),
                &failure,
            ));
        }
    };
    report.remarks.extend(remarks);
    if let Desired::Content { content, .. } = &intent.desired {
        report.remarks.extend(content.idle_files(&chosen));
    }
    let selected = chosen.iter().filter(|chosen| chosen.skip.is_none()).count();
    let limit = context.options.max_targets;
    if selected > limit {
        let message = format!(
            "spec.targets selects {selected} manifests of the image, more than {limit}: narrow platforms, or name fewer"
        );
        let failure = Failure::new(Reason::LimitExceeded, message);
        return Ok(refuse_selection(context, report, &chosen, &failure));
    }
    let mut records = records_of(context, &chosen);
    let wanted = desired_targets(context, &chosen, &mut records);
    let is_invalid = |record: &TargetRecord| {
        record.state == TargetState::Failed
            && record
                .reason
                .is_some_and(|reason| INVALID_INPUT.contains(&reason))
    };
    if records.iter().any(is_invalid) {
        let message = "nothing is attached before the input for every target is right";
        explain_pending(&mut records, message);
        return Ok(conclude(context, report, records, Vec::new(), &[], None));
    }
    let desired = DesiredState {
        records,
        targets: wanted,
        entries: &image.entries,
    };
    reconcile_targets(context, report, desired, resolution, journal, claims).await
}

/// Returns the desired attachment of each selected target. A target without one fails.
fn desired_targets(
    context: &Context<'_>,
    chosen: &[SelectedEntry<'_>],
    records: &mut [TargetRecord],
) -> Vec<DesiredTarget> {
    let mut subjects = FileSubjects::default();
    let mut wanted = Vec::new();
    for (position, chosen) in chosen
        .iter()
        .enumerate()
        .filter(|(_, chosen)| chosen.skip.is_none())
    {
        for format in context.request.intent.desired.formats() {
            match desired_on(context, chosen, *format, &mut subjects) {
                Ok(Some(listed)) => wanted.push(DesiredTarget {
                    position,
                    format: *format,
                    subject: chosen.entry.subject.clone(),
                    wanted: listed,
                }),
                Ok(None) => {}
                Err(problem) => update(records, position, |record| record.fail(&problem.into())),
            }
        }
    }
    wanted
}

fn desired_on(
    context: &Context<'_>,
    chosen: &SelectedEntry<'_>,
    format: SignatureFormat,
    subjects: &mut FileSubjects,
) -> Result<Option<DesiredContent>, Problem> {
    if let EntryKind::Unreadable(problem) = &chosen.entry.kind {
        return Err(problem.clone());
    }
    match &context.request.intent.desired {
        Desired::Content { content, mark } => {
            let content = content.for_target(chosen.entry).map_err(file_problem)?;
            subjects.check(&content, chosen.entry)?;
            Ok(Some(DesiredContent::Content {
                content,
                mark: mark.clone(),
            }))
        }
        Desired::Signature {
            artifact_type,
            overlap,
            ..
        } => match context.signer {
            Some(Ok(signer)) => {
                let contents = contents(&context.request.intent.desired, signer);
                let content = contents.into_iter().find(|(of, _)| *of == format);
                Ok(content.map(|(_, content)| DesiredContent::Signature {
                    content,
                    artifact_type: artifact_type.to_string(),
                    overlap: *overlap,
                    verified: Vec::new(),
                }))
            }
            Some(Err(problem)) => Err(problem.clone()),
            None => Err(Problem::new(
                Reason::SecretNotFound,
                "the resource signs, and no key was given to sign with",
            )),
        },
        // Marks of moves have a pass of their own.
        Desired::WhenSuperseded(_) => Ok(None),
    }
}

/// Returns a record for each entry, before any work.
fn records_of(context: &Context<'_>, chosen: &[SelectedEntry<'_>]) -> Vec<TargetRecord> {
    let record = |chosen: &SelectedEntry<'_>| match chosen.skip {
        Some(reason) => TargetRecord::skipped(chosen.entry, reason),
        None => TargetRecord::pending(chosen.entry).with_formats(
            context.request.intent.desired.formats(),
            context
                .request
                .previous
                .target(&chosen.entry.subject.digest),
        ),
    };
    chosen.iter().map(record).collect()
}

/// Concludes a pass whose selection does not fit the image.
fn refuse_selection(
    context: &Context<'_>,
    report: Report,
    chosen: &[SelectedEntry<'_>],
    failure: &Failure,
) -> Report {
    let mut records = records_of(context, chosen);
    for (record, chosen) in records.iter_mut().zip(chosen) {
        if let EntryKind::Unreadable(problem) = &chosen.entry.kind {
            record.fail(&problem.clone().into());
        }
    }
    explain_pending(
        &mut records,
        "nothing is attached before spec.targets fits the image",
    );
    refuse(context, report, records, failure)
}
