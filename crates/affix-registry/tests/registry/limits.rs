//! T3, T4, T13: endless, slow, deep and compressed answers end in an error.

use std::time::Duration;

use affix_registry::{ErrorKind, Limits, Options};
use affix_testbed::hostile::{Cut, Fault, HostileRegistry, LinkForm, Matcher, Op, Paging, Reply};
use bytes::Bytes;
use serde_json::json;

use crate::support::{
    INDEX, NAME, access, digest, image, impatient, open, open_with, options, refused, tag,
};

#[tokio::test]
async fn t4_an_endless_body_ends_at_the_cap_with_and_without_a_length() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let session = open(&registry);
    for length in [Fault::Chunked, Fault::ContentLength(2 << 30)] {
        registry.calm();
        registry.fault(Matcher::on(Op::ManifestGet), Fault::Endless(2 << 30));
        registry.fault(Matcher::on(Op::ManifestGet), length);
        refused(
            session.manifest(&tag("v1")).await,
            ErrorKind::LimitExceeded,
            &["the answer is too large, in bytes (the limit is 4194304)"],
        );
    }
}

#[tokio::test]
async fn t4_an_unrequested_compressed_body_is_refused() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    registry.fault(Matcher::any(), Fault::GzipBomb(1 << 30));
    let session = open(&registry);
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::RegistryUnavailable,
        &["has the encoding \"gzip\", which was not asked for"],
    );
    assert_eq!(
        registry.requests()[0].header("accept-encoding"),
        Some("identity")
    );
}

#[tokio::test]
async fn t4_a_slow_body_ends_at_the_idle_or_the_request_timeout() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let mut options = impatient();
    options.timeouts.request = Duration::from_millis(800);
    for fault in [
        Fault::Slow(1, Duration::from_millis(100)),
        Fault::CutAfter(3, Cut::Stall),
        Fault::Hang,
    ] {
        registry.calm();
        registry.fault(Matcher::any(), fault);
        let session = open_with(&registry, options.clone(), access(&registry));
        refused(
            session.manifest(&tag("v1")).await,
            ErrorKind::RegistryUnavailable,
            &["timed out while waiting for the answer"],
        );
    }
}

#[tokio::test]
async fn t4_of_an_error_only_the_beginning_is_read() {
    let registry = HostileRegistry::start().await.unwrap();
    registry.fault(Matcher::any(), Reply::huge(400, 4 << 20));
    // Reading more would exceed the limit of the session.
    let limits = Limits {
        session_bytes: 16 << 10,
        ..Limits::default()
    };
    let session = open_with(
        &registry,
        Options {
            limits,
            ..options()
        },
        access(&registry),
    );
    let error = refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::ManifestRejected,
        &["HTTP 400"],
    );
    assert!(error.to_string().len() < 400, "{error}");
}

#[tokio::test]
async fn t3_endless_pages_circles_and_referrers_end_at_their_caps() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    for (paging, expected) in [
        (Paging::EndlessEmpty, "too many pages (the limit is 50)"),
        (
            Paging::EndlessFull(100),
            "too many referrers (the limit is 1000)",
        ),
        (Paging::Circle(3), "its links form a circle"),
    ] {
        registry.quirks(|quirks| (quirks.paging, quirks.made_up_entries) = (paging, 5));
        let session = open(&registry);
        refused(
            session.referrers(&subject, None).await,
            ErrorKind::LimitExceeded,
            &["GET referrers of sha256:", expected],
        );
        assert!(session.requests() <= 51);
    }
    registry.quirks(|quirks| (quirks.paging, quirks.made_up_entries) = (Paging::None, 1001));
    refused(
        open(&registry).referrers(&subject, None).await,
        ErrorKind::LimitExceeded,
        &["too many referrers"],
    );
}

