//! Tags that vanish, come back, move, name one image twice or have unusual names, and a repository that vanishes.

use affix::api::{ConditionType, CycleState};
use affix_testbed::hostile::{Fault, Matcher, Op, Quirks};
use serde_json::json;

use super::{REPOSITORY, Train, both};

/// Four minors, the first of which is marked.
async fn marked(quirks: Quirks) -> Train {
    let mut train = Train::new(quirks, json!({})).await;
    train.release(&["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"]);
    train.pass().await;
    train.later(24);
    train.pass().await;
    assert_eq!(train.marked(), names("v1.0.0"));
    train
}

/// The names of all manifests of a release.
fn names(tag: &str) -> [String; 3] {
    ["", " linux/amd64", " linux/arm64"].map(|platform| format!("{tag}{platform}"))
}

/// Runs passes at these distances in hours, each of which must not write.
async fn quiet(train: &mut Train, hours: &[i64]) {
    for wait in hours {
        train.later(*wait);
        let (before, dates) = (train.writes(), train.dates());
        train.pass().await;
        assert_eq!(
            (train.writes(), train.dates()),
            (before, dates),
            "{:#?}",
            train.repository()
        );
    }
}

#[tokio::test]
async fn a_tag_that_vanishes_and_comes_back_leaves_no_trace() {
    for quirks in both() {
        let mut train = marked(quirks).await;
        for tag in ["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"] {
            let digest = train.manifests[tag].clone();
            train.untag(tag);
            quiet(&mut train, &[1, 22]).await;
            assert!(train.repository().vanished.contains_key(tag));
            train.registry.store().put_tag(REPOSITORY, tag, &digest);
            quiet(&mut train, &[0, 25]).await;
            assert!(train.repository().vanished.is_empty());
        }
        assert_eq!(train.marked(), names("v1.0.0"));
    }
}

#[tokio::test]
async fn a_tag_that_is_gone_is_not_out_of_life() {
    for quirks in both() {
        let mut train = marked(quirks).await;
        // An alive release is gone for good: its image gets no mark, and one minor less is a minor more that stays alive.
        train.untag("v1.2.0");
        quiet(&mut train, &[0, 23]).await;
        train.later(1);
        train.pass().await;
        assert_eq!(train.marked(), [""; 0]);
        assert_eq!(train.repository().seen.len(), 3);

        // A release out of life is gone: its marks stay, and its date returns with it.
        train.release(&["v1.4.0"]);
        train.later(1);
        train.pass().await;
        train.later(24);
        train.pass().await;
        let dates = train.dates();
        assert_eq!(train.marked(), names("v1.0.0"));
        let digest = train.manifests["v1.0.0"].clone();
        train.untag("v1.0.0");
        quiet(&mut train, &[0, 24, 240]).await;
        assert!(!train.repository().seen.contains_key("v1.0.0"));
        train
            .registry
            .store()
            .put_tag(REPOSITORY, "v1.0.0", &digest);
        quiet(&mut train, &[0, 24]).await;
        assert_eq!(train.dates(), dates);
        assert_eq!(train.marked(), names("v1.0.0"));
    }
}

#[tokio::test]
async fn a_newest_tag_that_comes_back_late_starts_the_settle_time_anew() {
    for quirks in both() {
        let mut train = marked(quirks).await;
        let digest = train.manifests["v1.3.0"].clone();
        train.untag("v1.3.0");
        quiet(&mut train, &[0]).await;
        train.later(24);
        train.pass().await;
        assert_eq!(
            train.marked(),
            [""; 0],
            "v1.0.0 is one of the newest three again"
        );
        train
            .registry
            .store()
            .put_tag(REPOSITORY, "v1.3.0", &digest);
        quiet(&mut train, &[0, 23]).await;
        train.later(1);
        let fell = train.now;
        train.pass().await;
        assert_eq!(train.marked(), names("v1.0.0"));
        let date = train.dates()["v1.0.0"].clone();
        // 720 hours after it fell out again, which was 24 hours before.
        let expected = fell.checked_add(k8s_openapi::jiff::SignedDuration::from_hours(720 - 24));
        assert_eq!(date, expected.unwrap().to_string());
    }
}

