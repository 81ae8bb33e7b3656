//! Tests of the records of all targets: their bounds, and the data that a failure keeps.

use super::{made, target};
use crate::api::{Reason, TargetKind, TargetState};
use crate::engine::failure::Failure;
use crate::engine::records::table::{bound, fit_earlier, tally};
use crate::engine::records::target::TargetRecord;

#[test]
fn earlier_records_fit_beside_new_ones_and_manifests_in_use_stay_longest() {
    let rows: Vec<TargetRecord> = (0..100)
        .map(|nth| target(&format!("new{nth}"), TargetState::Attached, None))
        .collect();
    let in_use = |nth: usize| {
        target(
            &format!("v{nth}"),
            TargetState::Skipped,
            Some(Reason::StillInUse),
        )
    };
    let root = TargetRecord {
        kind: TargetKind::Index,
        ..in_use(1000)
    };
    let few: Vec<TargetRecord> = [
        target("old", TargetState::Attached, None),
        root.clone(),
        in_use(1),
    ]
    .into();
    let mut earlier = few.clone();
    fit_earlier(&mut earlier, &rows);
    assert_eq!(earlier, few, "records that fit are unchanged");
    earlier.extend((2..60).map(in_use));
    fit_earlier(&mut earlier, &rows);
    assert_eq!(earlier, (1..57).map(in_use).collect::<Vec<_>>());
    let mut all: Vec<TargetRecord> = rows.into_iter().chain(earlier).collect();
    all.extend((0..300).map(|nth| {
        target(
            &format!("other{nth}"),
            TargetState::Skipped,
            Some(Reason::PlatformNotSelected),
        )
    }));
    bound(&mut all);
    assert!(all.len() <= 256, "{}", all.len());
}

#[test]
fn at_most_a_hundred_skipped_records_are_kept_and_manifests_in_use_first() {
    let skip =
        |nth: usize, reason: Reason| target(&format!("v{nth}"), TargetState::Skipped, Some(reason));
    let mut rows: Vec<TargetRecord> = (0..150)
        .map(|nth| skip(nth, Reason::PlatformNotSelected))
        .collect();
    rows.insert(0, target("amd64", TargetState::Attached, None));
    rows.extend((200..230).map(|nth| skip(nth, Reason::StillInUse)));
    assert_eq!(bound(&mut rows), 80);
    let count = |reason: Reason| rows.iter().filter(|row| row.reason == Some(reason)).count();
    assert_eq!(
        (
            rows.len(),
            count(Reason::StillInUse),
            count(Reason::PlatformNotSelected)
        ),
        (101, 30, 70)
    );
    assert_eq!(rows[0].state, TargetState::Attached, "the order stays");
    assert_eq!(tally(rows.iter().map(|row| row.state), 0), "1/1");
}

#[test]
fn a_failure_keeps_the_data_about_the_attachment() {
    let before = TargetRecord {
        superseded_for: Some(3),
        ..made("amd64", "mark", TargetState::Attached)
    };
    let mut now = target("amd64", TargetState::Pending, None).with_slots(
        &[crate::engine::records::slot::Slot::Referrer],
        Some(&before),
    );
    now.fail(&Failure::new(Reason::RateLimited, "HTTP 429"));
    assert_eq!(
        (now.state, now.reason, now.message.as_deref()),
        (
            TargetState::Failed,
            Some(Reason::RateLimited),
            Some("HTTP 429")
        )
    );
    let known = |row: &TargetRecord| {
        (
            row.attachment.clone(),
            row.origin,
            row.created,
            row.content.clone(),
            row.superseded_for,
        )
    };
    assert_eq!(known(&now), known(&before));
}
