#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::api::{OnConflict, Reason};
use crate::attachment::content::TargetContent;
use crate::attachment::mark::MarkKeys;
use crate::attachment::problem::Problem;
use crate::attachment::time::Created;
use affix_registry::oci::{Descriptor, Digest, annotation, media_type};

const DATE: &str = "end-of-life.date";
const TYPE: &str = "application/vnd.example.lifecycle";
const NOON: &str = "2026-11-23T12:00:00Z";

fn at(text: &str) -> Created {
    text.parse().unwrap()
}

fn subject() -> Descriptor {
    Descriptor::of(media_type::OCI_INDEX, b"the image")
}

/// Returns a mark with the date.
fn mark(date: &str) -> TargetContent {
    let annotations = BTreeMap::from([(DATE.to_owned(), date.to_owned())]);
    TargetContent {
        artifact_type: TYPE.parse().unwrap(),
        annotations,
        layers: Vec::new(),
        blobs: Vec::new(),
    }
}

/// Returns the listing entry of a mark.
fn listed(date: &str, created: &str) -> Descriptor {
    mark(date).attach_to(&subject(), at(created)).listed
}

/// Returns the observed state of a target with a desired mark.
fn wanting(date: &str, listing: &[Descriptor]) -> Observed {
    let keys = MarkKeys {
        annotation: DATE.to_owned(),
        date: date.parse().unwrap(),
    };
    Observed {
        subject: subject(),
        wanted: DesiredContent::Content {
            content: mark(date),
            mark: Some(keys),
        },
        listing: Ok(listing.to_vec()),
        fetched: BTreeMap::new(),
        known: LastApplied::default(),
        ours: BTreeSet::new(),
    }
}

fn planned(observed: &Observed) -> TargetPlan {
    plan(observed, OnConflict::Report, at(NOON).instant())
}

fn attach(created: &str) -> Action {
    Action::Attach {
        created: at(created),
        supersedes: false,
    }
}

fn keep(entry: &Descriptor, made: bool) -> Action {
    let existing = Existing {
        digest: entry.digest.clone(),
        created: Created::from_entry(entry),
    };
    Action::Keep { existing, made }
}

#[test]
fn an_empty_listing_attaches_the_content_at_the_whole_second_of_the_pass() {
    let observed = wanting("2026-01-01", &[]);
    let plan = plan(
        &observed,
        OnConflict::Report,
        "2026-11-23T12:00:00.75Z".parse().unwrap(),
    );
    assert_eq!(
        (plan.action, plan.remove, plan.notes),
        (attach(NOON), Vec::new(), Vec::new())
    );
}

#[test]
fn a_failed_listing_does_not_count_as_an_empty_one() {
    let problem = Problem::new(Reason::RegistryUnavailable, "HTTP 503");
    let ours = listed("2026-01-01", NOON).digest;
    let observed = Observed {
        listing: Err(problem.clone()),
        ours: BTreeSet::from([ours]),
        ..wanting("2026-01-01", &[])
    };
    let plan = planned(&observed);
    assert_eq!(
        (plan.action, plan.remove),
        (Action::Refuse(problem), Vec::new())
    );
}

#[test]
fn an_equal_attachment_is_adopted_or_kept_as_ours() {
    let equal = listed("2026-01-01", "2025-05-05T00:00:00Z");
    let observed = wanting("2026-01-01", std::slice::from_ref(&equal));
    assert_eq!(planned(&observed).action, keep(&equal, false));
    let observed = Observed {
        ours: BTreeSet::from([equal.digest.clone()]),
        ..observed
    };
    assert_eq!(planned(&observed).action, keep(&equal, true));
}

#[test]
fn an_entry_that_only_looks_equal_in_the_listing_is_not_adopted() {
    let mut impostor = listed("2026-01-01", "2025-05-05T00:00:00Z");
    impostor.digest = Digest::sha256(b"something else");
    let other = mark("2030-01-01").attach_to(&subject(), at("2025-05-05T00:00:00Z"));
    let mut observed = wanting("2026-01-01", std::slice::from_ref(&impostor));
    let manifest = serde_json::from_slice(&other.bytes).unwrap();
    let read = FetchedReferrer::new(&mark("2026-01-01"), None, &subject().digest, &manifest);
    observed.fetched.insert(impostor.digest, read);
    assert_eq!(planned(&observed).action, attach(NOON));
}

