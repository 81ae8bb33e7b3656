//! End-of-life marks over several passes, as readers see them.

use std::time::Duration;

use affix::api::{Origin, Reason};
use affix_testbed::hostile::{Fault, HostileRegistry, Image, Matcher, Quirks};
use serde_json::json;

use crate::resource::{CREATED, DATE, MARK, Resource, attach, mark};

#[tokio::test]
async fn a_newer_foreign_mark_is_outranked_once_for_each_generation() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let reference = registry.reference(&image.pinned());
    let mut resource = Resource::new(mark(&reference, "2026-01-01", "Supersede"));
    resource.ready().await;
    let foreign = |resource: &Resource, date: &str| {
        let created = resource.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        attach(
            &registry,
            &image,
            MARK,
            json!({CREATED: created, DATE: date}),
        )
    };

    resource.later(60);
    let first = foreign(&resource, "2027-01-01");
    let outcome = resource.ready().await;
    assert_eq!(
        resource.rows(),
        [
            "index Attached Superseded",
            "linux/amd64 Skipped PlatformNotSelected"
        ]
    );
    assert!(
        outcome
            .notes
            .iter()
            .any(|note| note.reason == Reason::Superseded),
        "{:#?}",
        outcome.notes
    );
    let outranking = resource.attachment(&image.digest).to_owned();
    assert!(
        registry.store().manifest("team/app", &first).is_some(),
        "a foreign attachment is never removed"
    );

    // Passes that keep the mark leave status unchanged.
    let at_rest = resource.status.clone();
    for _ in 0..2 {
        resource.later(600);
        resource.ready().await;
        assert_eq!(resource.status, at_rest);
    }

    resource.later(60);
    foreign(&resource, "2028-01-01");
    registry.clear();
    let outcome = resource.pass().await;
    assert_eq!(resource.verdict().0, "Conflict");
    assert!(!outcome.is_hurried(), "a conflict is not transient");
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );

    // A new generation may outrank once more.
    resource.change(mark(&reference, "2026-02-02", "Supersede"));
    resource.later(60);
    resource.ready().await;
    assert_ne!(resource.attachment(&image.digest), outranking);
}

#[tokio::test]
async fn a_failed_push_that_outranks_is_retried() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let mut resource = Resource::new(mark(
        &registry.reference(&image.pinned()),
        "2026-01-01",
        "Supersede",
    ));
    resource.ready().await;
    resource.later(60);
    attach(
        &registry,
        &image,
        MARK,
        json!({CREATED: "2026-11-23T12:00:30Z", DATE: "2027-01-01"}),
    );
    let fault = registry.fault(Matcher::writes(), Fault::status(403));
    resource.pass().await;
    assert_eq!(resource.verdict().0, "AccessDenied");
    fault.lift();
    resource.later(60);
    resource.ready().await;
    assert_eq!(resource.rows()[0], "index Attached Superseded");
}