#[tokio::test]
async fn t3_a_link_to_its_own_page_is_a_circle() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    registry.quirks(|quirks| quirks.link = LinkForm::Relative);
    registry.fault(
        Matcher::on(Op::ReferrersList),
        Fault::link(Some(&format!(
            "</v2/{NAME}/referrers/{subject}>; rel=\"next\""
        ))),
    );
    let session = open(&registry);
    refused(
        session.referrers(&subject, None).await,
        ErrorKind::LimitExceeded,
        &["its links form a circle"],
    );
    assert_eq!(session.requests(), 1);
}

#[tokio::test]
async fn t3_too_many_entries_and_too_many_bytes_in_all_name_their_number() {
    let registry = HostileRegistry::start().await.unwrap();
    let entry =
        json!({"mediaType": INDEX, "digest": format!("sha256:{}", "1".repeat(64)), "size": 1});
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 11]}).to_string();
    registry
        .store()
        .put_manifest(NAME, Some("v1"), INDEX, index.clone());
    let limits = Limits {
        index_entries: 10,
        ..Limits::default()
    };
    let session = open_with(
        &registry,
        Options {
            limits,
            ..options()
        },
        access(&registry),
    );
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::LimitExceeded,
        &["the index has 11 entries (the limit is 10)"],
    );
    let limits = Limits {
        session_bytes: index.len() as u64 * 3,
        ..Limits::default()
    };
    let session = open_with(
        &registry,
        Options {
            limits,
            ..options()
        },
        access(&registry),
    );
    for _ in 0..3 {
        session.manifest(&tag("v1")).await.unwrap();
    }
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::LimitExceeded,
        &["all answers of this pass together are too large"],
    );
    // Concurrent answers are bounded, too, although none is counted when they are requested.
    let limits = Limits {
        session_bytes: index.len() as u64 * 3,
        ..Limits::default()
    };
    let session = open_with(
        &registry,
        Options {
            limits,
            ..options()
        },
        access(&registry),
    );
    let all =
        futures::future::join_all((0..10).map(|_| async { session.manifest(&tag("v1")).await }))
            .await;
    let taken = all.iter().filter(|one| one.is_ok()).count();
    assert!(taken <= 3, "{taken} of 10 were taken where 3 are allowed");
}

/// Returns a document with one of many defects, selected by `seed`.
fn spoiled(seed: usize) -> Bytes {
    let valid = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "a".repeat(64)), "size": 5,
         "annotations": {"a": "b"}, "platform": {"os": "linux", "architecture": "amd64"}}]});
    let text = valid.to_string();
    let wrong = |name: &str, value: &str| {
        Bytes::from(text.replacen(
            &format!("\"{name}\":"),
            &format!("\"{name}\":{value},\"x\":"),
            1,
        ))
    };
    match seed % 10 {
        0 => Bytes::from(text).slice(0..seed % 97 + 1),
        1 => Bytes::from(format!(
            "{}{}",
            "{\"a\":".repeat(seed * 50),
            "}".repeat(seed * 50)
        )),
        2 => Bytes::from("[".repeat(seed * 1000)),
        3 => wrong(
            "manifests",
            ["7", "\"x\"", "{}", "[7]", "[null]", "[[]]"][seed / 10 % 6],
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
            ][seed / 10 % 6],
        ),
        5 => wrong(
            "digest",
            ["7", "null", "\"\"", "\"sha256:\"", "\"sha1:aa\"", "[]"][seed / 10 % 6],
        ),
        6 => {
            Bytes::from(text.replacen("\"schemaVersion\"", "\"manifests\":[],\"schemaVersion\"", 1))
        }
        7 => Bytes::from([text.as_bytes(), &[0xff, 0xfe, 0x00][..]].concat()),
        8 => Bytes::from(vec![u8::try_from(seed % 251).unwrap(); seed * 10 + 1]),
        _ => wrong(
            "mediaType",
            ["7", "null", "[]", "{}", "\"text/html\"", "\"\\u0000\""][seed / 10 % 6],
        ),
    }
}

