//! Many resources at once: on one registry that asks for patience, beside one that is dead, and beside one that poisons its worker.

use std::time::Duration;

use affix_testbed::hostile::{Cut, Fault, HostileRegistry, Matcher, Op, Reply, RetryAfter};
use affix_testbed::registry::Registry;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{host, note, push, with};
use crate::support::namespace::{Namespace, is_ready, ready};

/// How long a crowd may take on a machine that has much else to do.
const LONG: Duration = Duration::from_mins(6);

/// A resource's own content, so that resources on one image do not share an attachment.
fn own(image: &str, nth: usize) -> serde_json::Value {
    let artifact = json!({"artifactType": "application/vnd.demo.crowd", "annotations": {"nth": nth.to_string()}});
    with(
        note(image),
        json!({"targets": {"scope": "Index"}, "artifact": artifact}),
    )
}

/// Applies resources, some at a time.
async fn apply(
    namespace: &Namespace,
    resources: impl IntoIterator<Item = (String, serde_json::Value)>,
) {
    let applied = futures::stream::iter(resources)
        .map(|(name, spec)| async move { namespace.apply(&name, spec).await });
    applied.buffer_unordered(8).collect::<Vec<()>>().await;
}

/// Waits until every resource of this prefix is Ready.
async fn all_ready(namespace: &Namespace, prefix: &str, count: usize) {
    let deadline = Instant::now() + LONG;
    loop {
        let objects = namespace
            .attachments()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let (done, waiting): (Vec<_>, Vec<_>) = objects
            .iter()
            .filter(|object| object.name_any().starts_with(prefix))
            .partition(|o| is_ready(o));
        if done.len() == count {
            return;
        }
        let states: Vec<_> = waiting
            .iter()
            .take(5)
            .map(|object| (object.name_any(), ready(object)))
            .collect();
        assert!(
            Instant::now() < deadline,
            "{} of {count} are Ready; others: {states:?}",
            done.len()
        );
        sleep(Duration::from_millis(300)).await;
    }
}