#[test]
fn the_earliest_of_equal_attachments_is_kept_and_only_ours_are_removed() {
    let [first, second, third] = [
        "2025-01-01T00:00:00Z",
        "2025-01-02T00:00:00Z",
        "2025-01-03T00:00:00Z",
    ]
    .map(|at| listed("2026-01-01", at));
    // The order of the listing has no influence.
    let observed = wanting(
        "2026-01-01",
        &[third.clone(), first.clone(), second.clone()],
    );
    let observed = Observed {
        ours: BTreeSet::from([second.digest.clone()]),
        ..observed
    };
    let plan = planned(&observed);
    assert_eq!(
        (plan.action, plan.remove),
        (keep(&first, false), vec![second.digest])
    );
}

#[test]
fn only_unchanged_content_is_pushed_with_the_same_bytes_after_a_crash() {
    let known = |date: &str| LastApplied {
        content: Some(mark(date).hash()),
        created: Some(at("2026-11-20T08:00:00Z")),
        ..LastApplied::default()
    };
    let same = Observed {
        known: known("2026-01-01"),
        ..wanting("2026-01-01", &[])
    };
    assert_eq!(planned(&same).action, attach("2026-11-20T08:00:00Z"));
    let changed = Observed {
        known: known("2025-01-01"),
        ..wanting("2026-01-01", &[])
    };
    assert_eq!(planned(&changed).action, attach(NOON));
}

#[test]
fn an_own_mark_ahead_of_the_clock_is_outranked_by_one_second() {
    // Made by this resource on a machine whose clock was ahead.
    let ahead = listed("2025-01-01", "2026-11-23T13:00:00Z");
    let observed = Observed {
        ours: BTreeSet::from([ahead.digest.clone()]),
        ..wanting("2026-01-01", std::slice::from_ref(&ahead))
    };
    let plan = planned(&observed);
    assert_eq!(
        (plan.action, plan.remove),
        (attach("2026-11-23T13:00:01Z"), vec![ahead.digest])
    );
}

