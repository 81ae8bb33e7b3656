//! Ready, and why.

use super::super::dry_run;
use super::super::failure::Failure;
use super::super::outcome::{Outcome, Verdict};
use super::super::rows;
use super::{leftover, row};
use crate::api::{Leftover, Reason, TargetState, TargetStatus};

#[test]
fn a_verdict_is_attached_partial_or_the_first_cause() {
    use TargetState::{Attached, Failed, Pending, Skipped};
    let failed = |name: &str, reason: Reason| {
        let mut row = row(name, Failed, None);
        rows::fail(
            &mut row,
            &Failure::new(reason, format_args!("HTTP 4xx for {name}")),
        );
        row
    };
    for (rows, ready, reason, message) in [
        (
            vec![row("amd64", Attached, None), row("s390x", Skipped, None)],
            true,
            Reason::Attached,
            "1 target attached",
        ),
        (vec![], true, Reason::Attached, "0 targets attached"),
        (
            vec![
                row("amd64", Attached, None),
                failed("arm64", Reason::AccessDenied),
            ],
            false,
            Reason::PartiallyAttached,
            "1 of 2 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64",
        ),
        (
            vec![
                failed("amd64", Reason::NotFound),
                failed("arm64", Reason::AccessDenied),
            ],
            false,
            Reason::NotFound,
            "linux/amd64: NotFound: HTTP 4xx for amd64; linux/arm64: AccessDenied: HTTP 4xx for arm64",
        ),
        (
            vec![row("amd64", Attached, None), row("arm64", Pending, None)],
            false,
            Reason::PartiallyAttached,
            "1 of 2 targets attached; the registry does not list yet: linux/arm64",
        ),
        (
            vec![
                row("amd64", Attached, None),
                row("s390x", Pending, None),
                failed("arm64", Reason::AccessDenied),
            ],
            false,
            Reason::PartiallyAttached,
            "1 of 3 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64; the registry does not list yet: linux/s390x",
        ),
        (
            vec![
                row("amd64", Attached, None),
                row("s390x", TargetState::Planned, None),
                failed("arm64", Reason::AccessDenied),
            ],
            false,
            Reason::PartiallyAttached,
            "1 of 3 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64",
        ),
        (
            vec![row("arm64", Pending, None)],
            false,
            Reason::Progressing,
            "0 of 1 target attached; the registry does not list yet: linux/arm64",
        ),
    ] {
        let verdict = Verdict::over(&rows, None);
        assert_eq!(
            (verdict.ready, verdict.reason, verdict.message.as_str()),
            (ready, reason, message)
        );
    }
}

#[test]
fn one_cause_for_all_targets_is_said_once_and_many_causes_are_counted() {
    let fail = |name: &str, message: &str| {
        let mut row = row(name, TargetState::Failed, None);
        rows::fail(&mut row, &Failure::new(Reason::KeyInvalid, message));
        row
    };
    let same: Vec<TargetStatus> = ["a", "b", "c"]
        .map(|name| fail(name, "the password is wrong"))
        .into();
    assert_eq!(Verdict::over(&same, None).message, "the password is wrong");
    let many: Vec<TargetStatus> = (0..9)
        .map(|nth| fail(&format!("v{nth}"), &format!("cause {nth}")))
        .collect();
    assert!(
        Verdict::over(&many, None)
            .message
            .ends_with("cause 3; and 5 more"),
        "{}",
        Verdict::over(&many, None).message
    );
}

