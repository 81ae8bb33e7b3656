//! Lists of tags: long, broken, cut short, repeated, endless, and full of names that are no tags. Such a list marks nothing.

use affix::api::{ConditionType, Reason};
use affix_testbed::hostile::{Cut, Fault, Matcher, Op, Quirks};
use bytes::Bytes;
use serde_json::json;

use super::{REPOSITORY, Train, both};

/// A set with its marks in place: five minors with one release each, in a list of three pages of two tags.
async fn marked(quirks: Quirks) -> Train {
    let quirks = Quirks {
        tags_per_page: Some(2),
        ..quirks
    };
    let mut train = Train::new(quirks, json!({})).await;
    train.release(&["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0", "v1.4.0"]);
    // `latest` comes first in the list, and keeps in use what its version does not.
    train.push("latest", "latest");
    let spare = train.release(&["v1.0.1"]);
    train.tag("latest", &spare[0]);
    train.pass().await;
    train.later(24);
    train.pass().await;
    assert_eq!(train.marked(), MARKED);
    train
}

const MARKED: [&str; 6] = [
    "v1.0.0",
    "v1.0.0 linux/amd64",
    "v1.0.0 linux/arm64",
    "v1.1.0",
    "v1.1.0 linux/amd64",
    "v1.1.0 linux/arm64",
];

/// Checks that a pass wrote nothing and left every child and every mark.
async fn changes_nothing(train: &mut Train, about: &str) {
    let (dates, before) = (train.dates(), train.writes());
    let plan = train.pass().await;
    assert_eq!(train.dates(), dates, "{about}");
    assert!(plan.removals.is_empty(), "{about}: {:?}", plan.removals);
    assert_eq!(train.marked(), MARKED, "{about}");
    assert_eq!(train.writes(), before, "{about}");
}

/// The list of tags is answered with this from page `nth` on, counted from 1.
fn page(nth: u64) -> Matcher {
    Matcher::on(Op::TagList).nth(nth)
}

fn body(text: impl Into<Bytes>) -> Fault {
    Fault::Body(text.into())
}

#[tokio::test]
async fn a_page_that_fails_changes_nothing_and_status_says_why() {
    use Reason::{AccessDenied, LimitExceeded, NotFound, RateLimited, RegistryUnavailable};
    let faults = [
        (Fault::status(403), AccessDenied, "as the test asked"),
        (Fault::status(404), NotFound, "as the test asked"),
        (Fault::status(429), RateLimited, "limits the request rate"),
        (Fault::status(500), RegistryUnavailable, "as the test asked"),
        (Fault::Reset, RegistryUnavailable, ""),
        (Fault::CutAfter(9, Cut::Close), RegistryUnavailable, ""),
        (
            body("<html>"),
            RegistryUnavailable,
            "the list of tags is malformed",
        ),
        (
            body("{\"tags\": [\"v1.0.0\""),
            RegistryUnavailable,
            "malformed",
        ),
        (
            body("{\"tags\": {\"v1.0.0\": 1}}"),
            RegistryUnavailable,
            "malformed",
        ),
        (body("{\"tags\": [7]}"), RegistryUnavailable, "malformed"),
        (
            Fault::link(Some(
                "<http://127.0.0.1:1/v2/team/app/tags/list?n=2>; rel=\"next\"",
            )),
            RegistryUnavailable,
            "another origin",
        ),
        (
            Fault::link(Some(
                "<https://registry.example.com/v2/team/app/tags/list>; rel=\"next\"",
            )),
            RegistryUnavailable,
            "another origin",
        ),
        (
            Fault::link(Some("</v2/team/app/tags/list?n=1000>; rel=\"next\"")),
            LimitExceeded,
            "form a circle",
        ),
    ];
    for (kind, quirks) in both().into_iter().enumerate() {
        let mut train = marked(quirks).await;
        // A new minor is there, and must not count before the list is whole.
        train.release(&["v1.5.0"]);
        for (nth, (fault, reason, text)) in faults.iter().enumerate() {
            let nth = 1 + (nth + kind) % 3;
            let about = format!("page {nth}: {fault:?}");
            // The client repeats some requests, so the fault stays.
            let matcher = Matcher::on(Op::TagList).skip(nth as u64 - 1);
            let rule = train.registry.fault(matcher, fault.clone());
            changes_nothing(&mut train, &about).await;
            rule.lift();
            let status = train.repository();
            assert_eq!(status.reason.as_deref(), Some(reason.as_str()), "{about}");
            assert_eq!(status.seen.len(), 6, "{about}");
            for kind in [ConditionType::Ready, ConditionType::Resolved] {
                let (verdict, message) = train.condition(kind);
                assert_eq!(verdict, format!("False {reason}"), "{about}");
                let is_told = message.contains("team/app: ") && message.contains(text);
                assert!(is_told, "{about}: {message}");
            }
        }
        train.later(25);
        train.pass().await;
        assert_eq!(train.condition(ConditionType::Ready).0, "True Attached");
        // The settle time of v1.2.0 begins with the first whole list.
        assert_eq!(train.marked(), MARKED);
        train.later(24);
        train.pass().await;
        assert_eq!(train.marked().len(), 9, "{:?}", train.marked());
    }
}