#[tokio::test]
async fn t13_two_hundred_hostile_documents_end_in_a_reason() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    let registries = affix_registry::Registries::new(options());
    for seed in 0..200 {
        registry.calm();
        registry.fault(
            Matcher::on(Op::ManifestGet).or(Op::ReferrersList),
            Reply::body(200, INDEX, spoiled(seed)),
        );
        let session = crate::support::open_in(&registries, &registry, access(&registry));
        let manifest = session.manifest(&tag("v1")).await;
        let listing = session.referrers(&subject, None).await;
        let fallback =
            crate::support::open_mode(&registry, affix_registry::ReferrersMode::TagSchema)
                .referrers(&subject, None)
                .await;
        // A listing keeps unreadable entries. Every error has a kind and a message.
        for error in [manifest.err(), listing.err(), fallback.err()]
            .into_iter()
            .flatten()
        {
            assert!(
                !error.to_string().chars().any(char::is_control) && error.to_string().len() < 700,
                "{seed}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn t3_all_pages_of_a_listing_together_have_a_cap() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    registry
        .quirks(|quirks| (quirks.paging, quirks.made_up_entries) = (Paging::EndlessFull(10), 5));
    let limits = Limits {
        listing_bytes: 8 << 10,
        ..Limits::default()
    };
    let session = open_with(
        &registry,
        Options {
            limits,
            ..options()
        },
        access(&registry),
    );
    refused(
        session.referrers(&subject, None).await,
        ErrorKind::LimitExceeded,
        &["all pages of the listing together are too large, in bytes (the limit is 8192)"],
    );
}

#[tokio::test]
async fn t13_a_document_of_very_many_values_is_refused_before_parsing() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    let many = ["{\"manifests\":[", &"0,".repeat(2_000_000), "0]}"].concat();
    registry.fault(
        Matcher::on(Op::ManifestGet).or(Op::ReferrersList),
        Reply::body(200, INDEX, many),
    );
    let session = open(&registry);
    let expected = ["the document has too many values (the limit is 20000)"];
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::LimitExceeded,
        &expected,
    );
    refused(
        session.referrers(&subject, None).await,
        ErrorKind::LimitExceeded,
        &expected,
    );
}

#[tokio::test]
async fn t13_a_document_with_a_very_long_text_is_refused_before_parsing() {
    let registry = HostileRegistry::start().await.unwrap();
    let subject = digest(&image(&registry).digest);
    let long = ["{\"manifests\":\"", &"\u{7f}".repeat(600 << 10), "\"}"].concat();
    registry.fault(
        Matcher::on(Op::ManifestGet).or(Op::ReferrersList),
        Reply::body(200, INDEX, long),
    );
    let session = open(&registry);
    let expected = ["a text in the document is too long, in bytes (the limit is 524288)"];
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::LimitExceeded,
        &expected,
    );
    refused(
        session.referrers(&subject, None).await,
        ErrorKind::LimitExceeded,
        &expected,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t4_large_answers_that_stall_leave_memory_for_those_of_other_registries() {
    let (slow, other) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    image(&slow);
    image(&other);
    let mut options = options();
    options.timeouts.idle = Duration::from_mins(10);
    options.timeouts.request = Duration::from_mins(10);
    slow.fault(Matcher::any(), Fault::Endless(4 << 20));
    slow.fault(Matcher::any(), Fault::CutAfter(1 << 20, Cut::Stall));
    let registries = affix_registry::Registries::new(options);
    let stalled: Vec<_> = (0..8)
        .map(|_| {
            let session = crate::support::open_in(&registries, &slow, access(&slow));
            tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
        })
        .collect();
    slow.wait_for(&Matcher::any(), 8, Duration::from_mins(1))
        .await
        .unwrap();
    other.fault(Matcher::any(), Fault::Endless(3 << 20));
    let session = crate::support::open_in(&registries, &other, access(&other));
    // The whole body is read and then refused.
    let answered = tokio::time::timeout(Duration::from_mins(2), session.manifest(&tag("v1"))).await;
    refused(
        answered.expect("it waits for nobody"),
        ErrorKind::LimitExceeded,
        &["a text in the document is too long"],
    );
    assert!(
        stalled.iter().all(|one| !one.is_finished()),
        "they still hold what they have"
    );
    stalled.iter().for_each(tokio::task::JoinHandle::abort);
}