#[tokio::test]
async fn a_rebuilt_tag_ends_the_image_that_it_left_and_nothing_shared() {
    for quirks in both() {
        let mut train = Train::new(quirks, json!({})).await;
        let first = train.push("v1.0.0", "debian");
        train.pass().await;
        let second = train.push("v1.0.0", "debian");
        assert_eq!(
            first.digest, second.digest,
            "an equal build is no new image"
        );
        quiet(&mut train, &[24]).await;
        // Rebuilt with another base for one platform only.
        let second = train.push("rebuilt", "debian");
        train.untag("rebuilt");
        train.tag("v1.0.0", &second);
        quiet(&mut train, &[0, 23]).await;
        assert_eq!(train.repository().left.len(), 1);
        // Back again in time: the first image keeps no trace, and the tag has left the second.
        train.tag("v1.0.0", &first);
        quiet(&mut train, &[0, 23]).await;
        train.later(1);
        train.pass().await;
        assert_eq!(train.marked(), ["rebuilt", "rebuilt linux/amd64"]);
        train.tag("v1.0.0", &second);
        train.later(1);
        train.pass().await;
        assert_eq!(train.marked(), [""; 0]);
        train.later(24);
        train.pass().await;
        assert_eq!(
            train.marked(),
            ["v1.0.0", "v1.0.0 linux/amd64"],
            "linux/arm64 is in the new image"
        );
        // Back again too late: the marks go, and after the settle time the other image has them.
        train.tag("v1.0.0", &first);
        train.later(1);
        train.pass().await;
        assert_eq!(train.marked(), [""; 0]);
        quiet(&mut train, &[23]).await;
        train.later(1);
        train.pass().await;
        assert_eq!(train.marked(), ["rebuilt", "rebuilt linux/amd64"]);
        quiet(&mut train, &[0, 100]).await;
    }
}

#[tokio::test]
async fn the_most_alive_of_the_tags_of_an_image_decides() {
    for quirks in both() {
        let mut train = Train::new(quirks, json!({})).await;
        let old = train.push("v1.0.0", "debian");
        train.tag("v1.0.1", &old);
        train.tag("1.0.0", &old);
        train.release(&["v1.1.0", "v1.2.0"]);
        let newest = train.push("v1.3.0", "debian");
        train.tag("v1.0.2", &newest);
        train.pass().await;
        train.later(24);
        train.pass().await;
        assert_eq!(train.marked(), ["v1.0.0", "v1.0.0 linux/amd64"]);
        assert_eq!(train.children.len(), 1);
        assert_eq!(train.dates().keys().next().unwrap(), "1.0.0,v1.0.0,v1.0.1");
        let oldest = train.status().cycles.last().unwrap();
        assert_eq!(
            (&*oldest.cycle, oldest.state, oldest.tags),
            ("1.0", CycleState::Alive, 4)
        );
        // The last tag of the newest image that is alive goes, so that v1.0.2 alone decides.
        train.release(&["v1.4.0", "v1.5.0", "v1.6.0"]);
        train.pass().await;
        train.later(24);
        train.pass().await;
        let marked = train.marked();
        for tag in ["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"] {
            assert!(marked.contains(&tag), "{tag}: {marked:?}");
        }
        assert!(
            marked.contains(&"debian linux/arm64"),
            "nothing alive has it: {marked:?}"
        );
        assert!(!marked.contains(&"v1.4.0"), "{marked:?}");
        let oldest = train.status().cycles.last().unwrap();
        assert_eq!(
            (&*oldest.cycle, oldest.state),
            ("1.0", CycleState::EndOfLife)
        );
    }
}

