//! What this resource made and does not want any more.

use super::super::memory::Memory;
use super::super::remove;
use super::{APP, digest, leftover, made, reference, row, subject};
use crate::api::{ImageAttachmentStatus, Leftover, Reason, TargetState, TargetStatus};
use crate::attachment::{Action, Entry, EntryKind, Problem, TargetPlan};
use affix_registry::oci::Digest;

/// What is to become of what `memory` says was made, for one target that `plan` is about.
fn unwanted(
    rows: Vec<TargetStatus>,
    leftovers: Vec<Leftover>,
    table: &[TargetStatus],
    plan: &TargetPlan,
) -> remove::Unwanted {
    let before = ImageAttachmentStatus {
        targets: rows,
        leftovers,
        ..ImageAttachmentStatus::default()
    };
    let memory = Memory::of(Some(&before), 1, &reference(&format!("{APP}:v1")));
    let target = subject("amd64");
    let entries = ["amd64", "arm64"].map(|name| Entry {
        subject: subject(name),
        kind: EntryKind::Index,
    });
    remove::unwanted(&memory, table, [((&target, 0), plan)].into_iter(), &entries)
}

fn removing(attachments: &[&str]) -> TargetPlan {
    let action = Action::Refuse(Problem::new(Reason::Progressing, "of no matter here"));
    TargetPlan {
        action,
        remove: attachments.iter().map(|name| digest(name)).collect(),
        notes: Vec::new(),
    }
}

#[test]
fn what_is_no_longer_wanted_goes_only_once_the_new_is_attached() {
    let before = || vec![made("amd64", "old", TargetState::Attached)];
    for (state, removed) in [
        (TargetState::Attached, true),
        (TargetState::Failed, false),
        (TargetState::Pending, false),
    ] {
        let table = [made("amd64", "new", state)];
        let unwanted = unwanted(before(), Vec::new(), &table, &removing(&["old"]));
        let remove: Vec<Digest> = unwanted
            .remove
            .into_iter()
            .map(|(_, attachment)| attachment)
            .collect();
        assert_eq!(
            remove,
            if removed {
                vec![digest("old")]
            } else {
                Vec::new()
            },
            "{state:?}"
        );
        assert_eq!(
            unwanted.kept.len(),
            usize::from(!removed),
            "{state:?}: nothing is forgotten"
        );
    }
}

#[test]
fn what_is_wanted_stays_and_what_is_not_listed_is_looked_for() {
    let table = [made("amd64", "mark", TargetState::Attached)];
    let unwanted = unwanted(
        table.to_vec(),
        vec![leftover("amd64", "lost", Reason::Progressing)],
        &table,
        &removing(&[]),
    );
    assert!(unwanted.remove.is_empty() && unwanted.kept.is_empty());
    assert_eq!(
        unwanted
            .unlisted
            .into_iter()
            .map(|(_, attachment)| attachment)
            .collect::<Vec<_>>(),
        [digest("lost")]
    );
}

#[test]
fn a_platform_that_is_selected_no_more_loses_ours_once_all_others_are_attached() {
    let before = || {
        vec![
            made("amd64", "a", TargetState::Attached),
            made("arm64", "b", TargetState::Attached),
        ]
    };
    for (state, removed) in [(TargetState::Attached, 1), (TargetState::Failed, 0)] {
        let table = [
            made("amd64", "a", state),
            row(
                "arm64",
                TargetState::Skipped,
                Some(Reason::PlatformNotSelected),
            ),
        ];
        let unwanted = unwanted(before(), Vec::new(), &table, &removing(&[]));
        assert_eq!(
            (unwanted.remove.len(), unwanted.kept.len()),
            (removed, 1 - removed),
            "{state:?}"
        );
    }
}

#[test]
fn what_is_on_an_image_that_the_tag_has_left_stays_and_is_remembered() {
    let table = [made("amd64", "new", TargetState::Attached)];
    let unwanted = unwanted(
        vec![made("left", "mark", TargetState::Attached)],
        Vec::new(),
        &table,
        &removing(&[]),
    );
    assert!(unwanted.remove.is_empty() && unwanted.unlisted.is_empty());
    assert_eq!(unwanted.kept, [leftover("left", "mark", Reason::TagMoved)]);
}

#[test]
fn of_images_left_sixty_four_are_remembered_the_newest_and_other_leftovers_all() {
    let resting: Vec<Leftover> = (0..80)
        .map(|nth| leftover(&format!("s{nth}"), &format!("a{nth}"), Reason::TagMoved))
        .collect();
    let refused = leftover("refused", "refused", Reason::RemovalRefused);
    let before = ImageAttachmentStatus {
        leftovers: std::iter::once(refused.clone())
            .chain(resting.clone())
            .collect(),
        ..ImageAttachmentStatus::default()
    };
    let memory = Memory::of(Some(&before), 1, &reference(&format!("{APP}:v1")));
    let mut leftovers = Vec::new();
    remove::remember(&memory, &[], &mut leftovers, &[digest("a79")]);
    let expected: Vec<Leftover> = std::iter::once(refused)
        .chain(resting[15..79].to_vec())
        .collect();
    assert_eq!(leftovers, expected);
}