#[test]
fn a_foreign_mark_from_the_future_is_ignored_and_reported() {
    let future = listed("2025-01-01", "2026-11-23T12:00:01Z");
    let plan = planned(&wanting("2026-01-01", std::slice::from_ref(&future)));
    assert_eq!(plan.action, attach(NOON));
    assert!(
        plan.notes[0].digest == future.digest
            && plan.notes[0].to_string().contains("in the future"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn an_older_foreign_mark_is_outranked_and_not_removed() {
    let older = listed("2025-01-01", "2026-11-23T11:00:00Z");
    let plan = planned(&wanting("2026-01-01", &[older]));
    assert_eq!((plan.action, plan.remove), (attach(NOON), Vec::new()));
}

#[test]
fn a_newer_foreign_mark_is_a_conflict_or_superseded_once() {
    let (ours, newer) = (
        listed("2026-01-01", "2026-11-23T10:00:00Z"),
        listed("2025-01-01", "2026-11-23T11:00:00Z"),
    );
    let observed = wanting("2026-01-01", &[ours.clone(), newer.clone()]);
    let outranks = Action::Attach {
        created: at(NOON),
        supersedes: true,
    };
    for (on_conflict, superseded, expected) in [
        (OnConflict::Report, false, None),
        (OnConflict::Supersede, false, Some(&outranks)),
        (OnConflict::Supersede, true, None),
    ] {
        let known = LastApplied {
            superseded,
            ..LastApplied::default()
        };
        let observed = Observed {
            known,
            ours: BTreeSet::from([ours.digest.clone()]),
            ..observed.clone()
        };
        let plan = plan(&observed, on_conflict, at(NOON).instant());
        match (&plan.action, expected) {
            (Action::Refuse(problem), None) => {
                assert_eq!(problem.reason, Reason::Conflict);
                assert!(
                    problem.message.contains(&newer.digest.to_string()),
                    "{problem}"
                );
                assert!(plan.remove.is_empty(), "a conflict removes nothing");
            }
            (action, Some(expected)) => assert_eq!(action, expected),
            (action, None) => panic!("{on_conflict:?}, superseded {superseded}: {action:?}"),
        }
    }
}

#[test]
fn the_same_instant_in_another_form_is_no_conflict() {
    let ours = listed("2026-01-01", "2026-11-23T10:00:00Z");
    let other = listed("2026-01-01T01:00:00+01:00", "2026-11-23T11:00:00Z");
    assert_eq!(
        planned(&wanting("2026-01-01", &[ours.clone(), other])).action,
        keep(&ours, false)
    );
}

#[test]
fn a_newer_own_mark_with_another_date_is_outranked_and_removed() {
    let (wanted, later) = (
        listed("2026-01-01", "2026-11-23T10:00:00Z"),
        listed("2027-01-01", "2026-11-23T11:00:00Z"),
    );
    let ours = BTreeSet::from([wanted.digest.clone(), later.digest.clone()]);
    let plan = planned(&Observed {
        ours,
        ..wanting("2026-01-01", &[wanted.clone(), later.clone()])
    });
    assert_eq!(plan.action, attach(NOON));
    assert_eq!(
        BTreeSet::from_iter(plan.remove),
        BTreeSet::from([wanted.digest, later.digest])
    );
}

#[test]
fn other_types_on_the_subject_are_ignored_and_not_removed() {
    let mut other = listed("2025-01-01", "2026-11-23T11:59:59Z");
    other.artifact_type = "application/vnd.example.sbom".to_owned();
    let plan = planned(&wanting("2026-01-01", &[other]));
    assert_eq!((plan.action, plan.remove), (attach(NOON), Vec::new()));
}

#[test]
fn a_created_time_of_the_spec_is_written_and_compared_unchanged() {
    let pinned = |created: &str| {
        let mut content = mark("2026-01-01");
        content
            .annotations
            .insert(annotation::CREATED.to_owned(), created.to_owned());
        content
    };
    let content = pinned("2020-02-02T00:00:00+01:00");
    let (ours, other) = (
        content.attach_to(&subject(), at(NOON)).listed,
        listed("2026-01-01", NOON),
    );
    assert_eq!(
        ours.annotations[annotation::CREATED],
        "2020-02-02T00:00:00+01:00"
    );
    assert_eq!(
        ours,
        content
            .attach_to(&subject(), at("2021-01-01T00:00:00Z"))
            .listed,
        "the time of the spec takes precedence"
    );
    let mut observed = wanting("2026-01-01", &[other, ours.clone()]);
    observed.wanted = DesiredContent::Content {
        content,
        mark: None,
    };
    assert_eq!(planned(&observed).action, keep(&ours, false));
}

#[test]
fn the_earliest_verified_signature_is_kept_and_without_one_the_target_is_signed() {
    let existing = |name: &str, created: &str| Existing {
        digest: Digest::sha256(name.as_bytes()),
        created: Some(at(created)),
    };
    let (first, second) = (
        existing("first", "2026-01-01T00:00:00Z"),
        existing("second", "2026-01-02T00:00:00Z"),
    );
    let entry = |existing: &Existing| Descriptor {
        artifact_type: TYPE.to_owned(),
        ..Descriptor::plain("", existing.digest.clone(), 1)
    };
    let signature = |verified: Vec<Existing>| DesiredContent::Signature {
        content: Digest::sha256(b"key"),
        artifact_type: TYPE.to_owned(),
        overlap: Duration::ZERO,
        verified,
    };
    let mut observed = wanting("2026-01-01", &[entry(&second), entry(&first)]);
    observed.ours = BTreeSet::from([second.digest.clone()]);

    observed.wanted = signature(vec![second.clone(), first.clone()]);
    let plan = planned(&observed);
    assert_eq!(
        (plan.action, plan.remove),
        (
            Action::Keep {
                existing: first,
                made: false
            },
            vec![second.digest.clone()]
        )
    );

    observed.wanted = signature(Vec::new());
    let plan = planned(&observed);
    assert_eq!(
        (plan.action, plan.remove),
        (attach(NOON), vec![second.digest]),
        "the signature of the old key is removed after the new one is attached"
    );
}

#[test]
fn the_previous_signature_stays_until_the_overlap_after_the_new_one_is_over() {
    let digest = |name: &str| Digest::sha256(name.as_bytes());
    let entry = |name: &str| Descriptor::plain("", digest(name), 1);
    let signed_at = |created: &str| Observed {
        ours: BTreeSet::from([digest("old"), digest("new")]),
        wanted: DesiredContent::Signature {
            content: Digest::sha256(b"key"),
            artifact_type: TYPE.to_owned(),
            overlap: Duration::from_hours(1),
            verified: vec![Existing {
                digest: digest("new"),
                created: Some(at(created)),
            }],
        },
        ..wanting("2026-01-01", &[entry("old"), entry("new")])
    };
    let within = planned(&signed_at("2026-11-23T11:00:01Z"));
    assert_eq!((within.remove, within.keep), (vec![], vec![digest("old")]));
    let after = planned(&signed_at("2026-11-23T11:00:00Z"));
    assert_eq!((after.remove, after.keep), (vec![digest("old")], vec![]));
}

/// Returns the observed state with a condensed listing.
fn condense(observed: Observed) -> Observed {
    let DesiredContent::Content { content, mark } = &observed.wanted else {
        panic!("{observed:?}")
    };
    let (entries, now) = (observed.listing.clone().unwrap(), at(NOON).instant());
    let listing = Ok(adoption::condensed(
        content,
        mark.as_ref(),
        &observed.subject,
        &[],
        &observed.ours,
        now,
        entries,
    ));
    Observed {
        listing,
        ..observed
    }
}

#[test]
fn a_condensed_listing_holds_only_the_input_of_the_plan() {
    let padded = |entry: Descriptor| {
        let mut entry = Descriptor {
            media_type: "m".repeat(10_000),
            ..entry
        };
        entry
            .annotations
            .insert("padding".to_owned(), "x".repeat(10_000));
        entry
    };
    let created = |nth: u32| format!("2026-11-22T12:{:02}:{:02}Z", nth / 60, nth % 60);
    // Other content: only the time of the newest entry counts.
    let plain = |content: &str| TargetContent {
        annotations: BTreeMap::from([("k".to_owned(), content.to_owned())]),
        ..mark("2030-01-01")
    };
    let listing = |content: &str| {
        (0..1000)
            .map(|nth| {
                padded(
                    plain(content)
                        .attach_to(&subject(), at(&created(nth)))
                        .listed,
                )
            })
            .collect()
    };
    let observed = Observed {
        wanted: DesiredContent::Content {
            content: plain("ours"),
            mark: None,
        },
        listing: Ok(listing("theirs")),
        ..wanting("2030-01-01", &[])
    };
    let kept = condense(observed.clone());
    assert_eq!(planned(&kept), planned(&observed));
    let bytes = |observed: &Observed| {
        serde_json::to_vec(observed.listing.as_ref().unwrap())
            .unwrap()
            .len()
    };
    assert!(
        bytes(&observed) > 19 << 20 && bytes(&kept) < 1000,
        "{} bytes are kept",
        bytes(&kept)
    );
    // Marks: only the time and the date of each entry count.
    let marks: Vec<Descriptor> = (0..1000)
        .map(|nth| padded(listed("2031-01-01", &created(nth))))
        .collect();
    let observed = wanting("2030-01-01", &marks);
    let kept = condense(observed.clone());
    assert_eq!(planned(&kept), planned(&observed));
    assert!(bytes(&kept) < 300_000, "{} bytes are kept", bytes(&kept));
}

proptest::proptest! {
    /// For any listing, the third pass has nothing left to do, and no pass removes a foreign attachment.
    #[test]
    fn passes_converge_and_never_remove_a_foreign_attachment(
        others in proptest::collection::vec((0..3_u8, 0..86_400_i64), 0..6), ours in 0..6_usize, wanted in 0..3_u8,
    ) {
        let date = |nth: u8| format!("203{nth}-01-01");
        let day = at("2026-11-22T12:00:00Z").instant().as_second();
        let second = |second: i64| Created::at(Timestamp::from_second(day + second).unwrap()).to_string();
        let mut listing: Vec<Descriptor> = others.iter().map(|(nth, created)| listed(&date(*nth), &second(*created))).collect();
        let mut ours: BTreeSet<Digest> = listing.iter().take(ours).map(|entry| entry.digest.clone()).collect();
        let mut history = Vec::new();
        for _ in 0..3 {
            let observed = Observed { ours: ours.clone(), ..wanting(&date(wanted), &listing) };
            let plan = planned(&observed);
            proptest::prop_assert_eq!(&planned(&condense(observed)), &plan);
            proptest::prop_assert!(plan.remove.iter().all(|removed| ours.contains(removed)));
            listing.retain(|entry| !plan.remove.contains(&entry.digest));
            if let Action::Attach { created, .. } = &plan.action {
                let pushed = mark(&date(wanted)).attach_to(&subject(), *created).listed;
                ours.insert(pushed.digest.clone());
                listing.push(pushed);
            }
            history.push(plan);
        }
        let last = history.last().unwrap();
        proptest::prop_assert!(!matches!(last.action, Action::Attach { .. }) && last.remove.is_empty(), "{history:#?}");
    }
}

#[test]
fn a_mark_with_a_time_from_the_spec_is_not_made_again_in_a_tie() {
    let noon_ago = "2026-11-23T11:00:00Z";
    let fixed = |date: &str| {
        let mut content = mark(date);
        content
            .annotations
            .insert(annotation::CREATED.to_owned(), noon_ago.to_owned());
        content
    };
    let rival = listed("2027-01-01", noon_ago);
    // A date whose mark has the lower digest.
    let date = (1..=28).map(|day| format!("2026-01-{day:02}"));
    let date = date
        .into_iter()
        .find(|date| *fixed(date).attach_to(&subject(), at(noon_ago)).digest() < rival.digest)
        .unwrap();
    let ours = fixed(&date).attach_to(&subject(), at(noon_ago)).listed;
    let mut observed = wanting(&date, &[ours.clone(), rival]);
    let DesiredContent::Content { content, .. } = &mut observed.wanted else {
        panic!("a mark")
    };
    *content = fixed(&date);
    observed.ours = BTreeSet::from([ours.digest]);
    let Action::Refuse(problem) = planned(&observed).action else {
        panic!("{:?}", planned(&observed))
    };
    assert_eq!(problem.reason, Reason::Conflict);
}

#[test]
fn of_tied_marks_the_lower_digest_is_made_again_and_the_other_is_a_conflict() {
    let dates = ["2026-01-01", "2027-01-01"];
    let marks = dates.map(|date| listed(date, "2026-11-23T11:00:00Z"));
    let lower = usize::from(marks[1].digest < marks[0].digest);
    for (own, date) in dates.into_iter().enumerate() {
        let ours = marks[own].digest.clone();
        for known in [
            LastApplied::default(),
            LastApplied {
                superseded: true,
                ..LastApplied::default()
            },
        ] {
            let observed = Observed {
                ours: BTreeSet::from([ours.clone()]),
                known,
                ..wanting(date, &marks)
            };
            let plan = planned(&observed);
            if own == lower {
                assert_eq!(
                    (plan.action, plan.remove),
                    (attach(NOON), vec![ours.clone()])
                );
                continue;
            }
            let Action::Refuse(problem) = plan.action else {
                panic!("{:?}", plan.action)
            };
            assert_eq!((problem.reason, plan.remove.len()), (Reason::Conflict, 0));
            assert!(
                problem
                    .message
                    .contains("in the same second as the mark of this resource")
                    && !problem.message.contains("newer"),
                "{}",
                problem.message
            );
        }
    }
    // The mark that was made again is the newest, and the other resource reports it.
    let again = listed(dates[lower], NOON);
    let other = 1 - lower;
    let observed = Observed {
        ours: BTreeSet::from([marks[other].digest.clone()]),
        ..wanting(dates[other], &[marks[other].clone(), again.clone()])
    };
    let Action::Refuse(problem) = planned(&observed).action else {
        panic!("{:?}", planned(&observed))
    };
    assert!(
        problem
            .message
            .contains("which is newer than the mark of this resource"),
        "{}",
        problem.message
    );
    let observed = Observed {
        ours: BTreeSet::from([again.digest.clone()]),
        ..wanting(dates[lower], &[marks[other].clone(), again.clone()])
    };
    assert_eq!(planned(&observed).action, keep(&again, true));
}