#[tokio::test]
async fn a_newer_foreign_mark_is_a_conflict_that_names_it_without_a_write() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let mut resource = Resource::new(mark(
        &registry.reference(&image.pinned()),
        "2026-01-01",
        "Report",
    ));
    resource.ready().await;
    resource.later(60);
    let foreign = attach(
        &registry,
        &image,
        MARK,
        json!({CREATED: "2026-11-23T12:00:30Z", DATE: "2027-01-01"}),
    );
    registry.clear();
    resource.pass().await;
    let (reason, message) = resource.verdict();
    assert_eq!(reason, "Conflict");
    for part in [foreign.as_str(), "2027-01-01", "2026-01-01", "onConflict"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(
        registry.requests_that(&Matcher::writes()).is_empty(),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn a_future_mark_is_ignored_and_reported() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    attach(
        &registry,
        &image,
        MARK,
        json!({CREATED: "2099-01-01T00:00:00Z", DATE: "2027-01-01"}),
    );
    let mut resource = Resource::new(mark(
        &registry.reference(&image.pinned()),
        "2026-01-01",
        "Report",
    ));
    resource.ready().await;
    assert!(
        resource
            .resolved()
            .contains("claims to be made in the future"),
        "{}",
        resource.resolved()
    );
}

#[tokio::test]
async fn of_future_marks_on_many_targets_the_earliest_is_reported_first() {
    let registry = HostileRegistry::start().await.unwrap();
    let platforms: Vec<String> = (0..20).map(|nth| format!("linux/arm/v{nth}")).collect();
    let image = registry
        .image("team/app", "v1")
        .platforms(platforms.iter().map(String::as_str))
        .push();
    for (nth, child) in image.children.iter().enumerate() {
        let size = usize::try_from(child.entry["size"].as_u64().unwrap()).unwrap();
        let media_type = child.entry["mediaType"].as_str().unwrap().to_owned();
        let child = Image {
            digest: child.digest.clone(),
            media_type,
            size,
            ..image.clone()
        };
        let created = format!("{}-01-01T00:00:00Z", 2099 - nth);
        attach(
            &registry,
            &child,
            MARK,
            json!({CREATED: created, DATE: "2027-01-01"}),
        );
    }
    let mut spec = mark(&registry.reference(&image.pinned()), "2026-01-01", "Report");
    spec["targets"] = json!({"scope": "Platforms"});
    let mut resource = Resource::new(spec);
    resource.ready().await;
    let (_, first) = resource
        .resolved()
        .split_once("claims to be made in the future (")
        .unwrap();
    assert!(
        first.starts_with("2080-01-01T00:00:00Z"),
        "{}",
        resource.resolved()
    );
    let first = resource.status.targets.iter().filter_map(|row| {
        let mark = row.future_mark.as_ref()?;
        Some(mark.0.to_string())
    });
    assert_eq!(first.min().as_deref(), Some("2080-01-01T00:00:00Z"));
}

#[tokio::test]
async fn a_date_that_returns_to_an_earlier_one_is_the_newest_and_only_owned_mark() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let reference = registry.reference(&image.pinned());
    let mut resource = Resource::new(mark(&reference, "2026-01-01", "Report"));
    resource.ready().await;
    for date in ["2027-01-01", "2026-01-01"] {
        resource.change(mark(&reference, date, "Report"));
        resource.ready().await;
        let attached = registry.store().referrers("team/app", &image.digest);
        assert_eq!(
            attached
                .iter()
                .map(|manifest| manifest.digest.as_str())
                .collect::<Vec<_>>(),
            [resource.attachment(&image.digest)]
        );
        assert_eq!(attached[0].json()["annotations"][DATE], date);
    }
}

#[tokio::test]
async fn of_two_equal_concurrent_marks_the_earliest_stays_and_the_other_is_removed() {
    for quirks in [Quirks::default(), Quirks::distribution()] {
        let is_api = quirks.referrers == Quirks::default().referrers;
        let registry = HostileRegistry::builder()
            .quirks(quirks)
            .start()
            .await
            .unwrap();
        let image = registry
            .image("team/app", "v1")
            .platform("linux/amd64")
            .push();
        let mut resource = Resource::new(mark(
            &registry.reference(&image.pinned()),
            "2026-01-01",
            "Report",
        ));
        resource.ready().await;
        let ours = resource.attachment(&image.digest).to_owned();
        let equal = |created: &str| {
            let annotations = json!({CREATED: created, DATE: "2026-01-01"});
            let digest = attach(&registry, &image, MARK, annotations.clone());
            if !is_api {
                let mut entry = registry
                    .store()
                    .manifest("team/app", &digest)
                    .unwrap()
                    .descriptor();
                entry["artifactType"] = json!(MARK);
                entry["annotations"] = annotations;
                registry
                    .store()
                    .append_fallback("team/app", &image.digest, entry);
            }
            digest
        };
        let listed = || -> Vec<String> {
            if is_api {
                return registry
                    .store()
                    .referrers("team/app", &image.digest)
                    .into_iter()
                    .map(|manifest| manifest.digest)
                    .collect();
            }
            let entries = registry.store().fallback_entries("team/app", &image.digest);
            entries
                .iter()
                .map(|entry| entry["digest"].as_str().unwrap().to_owned())
                .collect()
        };
        let later = equal("2026-11-23T12:00:01Z");
        resource.later(60);
        resource.ready().await;
        assert_eq!(
            resource.attachment(&image.digest),
            ours,
            "the mark of this resource is the earlier one"
        );
        assert!(
            listed().contains(&later),
            "only its owner removes the other one"
        );

        let earlier = equal("2026-11-23T11:59:59Z");
        resource.ready().await;
        assert_eq!(resource.attachment(&image.digest), earlier);
        assert_eq!(resource.status.targets[0].origin, Some(Origin::Adopted));
        assert!(
            !listed().contains(&ours) && listed().contains(&earlier),
            "{}",
            registry.transcript()
        );
        assert!(
            resource.status.leftovers.is_empty(),
            "{:#?}",
            resource.status.leftovers
        );
    }
}

