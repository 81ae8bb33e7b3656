//! The signed statements beside end-of-life marks (docs/decisions/0126).
//!
//! A statement holds the date of its mark, and the time of the mark as `last_updated`. It therefore follows from the plan of the
//! mark, and changes with it: readers that take the latest statement take the date that readers of marks take.

use std::sync::Arc;
use std::time::Duration;

use crate::attachment::{
    Action, Created, DesiredContent, Problem, TargetContent, TargetPlan, equal,
};
use crate::engine::context::Context;
use crate::engine::observe::referrers::{DesiredTarget, Target};
use crate::engine::records::slot::Slot;
use crate::engine::request::build::Mode;
use crate::engine::request::signing_key::stating;
use crate::signing::Signer;
use affix_registry::oci::{annotation, media_type};

/// Returns the slot of the statement beside a mark, if the resource wants one.
pub(in crate::engine) fn slot(context: &Context<'_>) -> Option<Slot> {
    let has_statement = context.request.intent.statement;
    has_statement.then(Slot::lifecycle)
}

/// Checks that the statements can be signed. A mark is not made without its statement.
///
/// # Errors
/// The problem of the key.
pub(in crate::engine) fn check(context: &Context<'_>) -> Result<(), Problem> {
    match context.request.intent.statement {
        true => context.signer().map(drop),
        false => Ok(()),
    }
}

/// Returns the statements beside the marks that `plan` keeps or makes. A mark in conflict keeps its statement as it is.
pub(in crate::engine) fn desired(
    context: &Context<'_>,
    targets: &[Target],
    plan: impl Fn(&Target) -> TargetPlan,
) -> Vec<DesiredTarget> {
    let Some(signer) = context
        .open_signer()
        .filter(|_| context.request.intent.statement)
    else {
        return Vec::new();
    };
    let of = |target: &Target| {
        let DesiredContent::Content {
            content,
            mark: Some(keys),
        } = &target.observed.wanted
        else {
            return Vec::new();
        };
        let stating = times(context, target, &plan(target), content)
            .into_iter()
            .filter_map(|created| stating(&**signer, &keys.date, created));
        let statement = |signer: Arc<dyn Signer>| DesiredTarget {
            position: target.position,
            slot: Slot::lifecycle(),
            subject: target.observed.subject.clone(),
            wanted: DesiredContent::Signature {
                content: signer.fingerprint(),
                artifact_type: media_type::SIGSTORE_BUNDLE.to_owned(),
                overlap: Duration::ZERO,
                verified: Vec::new(),
            },
            signer: Some(signer),
        };
        stating.map(statement).collect()
    };
    targets.iter().flat_map(of).collect()
}

/// Returns the times of the marks of a target that have a statement. A pass that detaches finds the statements of all equal marks.
fn times(
    context: &Context<'_>,
    target: &Target,
    plan: &TargetPlan,
    content: &TargetContent,
) -> Vec<Option<Created>> {
    if context.request.mode == Mode::Detach {
        let equal = equal(&target.observed).into_iter();
        return equal.map(|existing| existing.created).collect();
    }
    match &plan.action {
        Action::Refuse(_) => Vec::new(),
        Action::Keep { existing, .. } => vec![existing.created],
        Action::Attach { created, .. } => {
            let fixed = content.annotations.get(annotation::CREATED);
            let fixed = fixed.and_then(|text| text.parse().ok());
            vec![Some(fixed.unwrap_or(*created))]
        }
    }
}
