//! The rows of status: which stay, and what a failure leaves of them.

use super::super::failure::Failure;
use super::super::rows;
use super::{made, row};
use crate::api::{Reason, TargetKind, TargetState, TargetStatus};

#[test]
fn rows_of_earlier_passes_fit_beside_new_ones_and_what_is_in_use_stays_longest() {
    let rows: Vec<TargetStatus> = (0..100)
        .map(|nth| row(&format!("new{nth}"), TargetState::Attached, None))
        .collect();
    let in_use = |nth: usize| {
        row(
            &format!("v{nth}"),
            TargetState::Skipped,
            Some(Reason::StillInUse),
        )
    };
    let root = TargetStatus {
        kind: TargetKind::Index,
        ..in_use(1000)
    };
    let few: Vec<TargetStatus> = [
        row("old", TargetState::Attached, None),
        root.clone(),
        in_use(1),
    ]
    .into();
    let mut earlier = few.clone();
    rows::fit(&mut earlier, &rows);
    assert_eq!(earlier, few, "what fits stays as it is");
    earlier.extend((2..60).map(in_use));
    rows::fit(&mut earlier, &rows);
    assert_eq!(earlier, (1..57).map(in_use).collect::<Vec<_>>());
    let mut all: Vec<TargetStatus> = rows.into_iter().chain(earlier).collect();
    all.extend((0..300).map(|nth| {
        row(
            &format!("other{nth}"),
            TargetState::Skipped,
            Some(Reason::PlatformNotSelected),
        )
    }));
    rows::bound(&mut all);
    assert!(all.len() <= 256, "{}", all.len());
}

#[test]
fn rows_show_at_most_a_hundred_skipped_and_what_is_in_use_before_all_others() {
    let skip =
        |nth: usize, reason: Reason| row(&format!("v{nth}"), TargetState::Skipped, Some(reason));
    let mut rows: Vec<TargetStatus> = (0..150)
        .map(|nth| skip(nth, Reason::PlatformNotSelected))
        .collect();
    rows.insert(0, row("amd64", TargetState::Attached, None));
    rows.extend((200..230).map(|nth| skip(nth, Reason::StillInUse)));
    assert_eq!(rows::bound(&mut rows), 80);
    let count = |reason: Reason| {
        rows.iter()
            .filter(|row| row.reason.as_deref() == Some(reason.as_str()))
            .count()
    };
    assert_eq!(
        (
            rows.len(),
            count(Reason::StillInUse),
            count(Reason::PlatformNotSelected)
        ),
        (101, 30, 70)
    );
    assert_eq!(rows[0].state, TargetState::Attached, "the order stays");
    assert_eq!(rows::tally(&rows, 0), "1/1");
}

#[test]
fn a_failure_forgets_nothing_that_is_known_of_an_attachment() {
    let before = TargetStatus {
        superseded_for: Some(3),
        ..made("amd64", "mark", TargetState::Attached)
    };
    let mut now = rows::known(row("amd64", TargetState::Pending, None), Some(&before));
    rows::fail(&mut now, &Failure::new(Reason::RateLimited, "HTTP 429"));
    assert_eq!(
        (now.state, now.reason.as_deref(), now.message.as_deref()),
        (TargetState::Failed, Some("RateLimited"), Some("HTTP 429"))
    );
    let known = |row: &TargetStatus| {
        (
            row.attachment.clone(),
            row.origin,
            row.created.clone(),
            row.content.clone(),
            row.superseded_for,
        )
    };
    assert_eq!(known(&now), known(&before));
}
