//! The cost of a pass: its number of requests, and the length of its longest sequence of dependent requests.

use std::time::Duration;

use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op, Quirks, Request};
use serde_json::json;

use crate::resource::{Resource, TYPE, note};

/// The duration of every request, which separates dependent requests from concurrent ones.
const ROUND_TRIP: Duration = Duration::from_millis(500);

/// Returns the number of dependent requests: each starts at least one round trip after the one before.
pub(crate) fn chain(requests: &[Request], round_trip: Duration) -> usize {
    let mut at: Vec<Duration> = requests.iter().map(|request| request.at).collect();
    at.sort();
    let mut waves = 0;
    let mut free = Duration::ZERO;
    for at in at {
        if waves == 0 || at >= free {
            waves += 1;
            free = at + round_trip.mul_f64(0.9);
        }
    }
    waves
}

/// Compares the round trips of an attempt with a maximum. A stalled machine increases the count and never decreases it, so one attempt of
/// three is proof.
async fn takes_at_most(most: usize, mut attempt: impl AsyncFnMut() -> (usize, String)) {
    let mut told = Vec::new();
    for _ in 0..3 {
        let (trips, transcript) = attempt().await;
        if trips <= most {
            return;
        }
        told.push(format!(
            "{trips} round trips, more than {most}:\n{transcript}"
        ));
    }
    panic!("{}", told.join("\n"));
}

#[tokio::test]
async fn a_first_attach_takes_at_most_four_dependent_round_trips() {
    // One registry accepts a blob in one request. The other answers 202 and stores nothing.
    for ignores_monolithic_post in [false, true] {
        let quirks = || Quirks {
            ignores_monolithic_post,
            ..Quirks::default()
        };
        takes_at_most(if ignores_monolithic_post { 4 } else { 3 }, async || {
            let registry = HostileRegistry::builder()
                .quirks(quirks())
                .start()
                .await
                .unwrap();
            let image = registry
                .image("team/app", "v1")
                .platforms(["linux/amd64", "linux/arm64", "linux/arm/v7"])
                .push();
            registry.fault(Matcher::any(), Fault::Delay(ROUND_TRIP));
            let mut resource = Resource::new(note(&registry.reference(&image.name()), "hello"));
            let outcome = resource.ready().await;
            assert!(
                outcome.requests <= 2 * 4 + 4,
                "{} requests:\n{}",
                outcome.requests,
                registry.transcript()
            );
            (
                chain(&registry.requests(), ROUND_TRIP),
                registry.transcript(),
            )
        })
        .await;
    }
}

#[tokio::test]
async fn a_digest_of_two_platforms_is_one_target_and_its_fast_path_sends_no_request() {
    let registry = HostileRegistry::start().await.unwrap();
    let parts = registry
        .image("team/app", "parts")
        .platforms(["linux/arm/v6", "linux/amd64"])
        .push();
    let mut again = parts.children[0].entry.clone();
    again["platform"]["variant"] = json!("v7");
    let entries = [&parts.children[0].entry, &again, &parts.children[1].entry];
    let image = entries
        .into_iter()
        .fold(
            registry.image("team/app", "v1"),
            affix_testbed::hostile::ImageBuilder::entry,
        )
        .push();
    let file = |target: &str| json!({"name": "note", "target": target, "value": target});
    let spec = json!({
        "image": registry.reference(&image.pinned()), "targets": {"scope": "Platforms"},
        // Selects the platform that the index lists second for the digest.
        "artifact": {"artifactType": TYPE, "files": [file("linux/arm/v7"), file("linux/amd64")]},
    });
    let mut resource = Resource::new(spec);
    resource.ready().await;
    assert_eq!(
        resource.rows(),
        [
            "index Skipped IndexNotSelected",
            "linux/arm/v6 Attached -",
            "linux/amd64 Attached -"
        ]
    );
    assert_eq!(resource.status.targets[1].other_platforms, ["linux/arm/v7"]);
    registry.clear();
    assert_eq!(
        (
            resource.look().await.requests,
            registry.transcript().as_str()
        ),
        (0, "")
    );
}

/// Returns a Ready resource on `tag@digest` whose tag names another image. Each request of its passes takes `round_trip`.
async fn beside_a_moved_tag(round_trip: Duration) -> (HostileRegistry, Resource) {
    let registry = HostileRegistry::start().await.unwrap();
    let old = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64"])
        .push();
    let new = registry
        .image("team/app", "v1")
        .seed("rebuilt")
        .platform("linux/amd64")
        .push();
    let slow = registry.fault(Matcher::any(), Fault::Delay(round_trip));
    let mut spec = note(
        &registry.reference(&format!("team/app:v1@{}", old.digest)),
        "hello",
    );
    spec["timeout"] = json!("30s");
    let mut resource = Resource::new(spec);
    let outcome = resource.ready().await;
    assert!(
        outcome.requests <= 2 * 3 + 4,
        "{} requests:\n{}",
        outcome.requests,
        registry.transcript()
    );
    let said = format!(
        "the tag v1 names {} by now; the digest in image decides",
        new.digest
    );
    assert!(
        resource.resolved().contains(&said),
        "{}",
        resource.resolved()
    );
    slow.lift();
    (registry, resource)
}

#[tokio::test]
async fn the_tag_beside_a_digest_is_read_concurrently_and_delays_nothing() {
    takes_at_most(3, async || {
        let (registry, _) = beside_a_moved_tag(ROUND_TRIP).await;
        (
            chain(&registry.requests(), ROUND_TRIP),
            registry.transcript(),
        )
    })
    .await;
}

#[tokio::test]
async fn an_unreadable_tag_beside_a_digest_fails_nothing_and_its_remark_stays() {
    let (registry, mut resource) = beside_a_moved_tag(Duration::from_millis(20)).await;
    let before = resource.status.clone();
    for fault in [Fault::Hang, Fault::status(503), Fault::status(403)] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::ManifestHead)
                .or(Op::ManifestGet)
                .reference("v1"),
            fault.clone(),
        );
        let outcome = resource.ready().await;
        assert_eq!(
            (&resource.status, outcome.notes.len()),
            (&before, 0),
            "{fault:?}"
        );
    }
    let outcome = resource.look().await;
    assert_eq!(
        (&resource.status, outcome.requests, outcome.notes.len()),
        (&before, 1, 0)
    );
    registry.calm();
    registry.store().delete_tag("team/app", "v1");
    resource.look().await;
    assert!(
        !resource.resolved().contains("the tag v1"),
        "{}",
        resource.resolved()
    );
}

#[tokio::test]
async fn the_referrers_api_is_probed_once_if_the_digest_is_given() {
    let registry = HostileRegistry::builder()
        .quirks(Quirks::distribution())
        .start()
        .await
        .unwrap();
    let image = registry
        .image("team/app", "v1")
        .platforms(["linux/amd64", "linux/arm64", "linux/arm/v7"])
        .push();
    // The same holds if that answer is the slowest.
    registry.fault(Matcher::on(Op::ReferrersList), Fault::Delay(ROUND_TRIP));
    let mut resource = Resource::new(note(&registry.reference(&image.pinned()), "hello"));
    resource.ready().await;
    assert_eq!(
        registry.count(Op::ReferrersList),
        1,
        "{}",
        registry.transcript()
    );
    // Each of the four targets: the listing, the manifest, and a read, a write and a second read of its fallback tag.
    let about_targets = registry
        .requests()
        .iter()
        .filter(|request| matches!(request.op, Op::ManifestGet | Op::ManifestPut))
        .count();
    assert_eq!(about_targets, 1 + 4 * 5, "{}", registry.transcript());
}
