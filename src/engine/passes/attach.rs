//! The pass that attaches content, signatures or statements: selects the targets of the image and the content for each one.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{Reason, TargetState};
use crate::attachment::{
    Desired, DesiredContent, Entry, EntryKind, Image, SelectedEntry, Statements, file_problem,
    predicate_for,
};
use crate::engine::apply::conclude::{conclude, refuse};
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::journal::Journal;
use crate::engine::observe::build_statements::{self, BuildPredicates};
use crate::engine::observe::parents::with_parents;
use crate::engine::observe::referrers::{DesiredTarget, Target, observe};
use crate::engine::records::slot::Slot;
use crate::engine::records::table::explain_pending;
use crate::engine::records::target::TargetRecord;
use crate::engine::report::outcome::Report;
use crate::engine::request::build::Mode;
use crate::engine::request::file_subjects::FileSubjects;
use crate::engine::request::previous::known_statements;
use crate::engine::request::signing_key::contents;
use crate::signing::{Predicate, Signer};
use affix_registry::oci::{ArtifactType, Descriptor};

use super::reconcile_targets::{
    DesiredState, ObservedState, Resolution, begin, reconcile_observed, reconcile_targets,
    upload_empty_blob,
};
use super::statements;

/// Reasons of invalid input. With one of them the pass pushes nothing, so that no incomplete set of attachments is left.
const INVALID_INPUT: [Reason; 7] = [
    Reason::FileMissing,
    Reason::InvalidSpec,
    Reason::SubjectMismatch,
    Reason::StatementInvalid,
    Reason::LimitExceeded,
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
    match &intent.desired {
        Desired::Content { content, .. } => report.remarks.extend(content.idle_files(&chosen)),
        Desired::Attestation { statements, .. } => report.remarks.extend(statements.idle(&chosen)),
        Desired::Signature { .. } | Desired::WhenSuperseded(_) => {}
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
    if let Some((records, wanted)) = known_state(context, &chosen) {
        let targets = observe(context, resolution.prefetch, wanted).await;
        if targets.iter().all(Target::is_seen) {
            let observed = ObservedState {
                records,
                targets,
                entries: &image.entries,
                empty: upload_empty_blob(context, resolution, true),
            };
            return reconcile_observed(context, report, observed, journal, claims).await;
        }
    }
    let build = read_build(context, image, &chosen).await;
    let (mut records, wanted) = desired_state(context, &chosen, &build);
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

/// Reads the statements of the build about the selected targets, if the spec wants them.
async fn read_build(
    context: &Context<'_>,
    image: &Image,
    chosen: &[SelectedEntry<'_>],
) -> BuildPredicates {
    match &context.request.intent.desired {
        Desired::Attestation {
            statements: Statements::Build(types),
            ..
        } if context.open_signer().is_some() => {
            let selected = chosen.iter().filter(|chosen| chosen.skip.is_none());
            let platforms = selected.map(|chosen| chosen.entry.subject.digest.clone());
            build_statements::read(context, types, image, platforms.collect()).await
        }
        _ => BuildPredicates::new(),
    }
}

/// A record for each entry, and the desired attachments of the selected ones.
type State = (Vec<TargetRecord>, Vec<DesiredTarget>);

/// An attachment that a target should have.
struct Wanted {
    slot: Slot,
    content: DesiredContent,
    signer: Option<Arc<dyn Signer>>,
}

impl Wanted {
    fn on(self, position: usize, subject: &Descriptor) -> DesiredTarget {
        DesiredTarget {
            position,
            slot: self.slot,
            subject: subject.clone(),
            wanted: self.content,
            signer: self.signer,
        }
    }
}

/// Returns the desired state of all targets. A target whose attachment cannot be told fails.
fn desired_state(
    context: &Context<'_>,
    chosen: &[SelectedEntry<'_>],
    build: &BuildPredicates,
) -> State {
    let mut subjects = FileSubjects::default();
    let mut records = records_of(context, chosen);
    let mut targets = Vec::new();
    for (position, (record, chosen)) in records.iter_mut().zip(chosen).enumerate() {
        if chosen.skip.is_some() {
            continue;
        }
        let entry = chosen.entry;
        match desired_on(context, entry, build, &mut subjects) {
            Ok(wanted) => {
                let slots = wanted.iter().map(|of| of.slot.clone());
                let slots: Vec<Slot> = slots.chain(statements::slot(context)).collect();
                if !wanted.is_empty() && slots != record.slots() {
                    let previous = context.request.previous.target(&entry.subject.digest);
                    *record = TargetRecord::pending(entry).with_slots(&slots, previous);
                }
                let wanted = wanted.into_iter();
                targets.extend(wanted.map(|wanted| wanted.on(position, &entry.subject)));
            }
            Err(failure) => record.fail(&failure),
        }
    }
    (records, targets)
}

/// Returns the state of a resource that signs statements of the build, if status has all of them. Then they need not be read again,
/// unless one is lost.
fn known_state(context: &Context<'_>, chosen: &[SelectedEntry<'_>]) -> Option<State> {
    let (request, signer) = (context.request, context.open_signer()?);
    let Desired::Attestation {
        statements: Statements::Build(_),
        artifact_type,
    } = &request.intent.desired
    else {
        return None;
    };
    if !request.previous.is_current || request.mode == Mode::Detach {
        return None;
    }
    let mut targets = Vec::new();
    for (position, chosen) in chosen.iter().enumerate() {
        if chosen.skip.is_some() {
            continue;
        }
        let subject = &chosen.entry.subject;
        let target = request.previous.target(&subject.digest)?;
        let signers = known_statements(target, &**signer)?;
        let wanted = signers.into_iter().zip(&target.formats);
        targets.extend(wanted.map(|(signer, of)| {
            statement(of.slot.clone(), artifact_type.to_string(), signer).on(position, subject)
        }));
    }
    Some((records_of(context, chosen), targets))
}

fn statement(slot: Slot, artifact_type: String, signer: Arc<dyn Signer>) -> Wanted {
    Wanted {
        slot,
        content: DesiredContent::Signature {
            content: signer.fingerprint(),
            artifact_type,
            overlap: Duration::ZERO,
            verified: Vec::new(),
        },
        signer: Some(signer),
    }
}

/// Returns the attachments that an entry should have.
fn desired_on(
    context: &Context<'_>,
    entry: &Entry,
    build: &BuildPredicates,
    subjects: &mut FileSubjects,
) -> Result<Vec<Wanted>, Failure> {
    if let EntryKind::Unreadable(problem) = &entry.kind {
        return Err(problem.clone().into());
    }
    match &context.request.intent.desired {
        Desired::Content { content, mark } => {
            statements::check(context)?;
            let content = content.for_target(entry).map_err(file_problem)?;
            subjects.check(&content, entry)?;
            Ok(vec![Wanted {
                slot: Slot::Referrer,
                content: DesiredContent::Content {
                    content,
                    mark: mark.clone(),
                },
                signer: None,
            }])
        }
        desired @ Desired::Signature {
            artifact_type,
            overlap,
            ..
        } => {
            let signer = context.signer()?;
            let contents = contents(desired, &**signer).into_iter();
            Ok(contents
                .map(|(format, content)| Wanted {
                    slot: Slot::of(format),
                    content: DesiredContent::Signature {
                        content,
                        artifact_type: artifact_type.to_string(),
                        overlap: *overlap,
                        verified: Vec::new(),
                    },
                    signer: Some(Arc::clone(signer)),
                })
                .collect())
        }
        Desired::Attestation {
            artifact_type,
            statements,
        } => statements_on(
            context,
            entry,
            build,
            (artifact_type, statements),
            context.signer()?,
        ),
        // Marks of moves have a pass of their own.
        Desired::WhenSuperseded(_) => Ok(Vec::new()),
    }
}

/// Returns the signed statements that an entry should have.
fn statements_on(
    context: &Context<'_>,
    entry: &Entry,
    build: &BuildPredicates,
    (artifact_type, statements): (&ArtifactType, &Statements),
    signer: &Arc<dyn Signer>,
) -> Result<Vec<Wanted>, Failure> {
    let wanted = |slot, predicate: &Predicate| {
        let signer = signer
            .stating(predicate)
            .ok_or_else(|| Failure::new(Reason::KeyInvalid, "the key signs no statements"))?;
        Ok(statement(slot, artifact_type.to_string(), signer))
    };
    match statements {
        Statements::Given { predicates, .. } => {
            let nth = predicate_for(predicates, entry).map_err(file_problem)?;
            let predicate = context.request.predicates.get(nth).into_iter();
            predicate.map(|of| wanted(Slot::Referrer, of)).collect()
        }
        Statements::Build(_) => match build.get(&entry.subject.digest) {
            Some(Ok(predicates)) => predicates
                .iter()
                .map(|of| {
                    let slot = Slot::Statement {
                        predicate_type: of.kind().to_owned(),
                        predicate: Some(of.hash().clone()),
                    };
                    wanted(slot, of)
                })
                .collect(),
            Some(Err(failure)) => Err(failure.clone()),
            None => Ok(Vec::new()),
        },
    }
}

/// Returns a record for each entry, before any work. The records of statements of the build are those of the previous pass.
fn records_of(context: &Context<'_>, chosen: &[SelectedEntry<'_>]) -> Vec<TargetRecord> {
    let request = context.request;
    let formats = request.intent.desired.formats().iter();
    let slots = formats.copied().map(Slot::of);
    let slots: Vec<Slot> = slots.chain(statements::slot(context)).collect();
    let is_attestation = matches!(request.intent.desired, Desired::Attestation { .. });
    let record = |chosen: &SelectedEntry<'_>| match chosen.skip {
        Some(reason) => TargetRecord::skipped(chosen.entry, reason),
        None => {
            let previous = request.previous.target(&chosen.entry.subject.digest);
            let known = previous.filter(|_| is_attestation).map(TargetRecord::slots);
            let slots = known.as_ref().unwrap_or(&slots);
            TargetRecord::pending(chosen.entry).with_slots(slots, previous)
        }
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
