//! T4, T13 on the whole operator: what hostile answers cost in memory, told by the kernel, and that each ends in a reason.

use std::time::Duration;

use affix::api::ImageAttachment;
use affix_testbed::hostile::{Fault, HostileRegistry, Matcher, Op, Reply};
use bytes::Bytes;
use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::controller::Controller;
use crate::support::images::{note, with};
use crate::support::namespace::{Namespace, REQUESTED_AT, is_ready, message, ready};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The bound on what hostile answers may cost over the resting memory, in KiB.
const MOST: u64 = 32 << 10;
const LONG: Duration = Duration::from_mins(5);

/// A document that is wrong, or right and a burden, in one of many ways, made from a number.
fn hostile(seed: usize) -> Bytes {
    let valid = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "a".repeat(64)), "size": 5,
         "annotations": {"a": "b"}, "platform": {"os": "linux", "architecture": "amd64"}}]});
    let text = valid.to_string();
    let entry = valid["manifests"][0].to_string();
    let wrong = |name: &str, value: &str| {
        Bytes::from(text.replacen(
            &format!("\"{name}\":"),
            &format!("\"{name}\":{value},\"x\":"),
            1,
        ))
    };
    let listing = |entries: &str| {
        Bytes::from(format!(
            "{{\"mediaType\":\"{INDEX}\",\"manifests\":[{entries}]}}"
        ))
    };
    let (way, variant) = (seed % 20, seed / 20);
    match way {
        0 => Bytes::from(text).slice(0..seed + 1),
        1 => Bytes::from(format!(
            "{}{}",
            "{\"a\":".repeat(seed * 500),
            "}".repeat(seed * 500)
        )),
        2 => Bytes::from("[".repeat((seed + 1) * 10_000)),
        3 => wrong(
            "manifests",
            ["7", "\"x\"", "{}", "[7]", "[null]", "[[]]"][variant % 6],
        ),
        4 => wrong(
            "size",
            [
                "-1",
                "1e400",
                "99999999999999999999999999",
                "\"5\"",
                "null",
                "1.5",
            ][variant % 6],
        ),
        5 => wrong(
            "digest",
            ["7", "null", "\"\"", "\"sha256:\"", "\"sha1:aa\"", "[]"][variant % 6],
        ),
        6 => {
            Bytes::from(text.replacen("\"schemaVersion\"", "\"manifests\":[],\"schemaVersion\"", 1))
        }
        7 => Bytes::from([text.as_bytes(), &[0xff, 0xfe, 0x00][..]].concat()),
        8 => Bytes::from(vec![u8::try_from(seed % 251).unwrap(); seed * 10_000 + 1]),
        9 => wrong(
            "mediaType",
            [
                "7",
                "[]",
                "{}",
                "\"text/html\"",
                "\"\\u0000\"",
                "\"\\ud800\"",
            ][variant % 6],
        ),
        10 => listing(&format!(
            "{}{entry}",
            format!("{entry},").repeat(1001 + variant * 1500)
        )),
        11 => listing(&format!("{}0", "0,".repeat(2_000_000))),
        12 => listing(&format!("{}{{}}", "{},".repeat(40_000))),
        13 => Bytes::from(format!(
            "{{\"mediaType\":\"{INDEX}\",\"manifests\":[],\"annotations\":{{{}\"z\":\"\"}}}}",
            many_keys(19_000 * (variant % 2 + 1))
        )),
        14 => {
            let (name, text) = [("a", "x"), ("manifests", "\u{7f}")][variant % 2];
            Bytes::from(format!(
                "{{\"mediaType\":\"{INDEX}\",\"{name}\":\"{}\",\"b\":7}}",
                text.repeat((4 << 20) - 100)
            ))
        }
        15 => Bytes::from(format!(
            "{{\"mediaType\":\"{INDEX}\",\"manifests\":[],\"a\":{}}}",
            "9".repeat((4 << 20) - 100)
        )),
        16 => Bytes::from(format!(
            "{{\"mediaType\":\"{INDEX}\",\"manifests\":[{}{entry}]}}",
            " ".repeat((4 << 20) - 1000)
        )),
        17 => Bytes::from("\u{fffd}".repeat(1_000_000)),
        18 => Bytes::from(format!("{{\"{}", "\\u0041".repeat(500_000))),
        _ => Bytes::from(vec![b'x'; (4 << 20) + variant]),
    }
}

/// The ways of [`hostile`] in which some are proper indexes, if odd or large ones.
const PROPER: [usize; 4] = [9, 13, 15, 16];

fn many_keys(count: usize) -> String {
    (0..count).map(|nth| format!("\"{nth}\":\"\",")).collect()
}

/// Asks every resource of this prefix for a pass; answers with name, reason and message once each has made it.
async fn asked(namespace: &Namespace, prefix: &str, count: usize) -> Vec<(String, String, String)> {
    let patch = json!({"metadata": {"annotations": {REQUESTED_AT: prefix}}});
    let asked = futures::stream::iter(0..count).map(|nth| {
        let (name, patch) = (format!("{prefix}{nth}"), Patch::Merge(&patch));
        async move {
            namespace
                .attachments()
                .patch(&name, &PatchParams::default(), &patch)
                .await
                .unwrap()
        }
    });
    asked.buffer_unordered(8).collect::<Vec<_>>().await;
    until(namespace, count, |object| {
        let handled = object.status.as_ref()?.last_handled_reconcile_at.as_deref() == Some(prefix);
        let (_, reason) =
            ready(object).filter(|(_, reason)| handled && *reason != "Progressing")?;
        Some((object.name_any(), reason.to_owned(), message(object)))
    })
    .await
}

