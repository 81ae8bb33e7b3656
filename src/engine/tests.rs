//! The pure parts of a pass: rows, verdicts, what status remembers, and what is left to remove.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics fails, as it should")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::dry_run;
use super::failure::Failure;
use super::memory::Memory;
use super::outcome::{Outcome, Verdict};
use super::pass::Draft;
use super::remove;
use super::rows;
use super::status::{status, status_in_progress};
use crate::api::{
    ConditionType, ImageAttachment, ImageAttachmentStatus, ImageStatus, Leftover, Origin, Reason, Superseded, TargetKind, TargetState,
    TargetStatus, check_status_rules, find_condition,
};
use crate::attachment::{Action, Entry, EntryKind, Inputs, Intent, Problem, TargetPlan};
use crate::oci::{Descriptor, Digest, Reference, media_type};

const NOON: &str = "2026-11-23T12:00:00Z";

fn now() -> Timestamp {
    NOON.parse().unwrap()
}

fn digest(name: &str) -> Digest {
    Digest::sha256(name.as_bytes())
}

fn subject(name: &str) -> Descriptor {
    Descriptor::of(media_type::OCI_MANIFEST, name.as_bytes())
}

/// A row of a platform whose digest is that of `name`.
fn row(name: &str, state: TargetState, reason: Option<Reason>) -> TargetStatus {
    let platform = format!("linux/{name}").parse().unwrap();
    let entry = Entry { subject: subject(name), kind: EntryKind::Platform(vec![platform]) };
    TargetStatus { state, reason: reason.map(|reason| reason.to_string()), ..rows::pending(&entry) }
}

/// A row with an attachment that this resource made.
fn made(name: &str, attachment: &str, state: TargetState) -> TargetStatus {
    TargetStatus {
        attachment: Some(digest(attachment).to_string()),
        origin: Some(Origin::Made),
        created: Some(Time(now())),
        content: Some(digest("content").to_string()),
        ..row(name, state, None)
    }
}