#[tokio::test]
async fn of_two_marks_in_the_same_second_one_is_attached_and_one_in_conflict() {
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry
        .image("team/app", "v1")
        .platform("linux/amd64")
        .push();
    let reference = registry.reference(&image.pinned());
    let mut both =
        ["2026-01-01", "2027-01-01"].map(|date| Resource::new(mark(&reference, date, "Report")));
    let fault = registry.fault(
        Matcher::writes(),
        Fault::Delay(std::time::Duration::from_millis(500)),
    );
    let [one, other] = &mut both;
    tokio::join!(one.ready(), other.ready());
    fault.lift();
    let created: Vec<_> = registry
        .store()
        .referrers("team/app", &image.digest)
        .iter()
        .map(|mark| mark.json()["annotations"][CREATED].clone())
        .collect();
    assert_eq!(
        created, ["2026-11-23T12:00:00Z"; 2],
        "both resources list before either pushes"
    );
    for pass in 0..3 {
        let [one, other] = &mut both;
        one.later(60);
        other.later(60);
        tokio::join!(one.pass(), other.pass());
        let mut verdicts = both.each_ref().map(|resource| resource.verdict().0);
        verdicts.sort_unstable();
        assert_eq!(
            verdicts,
            ["Attached", "Conflict"],
            "pass {pass}: {}",
            registry.transcript()
        );
    }
    let winner = both
        .iter()
        .find(|resource| resource.verdict().0 == "Attached")
        .unwrap();
    let marks = registry.store().referrers("team/app", &image.digest);
    let newest = marks
        .iter()
        .max_by_key(|mark| {
            mark.json()["annotations"][CREATED]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .unwrap();
    assert_eq!(
        (marks.len(), newest.digest.as_str()),
        (2, winner.attachment(&image.digest)),
        "readers use the newest mark"
    );
}

#[tokio::test]
async fn a_future_mark_counts_in_time_however_long_the_condition_resolved_is() {
    for absent in [0, 25] {
        let registry = HostileRegistry::start().await.unwrap();
        let image = registry
            .image("team/app", "v1")
            .platform("linux/amd64")
            .push();
        let mut spec = mark(&registry.reference(&image.pinned()), "2026-01-01", "Report");
        let absent_platforms = (0..absent).map(|nth| format!("linux/absent{nth}"));
        let platforms: Vec<String> = absent_platforms.chain(["linux/amd64".to_owned()]).collect();
        spec["targets"] = json!({"scope": "All", "platforms": platforms, "missing": "Ignore"});
        let mut resource = Resource::new(spec);
        resource.ready().await;
        attach(
            &registry,
            &image,
            MARK,
            json!({CREATED: "2026-11-23T12:00:40Z", DATE: "2027-01-01"}),
        );
        resource.ready().await;
        assert_eq!(
            resource.due_in(),
            Some(Duration::from_secs(40)),
            "{absent} absent platforms: {}",
            resource.resolved()
        );
        resource.later(41);
        resource.look().await;
        assert_eq!(
            resource.verdict().0,
            "PartiallyAttached",
            "{absent} absent platforms: {}",
            resource.verdict().1
        );
        assert_eq!(resource.rows()[0], "index Failed Conflict");
    }
}