#[test]
fn only_what_time_can_mend_is_tried_again_soon() {
    let outcome = |verdict: Verdict, rows: Vec<TargetStatus>| Outcome {
        verdict,
        rows: Some(rows),
        ..Outcome::unchanged(Vec::new())
    };
    let over = |rows: Vec<TargetStatus>| outcome(Verdict::over(&rows, None), rows);
    let with = |reason: Reason| {
        vec![
            row("amd64", TargetState::Attached, None),
            row("arm64", TargetState::Failed, Some(reason)),
        ]
    };
    for (outcome, hurried) in [
        (over(vec![row("amd64", TargetState::Attached, None)]), false),
        (over(vec![row("amd64", TargetState::Pending, None)]), true),
        (
            over(vec![row(
                "amd64",
                TargetState::Failed,
                Some(Reason::NotFound),
            )]),
            true,
        ),
        (
            over(vec![row(
                "amd64",
                TargetState::Failed,
                Some(Reason::Conflict),
            )]),
            false,
        ),
        (
            over(vec![row(
                "amd64",
                TargetState::Failed,
                Some(Reason::ImmutableTag),
            )]),
            false,
        ),
        (over(with(Reason::RegistryUnavailable)), true),
        (over(with(Reason::Conflict)), false),
        (over(with(Reason::ManifestRejected)), false),
        (
            outcome(
                Verdict::failed(&Failure::new(Reason::RemovalRefused, "405")),
                vec![],
            ),
            false,
        ),
        (
            outcome(
                Verdict::failed(&Failure::new(Reason::SecretNotFound, "no Secret")),
                vec![],
            ),
            true,
        ),
        (
            outcome(
                Verdict::failed(&Failure::new(Reason::InvalidSpec, "bad")),
                vec![],
            ),
            false,
        ),
    ] {
        assert_eq!(outcome.is_hurried(), hurried, "{:?}", outcome.verdict);
    }
}

#[test]
fn what_a_passing_cause_left_is_work_to_be_done_and_what_is_refused_matters_where_readers_act_on_it()
 {
    let ready = || Verdict::over(&[row("amd64", TargetState::Attached, None)], None);
    for (reason, speaking, silent) in [
        (
            Reason::RegistryUnavailable,
            Reason::RegistryUnavailable,
            Reason::RegistryUnavailable,
        ),
        (
            Reason::AccessDenied,
            Reason::AccessDenied,
            Reason::AccessDenied,
        ),
        (
            Reason::Progressing,
            Reason::Progressing,
            Reason::Progressing,
        ),
        (
            Reason::RemovalRefused,
            Reason::RemovalRefused,
            Reason::Attached,
        ),
        (
            Reason::ImmutableTag,
            Reason::RemovalRefused,
            Reason::Attached,
        ),
        (Reason::TagMoved, Reason::Attached, Reason::Attached),
        (Reason::StillInUse, Reason::Attached, Reason::Attached),
    ] {
        let left = [leftover("amd64", "old", reason)];
        for (speaks, expected) in [(true, speaking), (false, silent)] {
            let verdict = ready().but_for(&left, speaks);
            assert_eq!(
                (verdict.reason, verdict.ready),
                (expected, expected == Reason::Attached),
                "{reason}: {verdict:?}"
            );
            assert!(!verdict.message.is_empty());
        }
        let failed = Verdict::failed(&Failure::new(Reason::NotFound, "404"));
        assert_eq!(
            failed.clone().but_for(&left, true),
            failed,
            "what a target lacks is said first"
        );
    }
}

#[test]
fn a_dry_run_is_never_ready_and_says_what_would_be_done() {
    use TargetState::{Attached, Failed, Planned};
    let over = |rows: &[TargetStatus], leftovers: &[Leftover]| {
        dry_run::verdict(Verdict::over(rows, None), rows, leftovers)
    };
    let gone = [
        leftover("amd64", "old", Reason::Planned),
        leftover("other", "kept", Reason::TagMoved),
    ];
    for (rows, leftovers, message) in [
        (
            vec![],
            &gone[..0],
            "dry run: nothing to do: 0 targets attached",
        ),
        (
            vec![row("amd64", Attached, None)],
            &gone[1..],
            "dry run: nothing to do: 1 target attached",
        ),
        (
            vec![row("amd64", Attached, None)],
            &gone,
            "dry run: 1 attachment would be removed",
        ),
        (
            vec![row("amd64", Attached, None), row("arm64", Planned, None)],
            &gone,
            "dry run: 1 of 2 targets would be attached; 1 attachment would be removed",
        ),
    ] {
        let verdict = over(&rows, leftovers);
        assert_eq!(
            (verdict.ready, verdict.reason, verdict.message.as_str()),
            (false, Reason::Planned, message)
        );
    }
    let verdict = over(
        &[
            row("amd64", Failed, Some(Reason::Conflict)),
            row("arm64", Planned, None),
        ],
        &[],
    );
    assert_eq!(
        verdict.reason,
        Reason::Conflict,
        "a plan that cannot be carried out says why"
    );
}