fn leftover(subject: &str, attachment: &str, reason: Reason) -> Leftover {
    remove::leftover(&digest(subject), &digest(attachment), reason, None)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn image(reference: &str, tag: Option<&str>, name: &str) -> ImageStatus {
    let digest = digest(name).to_string();
    ImageStatus { reference: format!("{reference}@{digest}"), digest, tag: tag.map(str::to_owned), media_type: None }
}

const APP: &str = "registry.example.com/team/app";

#[test]
fn a_verdict_is_attached_partial_or_the_first_cause() {
    use TargetState::{Attached, Failed, Pending, Skipped};
    let failed = |name: &str, reason: Reason| {
        let mut row = row(name, Failed, None);
        rows::fail(&mut row, &Failure::new(reason, format_args!("HTTP 4xx for {name}")));
        row
    };
    for (rows, ready, reason, message) in [
        (vec![row("amd64", Attached, None), row("s390x", Skipped, None)], true, Reason::Attached, "1 target attached"),
        (vec![], true, Reason::Attached, "0 targets attached"),
        (
            vec![row("amd64", Attached, None), failed("arm64", Reason::AccessDenied)],
            false,
            Reason::PartiallyAttached,
            "1 of 2 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64",
        ),
        (
            vec![failed("amd64", Reason::NotFound), failed("arm64", Reason::AccessDenied)],
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
            vec![row("amd64", Attached, None), row("s390x", Pending, None), failed("arm64", Reason::AccessDenied)],
            false,
            Reason::PartiallyAttached,
            "1 of 3 targets attached; linux/arm64: AccessDenied: HTTP 4xx for arm64; the registry does not list yet: linux/s390x",
        ),
        (
            vec![row("amd64", Attached, None), row("s390x", TargetState::Planned, None), failed("arm64", Reason::AccessDenied)],
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
        assert_eq!((verdict.ready, verdict.reason, verdict.message.as_str()), (ready, reason, message));
    }
}

#[test]
fn one_cause_for_all_targets_is_said_once_and_many_causes_are_counted() {
    let fail = |name: &str, message: &str| {
        let mut row = row(name, TargetState::Failed, None);
        rows::fail(&mut row, &Failure::new(Reason::KeyInvalid, message));
        row
    };
    let same: Vec<TargetStatus> = ["a", "b", "c"].map(|name| fail(name, "the password is wrong")).into();
    assert_eq!(Verdict::over(&same, None).message, "the password is wrong");
    let many: Vec<TargetStatus> = (0..9).map(|nth| fail(&format!("v{nth}"), &format!("cause {nth}"))).collect();
    assert!(Verdict::over(&many, None).message.ends_with("cause 3; and 5 more"), "{}", Verdict::over(&many, None).message);
}

#[test]
fn only_what_time_can_mend_is_tried_again_soon() {
    let outcome = |verdict: Verdict, rows: Vec<TargetStatus>| Outcome { verdict, rows: Some(rows), ..Outcome::unchanged(Vec::new()) };
    let over = |rows: Vec<TargetStatus>| outcome(Verdict::over(&rows, None), rows);
    let with = |reason: Reason| vec![row("amd64", TargetState::Attached, None), row("arm64", TargetState::Failed, Some(reason))];
    for (outcome, hurried) in [
        (over(vec![row("amd64", TargetState::Attached, None)]), false),
        (over(vec![row("amd64", TargetState::Pending, None)]), true),
        (over(vec![row("amd64", TargetState::Failed, Some(Reason::NotFound))]), true),
        (over(vec![row("amd64", TargetState::Failed, Some(Reason::Conflict))]), false),
        (over(vec![row("amd64", TargetState::Failed, Some(Reason::ImmutableTag))]), false),
        (over(with(Reason::RegistryUnavailable)), true),
        (over(with(Reason::Conflict)), false),
        (over(with(Reason::ManifestRejected)), false),
        (outcome(Verdict::failed(&Failure::new(Reason::RemovalRefused, "405")), vec![]), false),
        (outcome(Verdict::failed(&Failure::new(Reason::SecretNotFound, "no Secret")), vec![]), true),
        (outcome(Verdict::failed(&Failure::new(Reason::InvalidSpec, "bad")), vec![]), false),
    ] {
        assert_eq!(outcome.is_hurried(), hurried, "{:?}", outcome.verdict);
    }
}

#[test]
fn what_a_passing_cause_left_is_work_to_be_done_and_what_is_refused_matters_where_readers_act_on_it() {
    let ready = || Verdict::over(&[row("amd64", TargetState::Attached, None)], None);
    for (reason, speaking, silent) in [
        (Reason::RegistryUnavailable, Reason::RegistryUnavailable, Reason::RegistryUnavailable),
        (Reason::AccessDenied, Reason::AccessDenied, Reason::AccessDenied),
        (Reason::Progressing, Reason::Progressing, Reason::Progressing),
        (Reason::RemovalRefused, Reason::RemovalRefused, Reason::Attached),
        (Reason::ImmutableTag, Reason::RemovalRefused, Reason::Attached),
        (Reason::TagMoved, Reason::Attached, Reason::Attached),
        (Reason::StillInUse, Reason::Attached, Reason::Attached),
    ] {
        let left = [leftover("amd64", "old", reason)];
        for (speaks, expected) in [(true, speaking), (false, silent)] {
            let verdict = ready().but_for(&left, speaks);
            assert_eq!((verdict.reason, verdict.ready), (expected, expected == Reason::Attached), "{reason}: {verdict:?}");
            assert!(!verdict.message.is_empty());
        }
        let failed = Verdict::failed(&Failure::new(Reason::NotFound, "404"));
        assert_eq!(failed.clone().but_for(&left, true), failed, "what a target lacks is said first");
    }
}

#[test]
fn a_dry_run_is_never_ready_and_says_what_would_be_done() {
    use TargetState::{Attached, Failed, Planned};
    let over = |rows: &[TargetStatus], leftovers: &[Leftover]| dry_run::verdict(Verdict::over(rows, None), rows, leftovers);
    let gone = [leftover("amd64", "old", Reason::Planned), leftover("other", "kept", Reason::TagMoved)];
    for (rows, leftovers, message) in [
        (vec![], &gone[..0], "dry run: nothing to do: 0 targets attached"),
        (vec![row("amd64", Attached, None)], &gone[1..], "dry run: nothing to do: 1 target attached"),
        (vec![row("amd64", Attached, None)], &gone, "dry run: 1 attachment would be removed"),
        (
            vec![row("amd64", Attached, None), row("arm64", Planned, None)],
            &gone,
            "dry run: 1 of 2 targets would be attached; 1 attachment would be removed",
        ),
    ] {
        let verdict = over(&rows, leftovers);
        assert_eq!((verdict.ready, verdict.reason, verdict.message.as_str()), (false, Reason::Planned, message));
    }
    let verdict = over(&[row("amd64", Failed, Some(Reason::Conflict)), row("arm64", Planned, None)], &[]);
    assert_eq!(verdict.reason, Reason::Conflict, "a plan that cannot be carried out says why");
}

#[test]
fn rows_of_earlier_passes_fit_beside_new_ones_and_what_is_in_use_stays_longest() {
    let rows: Vec<TargetStatus> = (0..100).map(|nth| row(&format!("new{nth}"), TargetState::Attached, None)).collect();
    let in_use = |nth: usize| row(&format!("v{nth}"), TargetState::Skipped, Some(Reason::StillInUse));
    let root = TargetStatus { kind: TargetKind::Index, ..in_use(1000) };
    let few: Vec<TargetStatus> = [row("old", TargetState::Attached, None), root.clone(), in_use(1)].into();
    let mut earlier = few.clone();
    rows::fit(&mut earlier, &rows);
    assert_eq!(earlier, few, "what fits stays as it is");
    earlier.extend((2..60).map(in_use));
    rows::fit(&mut earlier, &rows);
    assert_eq!(earlier, (1..57).map(in_use).collect::<Vec<_>>());
    let mut all: Vec<TargetStatus> = rows.into_iter().chain(earlier).collect();
    all.extend((0..300).map(|nth| row(&format!("other{nth}"), TargetState::Skipped, Some(Reason::PlatformNotSelected))));
    rows::bound(&mut all);
    assert!(all.len() <= 256, "{}", all.len());
}

#[test]
fn rows_show_at_most_a_hundred_skipped_and_what_is_in_use_before_all_others() {
    let skip = |nth: usize, reason: Reason| row(&format!("v{nth}"), TargetState::Skipped, Some(reason));
    let mut rows: Vec<TargetStatus> = (0..150).map(|nth| skip(nth, Reason::PlatformNotSelected)).collect();
    rows.insert(0, row("amd64", TargetState::Attached, None));
    rows.extend((200..230).map(|nth| skip(nth, Reason::StillInUse)));
    assert_eq!(rows::bound(&mut rows), 80);
    let count = |reason: Reason| rows.iter().filter(|row| row.reason.as_deref() == Some(reason.as_str())).count();
    assert_eq!((rows.len(), count(Reason::StillInUse), count(Reason::PlatformNotSelected)), (101, 30, 70));
    assert_eq!(rows[0].state, TargetState::Attached, "the order stays");
    assert_eq!(rows::tally(&rows, 0), "1/1");
}

#[test]
fn a_failure_forgets_nothing_that_is_known_of_an_attachment() {
    let before = TargetStatus { superseded_for: Some(3), ..made("amd64", "mark", TargetState::Attached) };
    let mut now = rows::known(row("amd64", TargetState::Pending, None), Some(&before));
    rows::fail(&mut now, &Failure::new(Reason::RateLimited, "HTTP 429"));
    assert_eq!((now.state, now.reason.as_deref(), now.message.as_deref()), (TargetState::Failed, Some("RateLimited"), Some("HTTP 429")));
    let known = |row: &TargetStatus| (row.attachment.clone(), row.origin, row.created.clone(), row.content.clone(), row.superseded_for);
    assert_eq!(known(&now), known(&before));
}

#[test]
fn memory_knows_a_target_from_its_row_and_what_is_ours_from_leftovers_too() {
    let status = ImageAttachmentStatus {
        observed_generation: 4,
        image: Some(image(APP, None, "image")),
        targets: vec![TargetStatus { superseded_for: Some(4), ..made("amd64", "new", TargetState::Attached) }],
        leftovers: vec![leftover("amd64", "old", Reason::Progressing)],
        ..ImageAttachmentStatus::default()
    };
    let memory = |generation| Memory::of(Some(&status), generation, &reference(&format!("{APP}@{}", digest("image"))));
    let known = memory(4).known(&digest("amd64"));
    assert_eq!((known.attachment, known.content, known.made), (Some(digest("new")), Some(digest("content")), true));
    assert_eq!(known.created.unwrap().to_string(), NOON);
    assert!(known.superseded && !memory(5).known(&digest("amd64")).superseded, "a new generation may outrank once more");
    assert_eq!(memory(4).ours(&digest("amd64")), [digest("new"), digest("old")].into());
    assert!(memory(4).ours(&digest("arm64")).is_empty());
}

#[test]
fn memory_tells_a_tag_that_moved_from_a_reference_that_was_edited() {
    let moves = vec![Superseded {
        digest: digest("older").to_string(),
        moved_at: Time(now()),
        date: None,
        state: TargetState::Attached,
        reason: None,
        message: None,
    }];
    let status = |tag: Option<&str>| ImageAttachmentStatus {
        image: Some(image(APP, tag, "image")),
        superseded: moves.clone(),
        targets: vec![made("amd64", "mark", TargetState::Attached)],
        ..ImageAttachmentStatus::default()
    };
    let pinned = format!("{APP}:v1@{}", digest("image"));
    for (seen, spec, followed, remembers) in [
        (Some("v1"), format!("{APP}:v1"), true, true),
        (Some("v1"), format!("{APP}:v2"), false, true),
        (Some("v1"), pinned, false, true),
        (None, format!("{APP}:v1"), false, true),
        (Some("v1"), "registry.example.com/team/other:v1".to_owned(), false, false),
    ] {
        let memory = Memory::of(Some(&status(seen)), 1, &reference(&spec));
        assert_eq!(memory.followed.is_some(), followed, "{seen:?}, then {spec}");
        assert_eq!(!memory.superseded.is_empty(), followed, "{seen:?}, then {spec}: the moves are those of the tag");
        assert_eq!(!memory.rows.is_empty(), remembers, "{seen:?}, then {spec}");
    }
}

#[test]
fn a_pass_rests_only_where_status_is_whole_and_says_what_the_spec_wants() {
    let spec = |note: &str| {
        let value = json!({"image": format!("{APP}:v1"), "artifact": {"artifactType": "application/vnd.x", "annotations": {"note": note}}});
        Intent::parse(&serde_json::from_value(value).unwrap(), &Inputs::default()).unwrap()
    };
    let intent = spec("one");
    let crate::attachment::Desired::Content { content, .. } = &intent.desired else { unreachable!() };
    let wanted = Entry { subject: subject("amd64"), kind: EntryKind::Index };
    let hash = content.for_target(&wanted).unwrap().hash().to_string();
    let outcome = Outcome {
        image: Some(image(APP, Some("v1"), "image")),
        rows: Some(vec![TargetStatus { content: Some(hash), ..made("amd64", "note", TargetState::Attached) }]),
        ..Outcome::unchanged(Vec::new())
    };
    let whole = status(&ImageAttachmentStatus::default(), &outcome, 1, now());
    let settled = |status: &ImageAttachmentStatus, generation, intent: &Intent| {
        Memory::of(Some(status), generation, &reference(&format!("{APP}:v1"))).is_settled(intent, None, now())
    };
    assert!(settled(&whole, 1, &intent));
    assert!(!settled(&whole, 2, &intent), "a changed spec");
    assert!(!settled(&whole, 1, &spec("two")), "a changed file of the same generation");
    let with = |change: &dyn Fn(&mut ImageAttachmentStatus)| {
        let mut status = whole.clone();
        change(&mut status);
        settled(&status, 1, &intent)
    };
    assert!(!with(&|status| status.targets[0].state = TargetState::Pending));
    assert!(!with(&|status| status.leftovers = vec![leftover("amd64", "old", Reason::Progressing)]), "something is still to be removed");
    assert!(with(&|status| status.leftovers = vec![leftover("before", "old", Reason::TagMoved)]), "what a tag left rests");
    assert!(!with(&|status| status.conditions.retain(|condition| condition.type_ != "Ready")));
}

/// What is to become of what `memory` says was made, for one target that `plan` is about.
fn unwanted(rows: Vec<TargetStatus>, leftovers: Vec<Leftover>, table: &[TargetStatus], plan: &TargetPlan) -> remove::Unwanted {
    let before = ImageAttachmentStatus { targets: rows, leftovers, ..ImageAttachmentStatus::default() };
    let memory = Memory::of(Some(&before), 1, &reference(&format!("{APP}:v1")));
    let target = subject("amd64");
    let entries = ["amd64", "arm64"].map(|name| Entry { subject: subject(name), kind: EntryKind::Index });
    remove::unwanted(&memory, table, [((&target, 0), plan)].into_iter(), &entries)
}

fn removing(attachments: &[&str]) -> TargetPlan {
    let action = Action::Refuse(Problem::new(Reason::Progressing, "of no matter here"));
    TargetPlan { action, remove: attachments.iter().map(|name| digest(name)).collect(), notes: Vec::new() }
}

#[test]
fn what_is_no_longer_wanted_goes_only_once_the_new_is_attached() {
    let before = || vec![made("amd64", "old", TargetState::Attached)];
    for (state, removed) in [(TargetState::Attached, true), (TargetState::Failed, false), (TargetState::Pending, false)] {
        let table = [made("amd64", "new", state)];
        let unwanted = unwanted(before(), Vec::new(), &table, &removing(&["old"]));
        let remove: Vec<Digest> = unwanted.remove.into_iter().map(|(_, attachment)| attachment).collect();
        assert_eq!(remove, if removed { vec![digest("old")] } else { Vec::new() }, "{state:?}");
        assert_eq!(unwanted.kept.len(), usize::from(!removed), "{state:?}: nothing is forgotten");
    }
}

#[test]
fn what_is_wanted_stays_and_what_is_not_listed_is_looked_for() {
    let table = [made("amd64", "mark", TargetState::Attached)];
    let unwanted = unwanted(table.to_vec(), vec![leftover("amd64", "lost", Reason::Progressing)], &table, &removing(&[]));
    assert!(unwanted.remove.is_empty() && unwanted.kept.is_empty());
    assert_eq!(unwanted.unlisted.into_iter().map(|(_, attachment)| attachment).collect::<Vec<_>>(), [digest("lost")]);
}

#[test]
fn a_platform_that_is_selected_no_more_loses_ours_once_all_others_are_attached() {
    let before = || vec![made("amd64", "a", TargetState::Attached), made("arm64", "b", TargetState::Attached)];
    for (state, removed) in [(TargetState::Attached, 1), (TargetState::Failed, 0)] {
        let table = [made("amd64", "a", state), row("arm64", TargetState::Skipped, Some(Reason::PlatformNotSelected))];
        let unwanted = unwanted(before(), Vec::new(), &table, &removing(&[]));
        assert_eq!((unwanted.remove.len(), unwanted.kept.len()), (removed, 1 - removed), "{state:?}");
    }
}

#[test]
fn what_is_on_an_image_that_the_tag_has_left_stays_and_is_remembered() {
    let table = [made("amd64", "new", TargetState::Attached)];
    let unwanted = unwanted(vec![made("left", "mark", TargetState::Attached)], Vec::new(), &table, &removing(&[]));
    assert!(unwanted.remove.is_empty() && unwanted.unlisted.is_empty());
    assert_eq!(unwanted.kept, [leftover("left", "mark", Reason::TagMoved)]);
}

#[test]
fn of_images_left_sixty_four_are_remembered_the_newest_and_other_leftovers_all() {
    let resting: Vec<Leftover> = (0..80).map(|nth| leftover(&format!("s{nth}"), &format!("a{nth}"), Reason::TagMoved)).collect();
    let refused = leftover("refused", "refused", Reason::RemovalRefused);
    let before = ImageAttachmentStatus {
        leftovers: std::iter::once(refused.clone()).chain(resting.clone()).collect(),
        ..ImageAttachmentStatus::default()
    };
    let memory = Memory::of(Some(&before), 1, &reference(&format!("{APP}:v1")));
    let mut leftovers = Vec::new();
    remove::remember(&memory, &[], &mut leftovers, &[digest("a79")]);
    let expected: Vec<Leftover> = std::iter::once(refused).chain(resting[15..79].to_vec()).collect();
    assert_eq!(leftovers, expected);
}

#[test]
fn every_status_of_an_outcome_follows_the_rules_and_says_why() {
    let failed = |reason| Outcome::failed(&Failure::new(reason, "because"));
    let rows = vec![made("amd64", "a", TargetState::Attached)];
    let attached = Outcome { verdict: Verdict::over(&rows, None), rows: Some(rows), ..Outcome::unchanged(Vec::new()) };
    let outcomes = Reason::ALL.iter().filter(|reason| !Reason::READY.contains(reason) && **reason != Reason::ProgressingWithRetry);
    let outcomes: Vec<Outcome> = outcomes.map(|reason| failed(*reason)).chain([attached]).collect();
    for first in &outcomes {
        for second in &outcomes {
            let before = status(&ImageAttachmentStatus::default(), first, 1, now());
            let after = status(&before, second, 2, now());
            let mut object = ImageAttachment::new("x", crate::api::ImageAttachmentSpec::new(format!("{APP}:v1")));
            object.metadata.generation = Some(2);
            object.status = Some(after.clone());
            assert_eq!(check_status_rules(&object), Vec::<String>::new(), "{:?}, then {:?}", first.verdict, second.verdict);
            let ready = find_condition(&after.conditions, ConditionType::Ready).unwrap();
            assert_eq!(ready.reason, second.verdict.reason.as_str());
            let stalled = find_condition(&after.conditions, ConditionType::Stalled).is_some();
            assert_eq!(stalled, second.verdict.reason.is_stalled(), "{:?}", second.verdict);
        }
    }
}

#[test]
fn a_look_that_finds_nothing_changed_changes_nothing_in_status() {
    let outcome = Outcome {
        image: Some(image(APP, Some("v1"), "image")),
        verdict: Verdict::over(&[row("amd64", TargetState::Attached, None)], None),
        rows: Some(vec![made("amd64", "a", TargetState::Attached)]),
        resolved: Ok(vec!["the excluded platform \"linux/386\" matches no entry".to_owned()]),
        ..Outcome::unchanged(Vec::new())
    };
    let before = status(&ImageAttachmentStatus::default(), &outcome, 1, now());
    let later = now().checked_add(k8s_openapi::jiff::SignedDuration::from_hours(1)).unwrap();
    assert_eq!(status(&before, &Outcome::unchanged(Vec::new()), 1, later), before);
}

#[test]
fn the_status_before_a_push_names_what_is_pushed_and_is_not_ready() {
    let image = image(APP, Some("v1"), "image");
    let rows = [made("amd64", "a", TargetState::Pending)];
    let draft = Draft { image: &image, rows: &rows, leftovers: &[], superseded: None, doing: "attaching" };
    let saved = status_in_progress(&ImageAttachmentStatus::default(), &draft, 3, now());
    assert_eq!((saved.observed_generation, saved.attached.as_deref(), &saved.image), (3, Some("0/1"), &Some(image.clone())));
    assert_eq!((saved.targets[0].kind, saved.targets[0].attachment.clone()), (TargetKind::Platform, rows[0].attachment.clone()));
    let ready = find_condition(&saved.conditions, ConditionType::Ready).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Progressing"));
}