#[tokio::test]
async fn t29_a_page_that_lies_marks_nothing_and_takes_nothing_back_within_the_settle_time() {
    let lies = [
        body("{}"),
        body("{\"name\": \"team/app\", \"tags\": null}"),
        body("{\"name\": \"team/app\", \"tags\": []}"),
        // The list ends here.
        Fault::link(None),
        body("{\"tags\": [\"v1.4.0\", \"v1.4.0\", \"v1.4.0\"]}"),
        body("{\"tags\": [\"v1.0.0\", \"v1.1.0\"]}"),
        // Tags that are not there.
        body("{\"tags\": [\"v9.0.0\", \"v8.0.0\", \"v7.0.0\", \"v6.0.0\", \"v1.9.0\"]}"),
        body(format!("{{\"tags\": [\"sha256-{}\"]}}", "a".repeat(64))),
    ];
    for quirks in both() {
        let mut train = marked(quirks).await;
        for nth in 1..=3 {
            for lie in &lies {
                let about = format!("page {nth}: {lie:?}");
                for hours in [0, 23] {
                    train.later(hours);
                    let rule = train.registry.fault(page(nth), lie.clone());
                    changes_nothing(&mut train, &about).await;
                    rule.lift();
                }
                changes_nothing(&mut train, &about).await;
                assert_eq!(
                    train.condition(ConditionType::Ready).0,
                    "True Attached",
                    "{about}"
                );
                assert!(train.repository().vanished.is_empty(), "{about}");
            }
        }
        // The same lie for longer than that is believed: latest is gone, and its image with it. The truth takes that back.
        let gone = body("{\"tags\": []}");
        let rule = train.registry.fault(
            Matcher::on(Op::TagList).when(|request| request.parameter("last").is_none()),
            gone,
        );
        for _ in 0..3 {
            train.later(24);
            train.pass().await;
        }
        rule.lift();
        assert!(train.marked().contains(&"v1.0.1"), "{:?}", train.marked());
        train.pass().await;
        assert_eq!(train.marked(), MARKED);
    }
}

#[tokio::test]
async fn t30_an_endless_list_ends_with_a_limit() {
    for quirks in both() {
        let mut train = marked(quirks).await;
        train
            .registry
            .quirks(|quirks| quirks.tags_per_page = Some(1));
        // Each page brings one more tag.
        let store = train.registry.store();
        let alive = store.tag(REPOSITORY, "v1.4.0").unwrap();
        let lists = Matcher::on(Op::TagList);
        let rule = train.registry.on_request(lists, move |request| {
            store.put_tag(REPOSITORY, &format!("x{:09}", request.id), &alive);
            std::future::ready(())
        });
        train.registry.clear();
        changes_nothing(&mut train, "endless").await;
        rule.lift();
        let (verdict, message) = train.condition(ConditionType::Ready);
        assert_eq!(verdict, "False LimitExceeded");
        assert!(message.contains("too many pages"), "{message}");
        assert!(train.registry.count(Op::TagList) <= 100);
        train.registry.quirks(|quirks| quirks.tags_per_page = None);
        changes_nothing(&mut train, "calm").await;
        assert_eq!(train.condition(ConditionType::Ready).0, "True Attached");
    }
}