/// Waits until `count` resources say what is looked for.
async fn until<T>(
    namespace: &Namespace,
    count: usize,
    find: impl Fn(&ImageAttachment) -> Option<T>,
) -> Vec<T> {
    let deadline = Instant::now() + LONG;
    loop {
        let objects = namespace
            .attachments()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        let found: Vec<T> = objects.iter().filter_map(&find).collect();
        if found.len() == count {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {count} have said something",
            found.len()
        );
        sleep(Duration::from_millis(200)).await;
    }
}

async fn apply(namespace: &Namespace, resources: Vec<(String, Value)>) {
    let applied = futures::stream::iter(resources)
        .map(|(name, spec)| async move { namespace.apply(&name, spec).await });
    applied.buffer_unordered(8).collect::<Vec<()>>().await;
}

/// Checks the peak since the last `forget` against the memory at rest.
fn check(controller: &Controller, rest: u64, what: &str) {
    let peak = controller.memory().peak();
    println!(
        "{what}: {} KiB over {rest} KiB at rest",
        peak.saturating_sub(rest)
    );
    assert!(
        peak <= rest + MOST,
        "{what}: {} KiB over the {rest} KiB at rest",
        peak - rest
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t4_t13_hostile_documents_and_endless_answers_stay_within_32_mib() {
    const DOCUMENTS: usize = 200;
    const STREAMS: usize = 32;
    let namespace = Namespace::new("memory").await;
    let (registry, listings, streams) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    let controller = Controller::start(&namespace).await;
    let mut resources = Vec::new();
    let mut resource = |name: String, registry: &HostileRegistry, repository: &str, tag: &str| {
        let image = registry
            .image(repository, tag)
            .platform("linux/amd64")
            .push();
        resources.push((
            name,
            with(
                note(&registry.reference(&image.name())),
                json!({"interval": "1h", "timeout": "60s"}),
            ),
        ));
    };
    for seed in 0..DOCUMENTS {
        resource(
            format!("document-{seed}"),
            &registry,
            "team/app",
            &format!("seed-{seed}"),
        );
        // Each its own repository, so that a listing can be told by its path.
        resource(
            format!("listing-{seed}"),
            &listings,
            &format!("team/app{seed}"),
            "v1",
        );
    }
    for nth in 0..STREAMS {
        resource(
            format!("stream-{nth}"),
            &streams,
            &format!("team/app{nth}"),
            "v1",
        );
    }
    // At rest is after honest work: what belongs to so many resources is not the hostile answers' doing.
    let all = resources.len();
    apply(&namespace, resources).await;
    until(&namespace, all, |object| is_ready(object).then_some(())).await;
    let rest = controller.memory().resident();

    let faults = [
        Fault::Endless(2 << 30),
        Fault::GzipBomb(2 << 30),
        Fault::Slow(1, Duration::from_secs(1)),
        Fault::ContentLength(2 << 30),
    ];
    for nth in 0..STREAMS {
        streams.fault(
            Matcher::on(Op::ManifestGet).repository(format!("team/app{nth}")),
            faults[nth % faults.len()].clone(),
        );
    }
    controller.memory().forget();
    let told = asked(&namespace, "stream-", STREAMS).await;
    let reasons = |told: &[(String, String, String)], reason: &str| {
        told.iter().filter(|(_, found, _)| found == reason).count()
    };
    assert_eq!(
        (
            reasons(&told, "LimitExceeded"),
            reasons(&told, "RegistryUnavailable")
        ),
        (16, 16),
        "{told:#?}"
    );
    check(
        &controller,
        rest,
        "32 endless, packed and slow answers at once",
    );

    for seed in 0..DOCUMENTS {
        registry.fault(
            Matcher::on(Op::ManifestGet).reference(format!("seed-{seed}")),
            Reply::body(200, INDEX, hostile(seed)),
        );
        listings.fault(
            Matcher::on(Op::ReferrersList).repository(format!("team/app{seed}")),
            Reply::body(200, INDEX, hostile(seed)),
        );
    }
    for (prefix, what) in [
        ("document-", "200 hostile manifests"),
        ("listing-", "200 hostile listings"),
    ] {
        controller.memory().forget();
        let told = asked(&namespace, prefix, DOCUMENTS).await;
        for (name, reason, message) in &told {
            assert!(
                !message.is_empty()
                    && message.chars().count() <= 1024
                    && !message.contains(char::is_control),
                "{name}: {reason}: {message}"
            );
            // What is right and only odd or large may well be attached to; what is no document never is.
            let seed: usize = name.rsplit('-').next().unwrap().parse().unwrap();
            assert!(
                prefix != "document-" || reason != "Attached" || PROPER.contains(&(seed % 20)),
                "{name}: {reason}: {message}"
            );
        }
        assert!(reasons(&told, "LimitExceeded") >= 20, "{told:#?}");
        check(&controller, rest, what);
    }
    let log = controller.log();
    assert!(!log.contains("panicked"), "{log}");
    // And it still works.
    for registry in [&registry, &listings, &streams] {
        registry.calm();
    }
    for name in ["document-0", "listing-1", "stream-0"] {
        namespace.request(name, "again").await;
        namespace.ready(name).await;
    }
    namespace.check_rules().await;
}
