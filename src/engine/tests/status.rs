//! Tests of the status after an outcome.

use super::{APP, image, made, now, target};
use crate::api::{
    ConditionType, ImageAttachment, ImageAttachmentStatus, Reason, TargetKind, TargetState,
    check_status_rules, find_condition,
};
use crate::engine::failure::Failure;
use crate::engine::journal::Draft;
use crate::engine::records::table::print_targets;
use crate::engine::report::outcome::Outcome;
use crate::engine::report::status::{status, status_in_progress};
use crate::engine::report::verdict::Verdict;

#[test]
fn the_status_of_every_outcome_follows_the_rules_and_has_its_reason() {
    let failed = |reason| Outcome::failed(&Failure::new(reason, "because"));
    let rows = vec![made("amd64", "a", TargetState::Attached)];
    let attached = Outcome {
        verdict: Verdict::over(&rows, None),
        rows: Some(print_targets(&rows)),
        ..Outcome::unchanged()
    };
    let outcomes = Reason::ALL.iter().filter(|reason| {
        !Reason::READY.contains(reason) && **reason != Reason::ProgressingWithRetry
    });
    let outcomes: Vec<Outcome> = outcomes
        .map(|reason| failed(*reason))
        .chain([attached])
        .collect();
    for first in &outcomes {
        for second in &outcomes {
            let before = status(&ImageAttachmentStatus::default(), first, 1, now());
            let after = status(&before, second, 2, now());
            let mut object = ImageAttachment::new(
                "x",
                crate::api::ImageAttachmentSpec::new(format!("{APP}:v1")),
            );
            object.metadata.generation = Some(2);
            object.status = Some(after.clone());
            assert_eq!(
                check_status_rules(&object),
                Vec::<String>::new(),
                "{:?}, then {:?}",
                first.verdict,
                second.verdict
            );
            let ready = find_condition(&after.conditions, ConditionType::Ready).unwrap();
            assert_eq!(ready.reason, second.verdict.reason.as_str());
            let stalled = find_condition(&after.conditions, ConditionType::Stalled).is_some();
            assert_eq!(
                stalled,
                second.verdict.reason.is_stalled(),
                "{:?}",
                second.verdict
            );
        }
    }
}

#[test]
fn an_unchanged_pass_leaves_status_as_it_is() {
    let outcome = Outcome {
        image: Some(image(APP, Some("v1"), "image")),
        verdict: Verdict::over(&[target("amd64", TargetState::Attached, None)], None),
        rows: Some(print_targets(&[made("amd64", "a", TargetState::Attached)])),
        resolved: Ok(vec![
            "the excluded platform \"linux/386\" matches no entry".to_owned(),
        ]),
        ..Outcome::unchanged()
    };
    let before = status(&ImageAttachmentStatus::default(), &outcome, 1, now());
    let later = now()
        .checked_add(k8s_openapi::jiff::SignedDuration::from_hours(1))
        .unwrap();
    assert_eq!(status(&before, &Outcome::unchanged(), 1, later), before);
}

#[test]
fn the_status_before_a_push_names_the_attachment_and_is_not_ready() {
    let image = image(APP, Some("v1"), "image");
    let targets = [made("amd64", "a", TargetState::Pending)];
    let draft = Draft {
        image: &image,
        targets: &targets,
        leftovers: &[],
        superseded: None,
        remarks: &[],
        step: "attaching",
    };
    let saved = status_in_progress(&ImageAttachmentStatus::default(), &draft, 3, now());
    assert_eq!(
        (
            saved.observed_generation,
            saved.attached.as_deref(),
            &saved.image
        ),
        (3, Some("0/1"), &Some(image.clone()))
    );
    assert_eq!(
        (saved.targets[0].kind, saved.targets[0].attachment.clone()),
        (
            TargetKind::Platform,
            targets[0].attachment.as_ref().map(ToString::to_string)
        )
    );
    let ready = find_condition(&saved.conditions, ConditionType::Ready).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "Progressing")
    );
}

#[test]
fn a_retry_keeps_the_failure_in_ready_and_changes_reconciling_only() {
    let image = image(APP, Some("v1"), "image");
    let draft = Draft {
        image: &image,
        targets: &[made("amd64", "a", TargetState::Pending)],
        leftovers: &[],
        superseded: None,
        remarks: &[],
        step: "attaching",
    };
    let problem = Failure::new(Reason::RegistryUnavailable, "HTTP 503");
    let failed = status(
        &ImageAttachmentStatus::default(),
        &Outcome::failed(&problem),
        1,
        now(),
    );
    let condition = |status: &ImageAttachmentStatus, kind| {
        find_condition(&status.conditions, kind).cloned().unwrap()
    };
    let retried = status_in_progress(&failed, &draft, 1, now());
    assert_eq!(
        condition(&retried, ConditionType::Ready),
        condition(&failed, ConditionType::Ready)
    );
    let reconciling = condition(&retried, ConditionType::Reconciling);
    assert_eq!(
        (reconciling.reason.as_str(), reconciling.message.as_str()),
        ("ProgressingWithRetry", "attaching")
    );
    // A changed spec is another matter.
    let changed = status_in_progress(&failed, &draft, 2, now());
    assert_eq!(
        condition(&changed, ConditionType::Ready).reason,
        "Progressing"
    );
}
