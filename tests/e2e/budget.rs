//! What a pass costs.

use std::time::Duration;

use affix::api::Reason;
use affix_testbed::hostile::{Account, HostileRegistry, Matcher, Op, Request};
use affix_testbed::images::{Image, Index};
use affix_testbed::registry::Registry;
use serde_json::json;
use tokio::time::sleep;

use crate::support::controller::Controller;
use crate::support::images::{note, with};
use crate::support::namespace::{Namespace, PATIENCE};

const PLATFORMS: [&str; 8] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
];
/// Eight platforms and the index: 2S+4.
const BUDGET: usize = 2 * 9 + 4;

#[tokio::test]
async fn a_first_attach_to_eight_platforms_and_the_index_keeps_to_its_budget() {
    let namespace = Namespace::new("budget").await;
    let _controller = Controller::start(&namespace).await;

    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let index = PLATFORMS.iter().fold(Index::new(), |index, platform| {
        index.image(Image::new(platform, "seed"))
    });
    let image = index
        .push(&registry.raw().unwrap(), "team/app", "v1")
        .await
        .unwrap();
    let mark = registry.mark().unwrap();
    namespace.apply("real", note(&image.tagged())).await;
    assert_eq!(
        namespace.ready("real").await.attached.as_deref(),
        Some("9/9")
    );
    let requests = registry.requests_since(mark).unwrap();
    let lines: Vec<String> = requests.iter().map(ToString::to_string).collect();
    assert!(
        requests.len() <= BUDGET,
        "{} requests, more than {BUDGET}:\n{}",
        requests.len(),
        lines.join("\n")
    );

    let registry = HostileRegistry::builder()
        .tokens([Account::new("ci", "pass")])
        .start()
        .await
        .unwrap();
    let image = registry.image("team/app", "v1").platforms(PLATFORMS).push();
    namespace
        .login("login", &registry.host(), "ci", "pass")
        .await;
    namespace
        .apply(
            "tokens",
            with(
                note(&registry.reference(&image.name())),
                json!({"secretRef": {"name": "login"}}),
            ),
        )
        .await;
    assert_eq!(
        namespace.ready("tokens").await.attached.as_deref(),
        Some("9/9")
    );
    let authentication = |request: &Request| {
        matches!(request.op, Op::Token | Op::Ping) || request.status() == Some(401)
    };
    let counted = registry
        .requests()
        .iter()
        .filter(|request| !authentication(request))
        .count();
    assert!(
        counted <= BUDGET,
        "{counted} requests, more than {BUDGET}:\n{}",
        registry.transcript()
    );
    // A token for the reads, perhaps one for the writes: not one for each of the requests that go side by side.
    assert!(registry.count(Op::Token) <= 2, "{}", registry.transcript());
    namespace.check_rules().await;
}

#[tokio::test]
async fn an_idle_pass_is_one_head_for_a_tag_and_no_request_for_a_digest() {
    let namespace = Namespace::new("idle").await;
    let _controller = Controller::start(&namespace).await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.image("team/app", "v1").platforms(PLATFORMS).push();
    let reference = registry.reference(&image.name());
    namespace
        .apply("idle", with(note(&reference), json!({"interval": "1s"})))
        .await;
    namespace.ready("idle").await;
    // Every request below would be one too many if this one asked for anything.
    namespace
        .apply(
            "pinned",
            with(
                note(&registry.reference(&image.pinned())),
                json!({"interval": "1s"}),
            ),
        )
        .await;
    namespace.ready("pinned").await;
    // What is told of a pass comes a moment after its status.
    for name in ["idle", "pinned"] {
        namespace.event(name, Reason::Attached).await;
    }
    let version = namespace.get("idle").await.metadata.resource_version;
    let pinned = namespace.get("pinned").await.metadata.resource_version;
    let events = namespace.events("idle").await.len();
    registry.clear();

    let found = registry
        .wait_for(&Matcher::any(), 4, PATIENCE)
        .await
        .unwrap();
    let spans: Vec<_> = found
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect();
    assert!(
        spans.iter().all(|span| *span > Duration::from_millis(800)),
        "several requests in one pass: {spans:?}\n{}",
        registry.transcript()
    );
    for request in registry.requests() {
        assert_eq!(
            (request.op, request.reference.as_deref()),
            (Op::ManifestHead, Some("v1")),
            "{}",
            registry.transcript()
        );
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(
        namespace.get("idle").await.metadata.resource_version,
        version
    );
    assert_eq!(namespace.events("idle").await.len(), events);
    assert_eq!(
        namespace.get("pinned").await.metadata.resource_version,
        pinned
    );
    namespace.check_rules().await;
}