#[tokio::test]
async fn t30_a_list_with_names_that_are_no_tags_is_refused_whole() {
    let mut train = marked(Quirks::default()).await;
    let names = [
        "",
        "..",
        "../../etc/passwd",
        "a/b",
        "v1.*",
        "?",
        "v1.0.0@sha256:abc",
        "sha256:abc",
        "-x",
        ".x",
        "v1 .0",
        "v1\u{0}",
        "v1\u{1b}[31m",
        "\u{202e}v1",
        "v1\nReady: True",
        "é",
    ];
    let long = "v".repeat(129);
    for name in names.into_iter().chain([&*long]) {
        let list = json!({"name": REPOSITORY, "tags": ["v1.0.0", name]});
        let rule = train.registry.fault(page(2), body(list.to_string()));
        changes_nothing(&mut train, name).await;
        rule.lift();
        let (verdict, message) = train.condition(ConditionType::Ready);
        assert_eq!(verdict, "False RegistryUnavailable", "{name:?}");
        let expected = if name.len() > 128 {
            "contains \"vvv"
        } else {
            "which is not a valid tag"
        };
        assert!(message.contains(expected), "{message}");
        let is_plain = |c: char| !c.is_control() && c != '\u{202e}';
        assert!(
            message.chars().all(is_plain) && message.len() < 1024,
            "{message:?}"
        );
    }
    changes_nothing(&mut train, "calm").await;
}

#[tokio::test]
async fn a_list_of_1200_tags_over_12_pages_decides_as_a_whole() {
    let quirks = Quirks {
        tags_per_page: Some(100),
        ..Quirks::default()
    };
    let mut train = Train::new(
        quirks,
        json!({
            "tags": {"semver": ">=1.0.0", "limit": 1200}, "immutable": true,
            "lifecycle": {"keep": {"minors": 58}, "gracePeriod": "720h"},
        }),
    )
    .await;
    let push = |train: &mut Train, minor: usize| {
        for patch in 0..20 {
            let tag = format!("v1.{minor}.{patch}");
            let image = train.registry.image(REPOSITORY, &tag).push_single();
            train.manifests.insert(tag, image.digest);
        }
    };
    for minor in 0..60 {
        push(&mut train, minor);
    }
    train.pass().await;
    assert_eq!(train.registry.count(Op::TagList), 12);
    train.later(24);
    train.pass().await;
    let dead = |minors: &[usize]| {
        let tags = minors
            .iter()
            .flat_map(|minor| (0..20).map(move |patch| format!("v1.{minor}.{patch}")));
        let mut tags: Vec<String> = tags.collect();
        tags.sort();
        tags
    };
    assert_eq!(train.marked(), dead(&[0, 1]));
    assert_eq!(
        (train.repository().tags, train.repository().selected),
        (Some(1200), Some(1200))
    );

    // At rest the list is the only request.
    train.registry.clear();
    train.pass().await;
    assert_eq!(
        (
            train.registry.count(Op::TagList),
            train.registry.requests().len()
        ),
        (12, 12)
    );

    // A new minor takes the place of an old one, so that the limit still holds, and each page fails once.
    for patch in 0..20 {
        train.untag(&format!("v1.0.{patch}"));
    }
    push(&mut train, 60);
    for nth in 1..=12 {
        let fault = [
            Fault::status(503),
            Fault::status(404),
            body("{"),
            Fault::status(403),
        ][nth % 4]
            .clone();
        let matcher = Matcher::on(Op::TagList).skip(nth as u64 - 1);
        let rule = train.registry.fault(matcher, fault);
        let before = train.writes();
        train.pass().await;
        rule.lift();
        assert_eq!(
            train.condition(ConditionType::Resolved).0.split(' ').next(),
            Some("False"),
            "page {nth}"
        );
        assert_eq!(
            (train.marked(), train.writes()),
            (dead(&[0, 1]).iter().map(String::as_str).collect(), before)
        );
    }
    train.pass().await;
    assert_eq!(train.marked(), dead(&[0, 1]));
    train.later(24);
    train.pass().await;
    assert_eq!(
        train.marked(),
        dead(&[0, 1, 2]),
        "{:#?}",
        train.status().conditions
    );
}
