#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

use super::*;

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOON: &str = "2026-11-23T12:00:00Z";

#[test]
fn a_move_is_dated_when_it_is_seen_and_only_once() {
    let history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
    assert_eq!(
        (history.len(), history[0].digest.clone()),
        (1, digest("a").to_string())
    );
    let later = observe(
        &history,
        Some(&digest("z")),
        &digest("z"),
        &[digest("a")],
        at("2026-11-23T13:00:00Z"),
    );
    assert_eq!(later, history);
    assert_eq!(
        date_of(&history[0], Duration::from_secs(720 * 3600)).as_str(),
        "2026-12-23T12:00:00Z"
    );
}

#[test]
fn a_move_back_before_it_has_settled_is_removed() {
    let history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
    let ten = Duration::from_secs(600);
    assert!(
        !is_settled(&history[0], ten, at("2026-11-23T12:09:59Z"))
            && is_settled(&history[0], ten, at("2026-11-23T12:10:00Z"))
    );
    let back = observe(
        &history,
        Some(&digest("z")),
        &digest("a"),
        &[],
        at("2026-11-23T12:05:00Z"),
    );
    assert_eq!(
        back.iter()
            .map(|left| left.digest.clone())
            .collect::<Vec<_>>(),
        [digest("z").to_string()]
    );
}

#[test]
fn a_finished_move_stays_settled_if_the_spec_changes_to_a_longer_wait() {
    let mut history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
    let day = Duration::from_secs(24 * 3600);
    assert!(!is_settled(&history[0], day, at(NOON)));
    conclude(&mut history[0], SupersededState::Attached, None);
    assert!(is_settled(&history[0], day, at(NOON)));
}

#[test]
fn a_date_once_fixed_does_not_follow_a_changed_grace_period() {
    let mut history = observe(&[], Some(&digest("a")), &digest("z"), &[], at(NOON));
    history[0].date = Some("2027-01-01T00:00:00Z".to_owned());
    assert_eq!(
        date_of(&history[0], Duration::ZERO).as_str(),
        "2027-01-01T00:00:00Z"
    );
}

#[test]
fn the_history_is_bounded_and_drops_finished_moves_first() {
    let mut history = Vec::new();
    for nth in 0..80 {
        history = observe(
            &history,
            Some(&digest(&format!("{nth}"))),
            &digest("z"),
            &[],
            at(NOON),
        );
        if nth == 3 {
            conclude(&mut history[3], SupersededState::Attached, None);
        }
    }
    assert_eq!(history.len(), MAX_MOVES);
    assert!(
        !history
            .iter()
            .any(|left| left.digest == digest("3").to_string())
    );
}

#[test]
fn only_unfinished_moves_that_the_history_dropped_are_reported() {
    let full = |state| {
        let mut history = Vec::new();
        for nth in 0..MAX_MOVES {
            history = observe(
                &history,
                Some(&digest(&format!("{nth}"))),
                &digest("z"),
                &[],
                at(NOON),
            );
        }
        conclude(&mut history[0], state, None);
        history
    };
    for (state, expected) in [
        (SupersededState::Pending, vec![digest("0")]),
        (SupersededState::Attached, vec![]),
    ] {
        let before = full(state);
        let after = observe(&before, Some(&digest("z")), &digest("5"), &[], at(NOON));
        assert!(
            forgotten(&before, &after, &digest("5")).next().is_none(),
            "the tag names the image that is missing in the history"
        );
        let after = observe(&before, Some(&digest("z")), &digest("y"), &[], at(NOON));
        let forgotten: Vec<&str> = forgotten(&before, &after, &digest("y"))
            .map(|left| left.digest.as_str())
            .collect();
        assert_eq!(
            forgotten,
            expected.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "{state:?}"
        );
    }
}

#[test]
fn a_manifest_of_several_images_gets_the_date_of_the_last_move() {
    let (first, second): (EndOfLifeDate, EndOfLifeDate) =
        ("2026-01-01".parse().unwrap(), "2026-02-01".parse().unwrap());
    let one = BTreeSet::from([digest("a"), digest("b"), digest("c"), digest("d")]);
    let two = BTreeSet::from([digest("z"), digest("c"), digest("d")]);
    let dispositions = dispositions(
        [(&first, &one), (&second, &two)],
        &BTreeSet::from([digest("d")]),
    );
    assert_eq!(dispositions[&digest("b")], Disposition::Mark(first));
    assert_eq!(dispositions[&digest("c")], Disposition::Mark(second));
    assert_eq!(dispositions[&digest("d")], Disposition::StillInUse);
}

#[test]
fn an_image_in_use_leaves_a_full_history_after_the_marked_ones() {
    let mut history = Vec::new();
    for nth in 0..=MAX_MOVES {
        history = observe(
            &history,
            Some(&digest(&format!("{nth}"))),
            &digest("z"),
            &[],
            at(NOON),
        );
        match nth {
            2 => conclude(&mut history[2], SupersededState::StillInUse, None),
            3 => conclude(&mut history[3], SupersededState::Attached, None),
            _ => {}
        }
    }
    let has = |history: &[Superseded], name: &str| {
        history
            .iter()
            .any(|left| left.digest == digest(name).to_string())
    };
    assert!(has(&history, "2") && !has(&history, "3"));
    let after = observe(&history, Some(&digest("y")), &digest("z"), &[], at(NOON));
    assert!(!has(&after, "2"));
    let lost: Vec<&str> = forgotten(&history, &after, &digest("z"))
        .map(|left| left.digest.as_str())
        .collect();
    assert_eq!(lost, [digest("2").to_string()]);
}
