//! Tests of the state that is parsed from status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{APP, NOON, digest, image, leftover, made, now, reference, subject};
use crate::api::{
    ImageAttachmentStatus, ImageStatus, Reason, Superseded, SupersededState, TagDrift, TargetState,
};
use crate::attachment::{Created, Entry, EntryKind, Inputs, Intent};
use crate::engine::records::slot::Slot;
use crate::engine::records::table::{parse_targets, print_leftovers, print_targets};
use crate::engine::records::target::TargetRecord;
use crate::engine::report::outcome::Outcome;
use crate::engine::report::status::status;
use crate::engine::request::previous::PreviousState;

#[test]
fn last_applied_comes_from_the_target_and_ownership_from_leftovers_too() {
    let status = ImageAttachmentStatus {
        observed_generation: 4,
        image: Some(image(APP, None, "image")),
        targets: print_targets(&[TargetRecord {
            superseded_for: Some(4),
            ..made("amd64", "new", TargetState::Attached)
        }]),
        leftovers: print_leftovers(&[leftover("amd64", "old", Reason::Progressing)]),
        ..ImageAttachmentStatus::default()
    };
    let previous = |generation| {
        PreviousState::from_status(
            Some(&status),
            generation,
            &reference(&format!("{APP}@{}", digest("image"))),
        )
    };
    let known = previous(4).last_applied(&digest("amd64"), &Slot::Referrer);
    assert_eq!(
        (known.attachment, known.content, known.made),
        (Some(digest("new")), Some(digest("content")), true)
    );
    assert_eq!(known.created.unwrap().to_string(), NOON);
    assert!(
        known.superseded
            && !previous(5)
                .last_applied(&digest("amd64"), &Slot::Referrer)
                .superseded,
        "a new generation may outrank once more"
    );
    assert_eq!(
        previous(4).owned_on(&digest("amd64")),
        [digest("new"), digest("old")].into()
    );
    assert!(previous(4).owned_on(&digest("arm64")).is_empty());
}

#[test]
fn a_moved_tag_differs_from_an_edited_reference() {
    let moves = vec![Superseded {
        digest: digest("older").to_string(),
        moved_at: Time(now()),
        date: None,
        state: SupersededState::Attached,
        tag: None,
        reason: None,
        message: None,
    }];
    let status = |tag: Option<&str>| ImageAttachmentStatus {
        image: Some(image(APP, tag, "image")),
        superseded: moves.clone(),
        targets: print_targets(&[made("amd64", "mark", TargetState::Attached)]),
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
        let previous = PreviousState::from_status(Some(&status(seen)), 1, &reference(&spec));
        assert_eq!(
            previous.followed.is_some(),
            followed,
            "{seen:?}, then {spec}"
        );
        assert_eq!(
            !previous.superseded.is_empty(),
            followed,
            "{seen:?}, then {spec}: moves belong to a tag"
        );
        assert_eq!(
            !previous.targets.is_empty(),
            remembers,
            "{seen:?}, then {spec}"
        );
    }
}

#[test]
fn a_pass_is_settled_only_if_status_is_complete_and_matches_the_spec() {
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
    let hash = content.for_target(&wanted).unwrap().hash();
    let outcome = Outcome {
        image: Some(image(APP, Some("v1"), "image")),
        rows: Some(print_targets(&[TargetRecord {
            content: Some(hash),
            ..made("amd64", "note", TargetState::Attached)
        }])),
        ..Outcome::unchanged()
    };
    let whole = status(&ImageAttachmentStatus::default(), &outcome, 1, now());
    let settled = |status: &ImageAttachmentStatus, generation, intent: &Intent| {
        PreviousState::from_status(Some(status), generation, &reference(&format!("{APP}:v1")))
            .is_settled(intent, &[], None, now())
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
        !with(&|status| status.leftovers =
            print_leftovers(&[leftover("amd64", "old", Reason::Progressing)])),
        "something is still to be removed"
    );
    assert!(
        with(&|status| status.leftovers =
            print_leftovers(&[leftover("before", "old", Reason::TagMoved)])),
        "attachments on a superseded image stay"
    );
    assert!(
        !with(&|status| {
            let mut targets = parse_targets(&status.targets);
            targets[0].future_mark = Some(Created::at(now()));
            status.targets = print_targets(&targets);
        }),
        "a foreign mark begins to count"
    );
    assert!(!with(&|status| status
        .conditions
        .retain(|condition| condition.type_ != "Ready")));
}

#[test]
fn tag_drift_is_kept_only_for_the_same_tag_and_another_digest() {
    let drift = TagDrift {
        tag: "v1".to_owned(),
        digest: digest("new").to_string(),
    };
    let status = ImageAttachmentStatus {
        image: Some(ImageStatus {
            tag_drift: Some(drift.clone()),
            ..image(APP, None, "old")
        }),
        ..ImageAttachmentStatus::default()
    };
    for (tag, name, is_kept) in [
        ("v1", "old", true),
        ("v2", "old", false),
        ("v1", "new", false),
    ] {
        let reference = reference(&format!("{APP}:{tag}@{}", digest(name)));
        let previous = PreviousState::from_status(Some(&status), 1, &reference);
        assert_eq!(previous.tag_drift.is_some(), is_kept, "{tag}@{name}");
    }
}

#[test]
fn a_target_record_survives_printing_and_parsing() {
    let record = TargetRecord {
        reason: Some(Reason::Superseded),
        superseded_for: Some(3),
        future_mark: Some(Created::at(now())),
        ..made("amd64", "mark", TargetState::Attached)
    };
    let records = vec![record];
    assert_eq!(parse_targets(&print_targets(&records)), records);
}