#[tokio::test]
async fn latest_keeps_its_image_in_use_until_it_moves_on() {
    for quirks in both() {
        let mut train = Train::new(quirks, json!({})).await;
        let images = train.release(&["v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0"]);
        train.tag("latest", &images[0]);
        quiet(&mut train, &[0, 24, 24]).await;
        train.tag("latest", &images[3]);
        train.pass().await;
        // v1.0.0 fell out long ago, but latest has left it only now.
        let marked: Vec<String> = train.marked().into_iter().map(str::to_owned).collect();
        train.later(24);
        train.pass().await;
        assert_eq!(train.marked(), names("v1.0.0"), "before: {marked:?}");
        // Back, and it is alive at once.
        train.tag("latest", &images[0]);
        train.later(1);
        train.pass().await;
        assert_eq!(train.marked(), [""; 0]);
        // A page of the list without latest, and a HEAD that fails, do not end that.
        let rule = train.registry.fault(
            Matcher::on(Op::ManifestHead).reference("latest"),
            Fault::status(404),
        );
        quiet(&mut train, &[0, 23]).await;
        rule.lift();
        quiet(&mut train, &[0]).await;
        let rule = train.registry.fault(
            Matcher::on(Op::ManifestHead).reference("latest"),
            Fault::status(403),
        );
        quiet(&mut train, &[0, 24]).await;
        assert_eq!(
            train.condition(ConditionType::Ready).0,
            "False AccessDenied"
        );
        rule.lift();
        quiet(&mut train, &[0]).await;
        assert_eq!(train.condition(ConditionType::Ready).0, "True Watching");
    }
}

#[tokio::test]
async fn tags_with_unusual_names_are_neither_versions_nor_patterns() {
    for quirks in both() {
        let mut train = Train::new(
            quirks,
            json!({
                "tags": {"include": ["v*", "V*", "sha256*", "_*"], "exclude": ["v1.0.?"]},
                "lifecycle": {"keep": {"majors": 1}, "gracePeriod": "0s", "unlessTagged": []},
            }),
        )
        .await;
        let digest_tag = format!("sha256-{}", "b".repeat(64));
        let long = format!("v1.0.11-{}", "x".repeat(120));
        let odd = [
            "v1",
            "v1.0",
            "v1.0.0.0",
            "v01.0.0",
            "V1.0.11",
            "vv1.0.11",
            "v1.0.11_build",
            "v..",
            "v1..0",
            "_v1.0.11",
            "v-1.0.11",
            "v1.0.x",
            "v99999999999999999999.0.0",
            "sha256-short",
            &digest_tag,
            &format!("{digest_tag}.sig"),
        ];
        train.release(&odd);
        train.release(&["v1.0.9", "v1.0.10", &long, "v1.0.10-rc.1", "v2.0.0"]);
        train.pass().await;
        train.later(24);
        train.pass().await;
        // v1.0.9 is excluded, and no tag that is not selected counts.
        let expected: Vec<String> = ["v1.0.10", "v1.0.10-rc.1", &long]
            .into_iter()
            .flat_map(names)
            .collect();
        assert_eq!(train.marked(), expected);
        assert!(!train.repository().seen.contains_key(&digest_tag));
        let cycles: Vec<&str> = train
            .status()
            .cycles
            .iter()
            .map(|cycle| &*cycle.cycle)
            .collect();
        assert_eq!(cycles, ["2.0", "1.0"]);
    }
}

#[tokio::test]
async fn a_repository_that_vanishes_keeps_its_marks_and_dates() {
    for quirks in both() {
        let mut train = marked(quirks).await;
        let name = train.registry.reference(REPOSITORY);
        for (fault, text) in [
            (Fault::status(404), "as the test asked"),
            (
                Fault::Body("{\"tags\": []}".into()),
                "lists no tag, and 4 selected tags were there before",
            ),
            (
                Fault::Body("{\"tags\": null}".into()),
                "lists no tag, and 4 selected tags were there before",
            ),
        ] {
            let rule = train.registry.fault(Matcher::on(Op::TagList), fault);
            quiet(&mut train, &[0, 23, 1, 1000]).await;
            rule.lift();
            let (verdict, message) = train.condition(ConditionType::Ready);
            assert_eq!(verdict, "False NotFound");
            assert!(
                message.starts_with(&name) && message.contains(text),
                "{message}"
            );
            assert_eq!(train.marked(), names("v1.0.0"));
            quiet(&mut train, &[0]).await;
            assert_eq!(train.condition(ConditionType::Ready).0, "True Attached");
        }
        // Its images are gone, and its list is still there.
        let rule = train
            .registry
            .fault(Matcher::on(Op::ManifestHead), Fault::status(404));
        quiet(&mut train, &[0, 23]).await;
        rule.lift();
        quiet(&mut train, &[0, 24]).await;
    }
}
