//! Tests of the verdict: the Ready condition and its causes.

use super::{leftover, target};
use crate::api::{Reason, TargetState};
use crate::engine::apply::dry_run;
use crate::engine::failure::Failure;
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::table::print_targets;
use crate::engine::records::target::TargetRecord;
use crate::engine::report::outcome::Outcome;
use crate::engine::report::verdict::Verdict;

#[test]
fn a_verdict_is_attached_partial_or_the_first_cause() {
    use TargetState::{Attached, Failed, Pending, Skipped};
    let failed = |name: &str, reason: Reason| {
        let mut record = target(name, Failed, None);
        record.fail(&Failure::new(reason, format_args!("HTTP 4xx for {name}")));
        record
    };
    for (rows, ready, reason, message) in [
        (
            vec![
                target("amd64", Attached, None),
                target("s390x", Skipped, None),
            ],
            true,
            Reason::Attached,
            "1 target attached",
        ),
        (vec![], true, Reason::Attached, "0 targets attached"),
        (
            vec![
                target("amd64", Attached, None),
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
            vec![
                target("amd64", Attached, None),
                target("arm64", Pending, None),
            ],
            false,
            Reason::PartiallyAttached,
            "1 of 2 targets attached; the registry does not list yet: linux/arm64",
        ),
        (
            vec![
                target("amd64", Attached, None),
                target("s390x", Pending, None),
                failed("arm64", Reason::AccessDenied),
            ],
            false,
            Reason::PartiallyAttached,
            "1 of 3 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64; the registry does not list yet: linux/s390x",
        ),
        (
            vec![
                target("amd64", Attached, None),
                target("s390x", TargetState::Planned, None),
                failed("arm64", Reason::AccessDenied),
            ],
            false,
            Reason::PartiallyAttached,
            "1 of 3 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64",
        ),
        (
            vec![target("arm64", Pending, None)],
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
fn one_cause_of_all_targets_is_reported_once_and_many_causes_are_counted() {
    let fail = |name: &str, message: &str| {
        let mut record = target(name, TargetState::Failed, None);
        record.fail(&Failure::new(Reason::KeyInvalid, message));
        record
    };
    let same: Vec<TargetRecord> = ["a", "b", "c"]
        .map(|name| fail(name, "the password is wrong"))
        .into();
    assert_eq!(Verdict::over(&same, None).message, "the password is wrong");
    let many: Vec<TargetRecord> = (0..9)
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
fn only_transient_causes_are_retried_soon() {
    let outcome = |verdict: Verdict, rows: Vec<TargetRecord>| Outcome {
        verdict,
        rows: Some(print_targets(&rows)),
        ..Outcome::unchanged()
    };
    let over = |rows: Vec<TargetRecord>| outcome(Verdict::over(&rows, None), rows);
    let with = |reason: Reason| {
        vec![
            target("amd64", TargetState::Attached, None),
            target("arm64", TargetState::Failed, Some(reason)),
        ]
    };
    for (outcome, hurried) in [
        (
            over(vec![target("amd64", TargetState::Attached, None)]),
            false,
        ),
        (
            over(vec![target("amd64", TargetState::Pending, None)]),
            true,
        ),
        (
            over(vec![target(
                "amd64",
                TargetState::Failed,
                Some(Reason::NotFound),
            )]),
            true,
        ),
        (
            over(vec![target(
                "amd64",
                TargetState::Failed,
                Some(Reason::Conflict),
            )]),
            false,
        ),
        (
            over(vec![target(
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
fn a_pending_removal_is_open_work_and_a_refused_one_matters_if_readers_act_on_it() {
    let ready = || Verdict::over(&[target("amd64", TargetState::Attached, None)], None);
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
            let verdict = ready().with_leftovers(&left, |_| speaks, 3);
            assert_eq!(
                (verdict.reason, verdict.ready),
                (expected, expected == Reason::Attached),
                "{reason}: {verdict:?}"
            );
            assert!(!verdict.message.is_empty());
        }
        let failed = Verdict::failed(&Failure::new(Reason::NotFound, "404"));
        assert_eq!(
            failed.clone().with_leftovers(&left, |_| true, 3),
            failed,
            "the cause of a target is reported first"
        );
    }
}

#[test]
fn a_refused_removal_names_every_leftover_that_matters_and_the_ways_out() {
    let ready = Verdict::over(&[target("amd64", TargetState::Attached, None)], None);
    let left = ["one", "two", "old"].map(|name| leftover("amd64", name, Reason::RemovalRefused));
    let old = left[2].attachment.clone();
    let verdict = ready.with_leftovers(&left, |leftover| leftover.attachment != old, 3);
    assert_eq!(verdict.reason, Reason::RemovalRefused);
    let message = &verdict.message;
    for part in [
        "2 attachments",
        "let it delete manifests",
        "affix.dev/accept-leftovers: \"3\"",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let is_named = |leftover: &LeftoverRecord| message.contains(&leftover.attachment.hex()[..12]);
    assert_eq!(
        left.iter().map(is_named).collect::<Vec<_>>(),
        [true, true, false],
        "{message}"
    );
}

#[test]
fn a_dry_run_is_never_ready_and_reports_the_planned_changes() {
    use TargetState::{Attached, Failed, Planned};
    let over = |rows: &[TargetRecord], leftovers: &[LeftoverRecord]| {
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
            vec![target("amd64", Attached, None)],
            &gone[1..],
            "dry run: nothing to do: 1 target attached",
        ),
        (
            vec![target("amd64", Attached, None)],
            &gone,
            "dry run: 1 attachment would be removed",
        ),
        (
            vec![
                target("amd64", Attached, None),
                target("arm64", Planned, None),
            ],
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
            target("amd64", Failed, Some(Reason::Conflict)),
            target("arm64", Planned, None),
        ],
        &[],
    );
    assert_eq!(
        verdict.reason,
        Reason::Conflict,
        "an impossible plan reports its cause"
    );
}
