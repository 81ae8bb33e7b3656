//! What is known from status, and whether that is all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::memory::Memory;
use super::super::outcome::Outcome;
use super::super::status::status;
use super::{APP, NOON, digest, image, leftover, made, now, reference, subject};
use crate::api::{ImageAttachmentStatus, Reason, Superseded, TargetState, TargetStatus};
use crate::attachment::{Entry, EntryKind, Inputs, Intent};

#[test]
fn memory_knows_a_target_from_its_row_and_what_is_ours_from_leftovers_too() {
    let status = ImageAttachmentStatus {
        observed_generation: 4,
        image: Some(image(APP, None, "image")),
        targets: vec![TargetStatus {
            superseded_for: Some(4),
            ..made("amd64", "new", TargetState::Attached)
        }],
        leftovers: vec![leftover("amd64", "old", Reason::Progressing)],
        ..ImageAttachmentStatus::default()
    };
    let memory = |generation| {
        Memory::of(
            Some(&status),
            generation,
            &reference(&format!("{APP}@{}", digest("image"))),
        )
    };
    let known = memory(4).known(&digest("amd64"));
    assert_eq!(
        (known.attachment, known.content, known.made),
        (Some(digest("new")), Some(digest("content")), true)
    );
    assert_eq!(known.created.unwrap().to_string(), NOON);
    assert!(
        known.superseded && !memory(5).known(&digest("amd64")).superseded,
        "a new generation may outrank once more"
    );
    assert_eq!(
        memory(4).ours(&digest("amd64")),
        [digest("new"), digest("old")].into()
    );
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
        (
            Some("v1"),
            "registry.example.com/team/other:v1".to_owned(),
            false,
            false,
        ),
    ] {
        let memory = Memory::of(Some(&status(seen)), 1, &reference(&spec));
        assert_eq!(memory.followed.is_some(), followed, "{seen:?}, then {spec}");
        assert_eq!(
            !memory.superseded.is_empty(),
            followed,
            "{seen:?}, then {spec}: the moves are those of the tag"
        );
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
    let crate::attachment::Desired::Content { content, .. } = &intent.desired else {
        unreachable!()
    };
    let wanted = Entry {
        subject: subject("amd64"),
        kind: EntryKind::Index,
    };
    let hash = content.for_target(&wanted).unwrap().hash().to_string();
    let outcome = Outcome {
        image: Some(image(APP, Some("v1"), "image")),
        rows: Some(vec![TargetStatus {
            content: Some(hash),
            ..made("amd64", "note", TargetState::Attached)
        }]),
        ..Outcome::unchanged(Vec::new())
    };
    let whole = status(&ImageAttachmentStatus::default(), &outcome, 1, now());
    let settled = |status: &ImageAttachmentStatus, generation, intent: &Intent| {
        Memory::of(Some(status), generation, &reference(&format!("{APP}:v1"))).is_settled(
            intent,
            None,
            now(),
        )
    };
    assert!(settled(&whole, 1, &intent));
    assert!(!settled(&whole, 2, &intent), "a changed spec");
    assert!(
        !settled(&whole, 1, &spec("two")),
        "a changed file of the same generation"
    );
    let with = |change: &dyn Fn(&mut ImageAttachmentStatus)| {
        let mut status = whole.clone();
        change(&mut status);
        settled(&status, 1, &intent)
    };
    assert!(!with(
        &|status| status.targets[0].state = TargetState::Pending
    ));
    assert!(
        !with(&|status| status.leftovers = vec![leftover("amd64", "old", Reason::Progressing)]),
        "something is still to be removed"
    );
    assert!(
        with(&|status| status.leftovers = vec![leftover("before", "old", Reason::TagMoved)]),
        "what a tag left rests"
    );
    assert!(!with(&|status| status
        .conditions
        .retain(|condition| condition.type_ != "Ready")));
}