/// Each way in which an answer can be poison, one after the other for as long as anybody asks.
fn poison(registry: &HostileRegistry) -> usize {
    let index = "application/vnd.oci.image.index.v1+json";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let ways: Vec<Fault> = vec![
        Fault::Endless(2 << 30),
        Fault::GzipBomb(2 << 30),
        Fault::Slow(1, Duration::from_secs(1)),
        Fault::Hang,
        Fault::Reset,
        Fault::Close,
        Fault::truncated(10),
        Fault::CutAfter(10, Cut::Stall),
        Fault::Corrupt,
        Fault::RedirectLoop(307),
        Fault::RedirectTo(307, "http://169.254.169.254/latest/meta-data".to_owned()),
        Fault::ContentLength(u64::MAX),
        Fault::digest_header(Some("sha256:\u{7f}")),
        Fault::digest_header(Some(&format!("md5:{}", "0".repeat(32)))),
        Reply::body(200, index, deep).into(),
        Reply::body(
            200,
            index,
            "{\"manifests\":[{\"digest\":\"sha256:\\u0000\",\"size\":1e999}]}",
        )
        .into(),
        Reply::body(200, index, vec![0_u8; 1 << 16]).into(),
        Reply::body(200, index, "").into(),
        Reply::body(200, "\u{fc}", "{}").into(),
        Reply::huge(500, 8 << 20).into(),
        Reply::echo(403).into(),
        Reply::status(429)
            .retry_after(RetryAfter::Raw("99999999999999999999".to_owned()))
            .into(),
        Reply::status(503)
            .retry_after(RetryAfter::Raw("-1".to_owned()))
            .into(),
        Reply::error(401, "UNAUTHORIZED", "x")
            .header("www-authenticate", "Bearer realm=\"http://[::1\",=,\\")
            .into(),
    ];
    let count = ways.len();
    for (nth, fault) in ways.into_iter().enumerate() {
        let turn = u64::try_from(nth).unwrap();
        let all = u64::try_from(count).unwrap();
        registry.fault(
            Matcher::any().when(move |request| request.id % all == turn),
            fault,
        );
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t21_of_a_thousand_resources_one_is_poison_in_every_way_and_999_become_ready() {
    const GOOD: usize = 999;
    const IMAGES: usize = 50;
    let namespace = Namespace::new("thousand").await;
    let registry = Registry::ociregistry(&namespace.tools)
        .start()
        .await
        .unwrap();
    let mut images = Vec::new();
    for nth in 0..IMAGES {
        images.push(
            push(&registry, &format!("team/app{nth}"), "v1")
                .await
                .pinned(),
        );
    }
    let hostile = HostileRegistry::start().await.unwrap();
    let poisoned = hostile.reference(&host(&hostile, "v1").name());
    let ways = poison(&hostile);
    let controller = Controller::start(&namespace).await;
    namespace
        .apply(
            "poison",
            with(
                own(&poisoned, 0),
                json!({"interval": "1s", "timeout": "5s"}),
            ),
        )
        .await;
    apply(
        &namespace,
        (0..GOOD).map(|nth| (format!("good-{nth}"), own(&images[nth % IMAGES], nth))),
    )
    .await;
    all_ready(&namespace, "good-", GOOD).await;

    // The poison was taken: every way of it, again and again, and each time its worker went on.
    let deadline = Instant::now() + LONG;
    while hostile.requests().len() < ways {
        assert!(
            Instant::now() < deadline,
            "only {} requests met the poison\n{}",
            hostile.requests().len(),
            hostile.transcript()
        );
        // A pause of 15 minutes is among what the registry asks for; another spec is no way around it, another credential is.
        namespace
            .login(
                &format!("login-{}", hostile.requests().len()),
                &hostile.host(),
                &format!("u{}", hostile.requests().len()),
                "p",
            )
            .await;
        let secret = format!("login-{}", hostile.requests().len());
        namespace
            .login(&secret, &hostile.host(), &secret, "p")
            .await;
        namespace
            .apply(
                "poison",
                with(
                    own(&poisoned, 0),
                    json!({"interval": "1s", "timeout": "5s", "secretRef": {"name": secret}}),
                ),
            )
            .await;
        sleep(Duration::from_secs(1)).await;
    }
    let object = namespace.get("poison").await;
    assert!(!is_ready(&object), "{object:#?}");
    let log = controller.log();
    assert!(
        !log.contains("panicked"),
        "{}",
        log.lines()
            .filter(|line| line.contains("panicked"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert_eq!(controller.health("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_registry_holds_up_none_of_the_resources_on_others() {
    let namespace = Namespace::new("dead").await;
    let (dead, alive) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    dead.fault(Matcher::any(), Fault::Hang);
    let (gone, here) = (
        dead.reference(&host(&dead, "v1").name()),
        alive.reference(&host(&alive, "v1").name()),
    );
    let _controller = Controller::start_with(&namespace, &["--concurrent", "8"]).await;
    // Three times as many as the operator works on at once.
    apply(
        &namespace,
        (0..24).map(|nth| (format!("dead-{nth}"), own(&gone, nth))),
    )
    .await;
    dead.wait_for(&Matcher::any(), 2, LONG).await.unwrap();
    apply(
        &namespace,
        (0..10).map(|nth| (format!("alive-{nth}"), own(&here, nth))),
    )
    .await;
    all_ready(&namespace, "alive-", 10).await;
    let objects = namespace
        .attachments()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    assert!(
        objects
            .iter()
            .filter(|object| object.name_any().starts_with("dead-"))
            .all(|object| !is_ready(object))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_pauses_every_resource_on_the_registry_and_the_cap_holds_before_and_after() {
    const PAUSE: u64 = 8;
    const CAP: usize = 4;
    let namespace = Namespace::new("paused").await;
    let registry = HostileRegistry::start().await.unwrap();
    let image = registry.reference(&host(&registry, "v1").name());
    registry.fault(Matcher::any(), Fault::Delay(Duration::from_millis(5)));
    registry.fault(
        Matcher::any().nth(20),
        Reply::status(429).retry_after(RetryAfter::Seconds(PAUSE)),
    );
    let cap = CAP.to_string();
    let _controller =
        Controller::start_with(&namespace, &["--max-requests-per-registry", &cap]).await;
    apply(
        &namespace,
        (0..40).map(|nth| (format!("paused-{nth}"), own(&image, nth))),
    )
    .await;
    all_ready(&namespace, "paused-", 40).await;

    let requests = registry.requests();
    let refused = requests
        .iter()
        .find(|request| request.status() == Some(429))
        .unwrap()
        .at;
    let since = |request: &affix_testbed::hostile::Request| request.at.checked_sub(refused);
    // What was on its way already may still arrive; then there is silence until the pause is over.
    let within: Vec<_> = requests
        .iter()
        .filter_map(since)
        .filter(|at| (3..PAUSE).contains(&at.as_secs()))
        .collect();
    assert!(within.is_empty(), "{within:?}\n{}", registry.transcript());
    let after = requests
        .iter()
        .filter_map(since)
        .filter(|at| at.as_secs() >= PAUSE)
        .count();
    assert!(after >= 40, "{after}\n{}", registry.transcript());
    assert!(
        registry.most_at_once() <= CAP,
        "{} at once",
        registry.most_at_once()
    );
    assert!(registry.count(Op::ManifestPut) >= 40);
}
