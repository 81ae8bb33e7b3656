//! The core of a pass: observes the desired targets, plans each one, and carries the plans out.

use std::pin::pin;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{Either, select};

use crate::api::{ImageStatus, Reason, SignatureFormat};
use crate::attachment::{Action, Entry, Problem, TargetPlan, plan};
use crate::engine::apply::carry_out::{Work, carry_out};
use crate::engine::apply::push::Upload;
use crate::engine::claims::Claims;
use crate::engine::context::Context;
use crate::engine::failure::Failure;
use crate::engine::journal::Journal;
use crate::engine::observe::prefetch::Prefetch;
use crate::engine::observe::referrers::{DesiredTarget, Target, mode, observe};
use crate::engine::observe::resolve::Resolved;
use crate::engine::records::target::TargetRecord;
use crate::engine::report::event::PassEvent;
use crate::engine::report::outcome::Report;
use crate::engine::request::build::Mode;
use crate::engine::request::signing_key::validity_remark;

use super::detach;
use super::statements;

/// The resolved image, with the requests that ran concurrently.
pub(in crate::engine) struct Resolution<'a> {
    pub(in crate::engine) resolved: Resolved,
    /// True if the registry has the empty blob.
    pub(in crate::engine) has_empty_blob: bool,
    pub(in crate::engine) prefetch: &'a Prefetch,
}

/// Returns the report of a pass once its image is resolved.
pub(in crate::engine) fn begin(context: &Context<'_>, resolved: &Resolved) -> Report {
    let request = context.request;
    let reference = &request.intent.reference;
    let digest = &resolved.root.digest;
    let mut report = Report::new(ImageStatus {
        reference: reference.at(digest).to_string(),
        digest: digest.to_string(),
        tag: reference.followed().map(ToString::to_string),
        media_type: Some(resolved.root.media_type.clone()),
        tag_drift: request.previous.tag_drift.clone(),
    });
    report.remarks.extend(request.access.warnings());
    report.remarks.extend(resolved.remarks.iter().cloned());
    if let Some(before) = request
        .previous
        .followed
        .as_ref()
        .filter(|before| *before != digest)
    {
        let message = format!("{reference} moved from {before} to {digest}");
        report
            .events
            .push(PassEvent::normal(Reason::TagMoved, message));
    }
    report.remarks.extend(
        context
            .open_signer()
            .and_then(|signer| validity_remark(&**signer)),
    );
    report
}

/// The input of [`reconcile_targets`].
pub(in crate::engine) struct DesiredState<'a> {
    /// A record for each manifest that status lists.
    pub(in crate::engine) records: Vec<TargetRecord>,
    pub(in crate::engine) targets: Vec<DesiredTarget>,
    /// Every manifest that this pass has read.
    pub(in crate::engine) entries: &'a [Entry],
}

/// Observes, plans and applies.
pub(in crate::engine) async fn reconcile_targets(
    context: &Context<'_>,
    report: Report,
    desired: DesiredState<'_>,
    resolution: &Resolution<'_>,
    journal: &impl Journal,
    claims: &impl Claims,
) -> Result<Report, Failure> {
    let DesiredState {
        records,
        targets: wanted,
        entries,
    } = desired;
    let has_referrers = wanted
        .iter()
        .any(|desired| desired.slot.format() == SignatureFormat::Bundle);
    let empty = upload_empty_blob(context, resolution, has_referrers);
    let mut targets = {
        let observe = pin!(observe(context, resolution.prefetch, wanted));
        match select(observe, empty.clone()).await {
            Either::Left((targets, _)) => targets,
            Either::Right((_, observe)) => observe.await,
        }
    };
    let statements = statements::desired(context, &targets, |mark| plan_target(context, mark));
    targets.extend(observe(context, resolution.prefetch, statements).await);
    let observed = ObservedState {
        records,
        targets,
        entries,
        empty,
    };
    reconcile_observed(context, report, observed, journal, claims).await
}

/// The input of [`reconcile_observed`].
pub(in crate::engine) struct ObservedState<'a> {
    /// A record for each manifest that status lists.
    pub(in crate::engine) records: Vec<TargetRecord>,
    pub(in crate::engine) targets: Vec<Target>,
    /// Every manifest that this pass has read.
    pub(in crate::engine) entries: &'a [Entry],
    /// The upload of the empty blob.
    pub(in crate::engine) empty: Upload<'a>,
}

/// Plans and applies.
pub(in crate::engine) async fn reconcile_observed(
    context: &Context<'_>,
    mut report: Report,
    observed: ObservedState<'_>,
    journal: &impl Journal,
    claims: &impl Claims,
) -> Result<Report, Failure> {
    let ObservedState {
        records,
        targets,
        entries,
        empty,
    } = observed;
    // A listing that failed shows no mode, and a mode that the spec demands was not seen.
    let listed = targets
        .iter()
        .find(|target| target.is_referrer() && target.observed.listing.is_ok());
    report.referrers_mode = listed.map(|target| mode(target.source));
    if context.request.mode == Mode::Detach {
        return Ok(detach::find(context, report, records, &targets));
    }
    let plans: Vec<TargetPlan> = targets
        .iter()
        .map(|target| plan_target(context, target))
        .collect();
    let work = Work {
        entries,
        records,
        targets: &targets,
        plans: &plans,
        empty,
    };
    carry_out(context, report, work, journal, claims)
        .boxed()
        .await
}

/// Plans one target. The operator's limit on referrers prevents additions only.
fn plan_target(context: &Context<'_>, target: &Target) -> TargetPlan {
    let plan = plan(&target.observed, context.request.on_conflict, context.now);
    let others = target.size.referrers.saturating_sub(plan.remove.len());
    match (&plan.action, context.options.max_referrers) {
        (Action::Attach { .. }, Some(limit)) if others >= limit => {
            let subject = &target.observed.subject.digest;
            let message = format!(
                "{subject} has {others} referrers, and the operator allows {limit}: remove some"
            );
            TargetPlan {
                action: Action::Refuse(Problem::new(Reason::LimitExceeded, message)),
                remove: Vec::new(),
                keep: Vec::new(),
                notes: plan.notes,
            }
        }
        _ => plan,
    }
}

/// Returns the upload of the empty blob, which every referrer needs, if the registry lacks it. It may run concurrently with everything
/// but the PUT of a manifest.
pub(in crate::engine) fn upload_empty_blob<'a>(
    context: &'a Context<'_>,
    resolution: &Resolution<'_>,
    has_referrers: bool,
) -> Upload<'a> {
    let is_needed =
        !resolution.has_empty_blob && has_referrers && context.request.mode == Mode::Attach;
    let upload = async move {
        if is_needed {
            let empty = Bytes::from_static(b"{}");
            context.in_time(context.session.put_blob(empty)).await??;
        }
        Ok(())
    };
    upload.boxed().shared()
}
