//! Tests of the selection of unwanted attachments, and of the leftovers.

use super::{APP, digest, leftover, made, reference, subject, target};
use crate::api::{ImageAttachmentStatus, Reason, SignatureFormat, TargetState};
use crate::attachment::{Action, Entry, EntryKind, Problem, TargetPlan};
use crate::engine::apply::unwanted::{self, Planned, Unwanted};
use crate::engine::records::leftover::LeftoverRecord;
use crate::engine::records::table::{print_leftovers, print_targets};
use crate::engine::records::target::TargetRecord;
use crate::engine::report::leftovers::complete;
use crate::engine::request::previous::PreviousState;
use affix_registry::oci::Digest;

/// Selects the unwanted attachments of a previous status, for one target with `plan`.
fn unwanted(
    targets: &[TargetRecord],
    leftovers: &[LeftoverRecord],
    table: &[TargetRecord],
    plan: &TargetPlan,
) -> Unwanted {
    let before = ImageAttachmentStatus {
        targets: print_targets(targets),
        leftovers: print_leftovers(leftovers),
        ..ImageAttachmentStatus::default()
    };
    let previous = PreviousState::from_status(Some(&before), 1, &reference(&format!("{APP}:v1")));
    let descriptor = subject("amd64");
    let entries = ["amd64", "arm64"].map(|name| Entry {
        subject: subject(name),
        kind: EntryKind::Index,
    });
    let planned = Planned {
        subject: &descriptor.digest,
        position: 0,
        format: SignatureFormat::Bundle,
    };
    let plans = [(planned, plan)].into_iter();
    unwanted::select(&previous, table, plans, &entries)
}

fn removing(attachments: &[&str]) -> TargetPlan {
    let action = Action::Refuse(Problem::new(Reason::Progressing, "irrelevant"));
    TargetPlan {
        action,
        remove: attachments.iter().map(|name| digest(name)).collect(),
        keep: Vec::new(),
        notes: Vec::new(),
    }
}

#[test]
fn an_unwanted_attachment_is_removed_only_once_the_new_one_is_attached() {
    let before = || vec![made("amd64", "old", TargetState::Attached)];
    for (state, removed) in [
        (TargetState::Attached, true),
        (TargetState::Failed, false),
        (TargetState::Pending, false),
    ] {
        let table = [made("amd64", "new", state)];
        let unwanted = unwanted(&before(), &[], &table, &removing(&["old"]));
        let remove: Vec<Digest> = unwanted
            .remove
            .into_iter()
            .map(|(_, owned)| owned.attachment)
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
            "{state:?}: no record is lost"
        );
    }
}

#[test]
fn a_desired_attachment_stays_and_an_unlisted_one_is_looked_up() {
    let table = [made("amd64", "mark", TargetState::Attached)];
    let unwanted = unwanted(
        &table,
        &[leftover("amd64", "lost", Reason::Progressing)],
        &table,
        &removing(&[]),
    );
    assert!(unwanted.remove.is_empty() && unwanted.kept.is_empty());
    assert_eq!(
        unwanted
            .unlisted
            .into_iter()
            .map(|(_, owned)| owned.attachment)
            .collect::<Vec<_>>(),
        [digest("lost")]
    );
}

#[test]
fn a_deselected_platform_loses_its_attachment_once_all_others_are_attached() {
    let before = || {
        vec![
            made("amd64", "a", TargetState::Attached),
            made("arm64", "b", TargetState::Attached),
        ]
    };
    for (state, removed) in [(TargetState::Attached, 1), (TargetState::Failed, 0)] {
        let table = [
            made("amd64", "a", state),
            target(
                "arm64",
                TargetState::Skipped,
                Some(Reason::PlatformNotSelected),
            ),
        ];
        let unwanted = unwanted(&before(), &[], &table, &removing(&[]));
        assert_eq!(
            (unwanted.remove.len(), unwanted.kept.len()),
            (removed, 1 - removed),
            "{state:?}"
        );
    }
}

#[test]
fn an_attachment_on_a_superseded_image_stays_a_leftover() {
    let table = [made("amd64", "new", TargetState::Attached)];
    let unwanted = unwanted(
        &[made("left", "mark", TargetState::Attached)],
        &[],
        &table,
        &removing(&[]),
    );
    assert!(unwanted.remove.is_empty() && unwanted.unlisted.is_empty());
    assert_eq!(unwanted.kept, [leftover("left", "mark", Reason::TagMoved)]);
}

#[test]
fn the_newest_sixty_four_superseded_subjects_and_all_other_leftovers_are_kept() {
    let retained: Vec<LeftoverRecord> = (0..80)
        .map(|nth| leftover(&format!("s{nth}"), &format!("a{nth}"), Reason::TagMoved))
        .collect();
    let refused = leftover("refused", "refused", Reason::RemovalRefused);
    let before = ImageAttachmentStatus {
        leftovers: print_leftovers(
            &std::iter::once(refused.clone())
                .chain(retained.clone())
                .collect::<Vec<_>>(),
        ),
        ..ImageAttachmentStatus::default()
    };
    let previous = PreviousState::from_status(Some(&before), 1, &reference(&format!("{APP}:v1")));
    let mut leftovers = Vec::new();
    complete(&previous, &[], &mut leftovers, &[digest("a79")]);
    let expected: Vec<LeftoverRecord> = std::iter::once(refused)
        .chain(retained[15..79].to_vec())
        .collect();
    assert_eq!(leftovers, expected);
}
