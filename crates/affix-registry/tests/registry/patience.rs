//! Transient failures: retries, their duration, and pauses that sessions share.

use std::time::Duration;

use affix_registry::{ErrorKind, Options, Registries};
use affix_testbed::hostile::{
    Arrival, Cut, Fault, HostileRegistry, Matcher, Op, Reply, RetryAfter, Stage,
};
use tokio::time::Instant;

use crate::support::{
    access, image, impatient, login, open, open_in, open_with, options, refused, tag,
};

#[tokio::test]
async fn faults_that_pass_are_tried_at_least_four_times() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    for fault in [
        Fault::status(500),
        Fault::status(502),
        Fault::status(503),
        Fault::status(504),
        Fault::Reset,
        Fault::Close,
        Fault::truncated(5),
        Fault::CutAfter(5, Cut::Reset),
    ] {
        registry.calm();
        registry.clear();
        registry.fault(Matcher::on(Op::ManifestGet).times(3), fault.clone());
        assert!(
            open(&registry).manifest(&tag("v1")).await.is_ok(),
            "{fault:?}\n{}",
            registry.transcript()
        );
        assert_eq!(registry.count(Op::ManifestGet), 4, "{fault:?}");
    }
    registry.calm();
    registry.next_connections(3, Arrival::Reset);
    assert!(open(&registry).manifest(&tag("v1")).await.is_ok());
}

#[tokio::test]
async fn t12_a_fault_that_stays_is_named_in_the_same_words_each_time() {
    let registry = HostileRegistry::start().await.unwrap();
    for (fault, expected) in [
        (
            Fault::from(Reply::error(
                503,
                "UNAVAILABLE",
                "try later, request 6bf7a1b4-2d0c-4f3a-9a57-0e1c1f2a3b4c at 2026-11-23T17:33:35Z",
            )),
            "HTTP 503 UNAVAILABLE: try later, request … at …",
        ),
        (Fault::from(Reply::html(502)), "HTTP 502"),
        (Fault::Reset, "connection reset"),
        (Fault::Hang, "timed out while waiting for the answer"),
    ] {
        registry.calm();
        registry.fault(Matcher::any(), fault);
        let open = || open_with(&registry, impatient(), access(&registry));
        let first = refused(
            open().manifest(&tag("v1")).await,
            ErrorKind::RegistryUnavailable,
            &["GET manifest v1 at", expected],
        );
        assert!(
            first.is_transient() && !first.to_string().contains("nginx"),
            "{first}"
        );
        assert_eq!(first, open().manifest(&tag("v1")).await.unwrap_err());
    }
    let gone = registry.host();
    drop(registry);
    let session = Registries::new(options())
        .open(
            &gone.parse().unwrap(),
            &"a".parse().unwrap(),
            affix_registry::Access {
                insecure: true,
                ..Default::default()
            },
        )
        .unwrap();
    refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::RegistryUnavailable,
        &["connection refused"],
    );
}

#[tokio::test]
async fn retry_after_is_heeded_in_each_form_where_it_fits_the_deadline() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    for (status, after) in [
        (429, RetryAfter::Seconds(1)),
        (429, RetryAfter::DateIn(Duration::from_secs(1))),
        (503, RetryAfter::Seconds(1)),
    ] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::ManifestGet).times(1),
            Reply::status(status).retry_after(after.clone()),
        );
        let begun = Instant::now();
        open(&registry).manifest(&tag("v1")).await.unwrap();
        assert!(
            begun.elapsed() >= Duration::from_millis(900),
            "{status} {after:?}: {:?}",
            begun.elapsed()
        );
    }
    for after in [RetryAfter::DatePast, RetryAfter::Raw("soon".to_owned())] {
        registry.calm();
        registry.fault(
            Matcher::on(Op::ManifestGet).times(3),
            Reply::status(429).retry_after(after),
        );
        open(&registry).manifest(&tag("v1")).await.unwrap();
    }
}

#[tokio::test]
async fn a_wait_that_does_not_fit_the_deadline_is_an_error_with_the_time() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    registry.fault(
        Matcher::any(),
        Reply::status(429).retry_after(RetryAfter::Seconds(40)),
    );
    let registries = Registries::new(options());
    let session = open_in(&registries, &registry, access(&registry))
        .until(Instant::now() + Duration::from_secs(10));
    let error = refused(
        session.manifest(&tag("v1")).await,
        ErrorKind::RateLimited,
        &["GET manifest v1 at", "limits the request rate (HTTP 429)"],
    );
    assert!(error.is_transient());
    let wait = error.retry_after().unwrap();
    assert!(
        (Duration::from_secs(38)..=Duration::from_secs(40)).contains(&wait),
        "{wait:?}"
    );
    assert_eq!(registry.requests().len(), 1);
    // Sessions with the same credential wait without sending a request. Another credential does not
    // wait.
    let other = open_in(&registries, &registry, access(&registry))
        .until(Instant::now() + Duration::from_secs(10));
    refused(
        other.head(&tag("v1")).await,
        ErrorKind::RateLimited,
        &["HEAD manifest v1 at"],
    );
    assert_eq!(registry.requests().len(), 1);
    registry.calm();
    open_in(&registries, &registry, login(&registry, "user", "password"))
        .manifest(&tag("v1"))
        .await
        .unwrap();
}

#[tokio::test]
async fn t24_a_hostile_retry_after_ends_after_fifteen_minutes() {
    let registry = HostileRegistry::start().await.unwrap();
    for (status, raw) in [
        (429, "99999999999999999999"),
        (429, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (503, "86400"),
    ] {
        registry.calm();
        registry.fault(
            Matcher::any(),
            Reply::status(status).retry_after(RetryAfter::Raw(raw.to_owned())),
        );
        let error = open(&registry).manifest(&tag("v1")).await.unwrap_err();
        let wait = error.retry_after().unwrap();
        assert!(
            wait <= Duration::from_mins(15) && wait > Duration::from_mins(14),
            "{raw}: {wait:?}"
        );
    }
}

#[tokio::test]
async fn a_429_pauses_all_and_they_do_not_come_back_at_once() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    registry.fault(
        Matcher::on(Op::ManifestGet).times(1),
        Reply::status(429).retry_after(RetryAfter::Seconds(1)),
    );
    let session = open(&registry);
    refused(
        session
            .clone()
            .until(Instant::now())
            .manifest(&tag("v1"))
            .await,
        ErrorKind::RateLimited,
        &[],
    );
    let reads = (0..40).map(|_| {
        let session = session.clone();
        tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap().unwrap();
    }
    let at: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.at)
        .collect();
    let (first, after) = at.split_first().unwrap();
    assert!(
        after
            .iter()
            .all(|at| *at >= *first + Duration::from_millis(990)),
        "{}",
        registry.transcript()
    );
    let spread = *after.last().unwrap() - after[0];
    assert!(
        spread > Duration::from_millis(300),
        "the requests came back within {spread:?}"
    );
}

#[tokio::test]
async fn the_cap_on_parallel_requests_is_shared_by_all_sessions_on_a_registry() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    registry.fault(Matcher::any(), Fault::Delay(Duration::from_millis(20)));
    let registries = Registries::new(Options {
        max_requests_per_registry: 4,
        ..options()
    });
    let reads = (0..40).map(|n| {
        let access = if n % 2 == 0 {
            access(&registry)
        } else {
            login(&registry, "user", "password")
        };
        let session = open_in(&registries, &registry, access);
        tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap().unwrap();
    }
    assert!(registry.most_at_once() <= 4, "{}", registry.most_at_once());
    assert!(
        registry.connections() <= 8,
        "connections are kept: {}",
        registry.connections()
    );
}

#[tokio::test]
async fn a_dead_registry_does_not_hold_up_another() {
    let (dead, live) = (
        HostileRegistry::start().await.unwrap(),
        HostileRegistry::start().await.unwrap(),
    );
    image(&live);
    dead.fault(Matcher::any(), Fault::Hang);
    let mut options = Options {
        max_requests_per_registry: 2,
        ..options()
    };
    // The hanging answer outlasts the test.
    (options.timeouts.idle, options.timeouts.request) =
        (Duration::from_hours(1), Duration::from_hours(1));
    let registries = Registries::new(options);
    let stuck: Vec<_> = (0..20)
        .map(|_| {
            let session = open_in(&registries, &dead, access(&dead));
            tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
        })
        .collect();
    dead.wait_for(&Matcher::any(), 2, Duration::from_mins(1))
        .await
        .unwrap();
    open_in(&registries, &live, access(&live))
        .manifest(&tag("v1"))
        .await
        .unwrap();
    assert!(
        stuck.iter().all(|one| !one.is_finished()),
        "they still hold all that they may have"
    );
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_request_that_is_dropped_gives_its_place_back() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    let registries = Registries::new(Options {
        max_requests_per_registry: 1,
        ..options()
    });
    let session = open_in(&registries, &registry, access(&registry));
    let mut hold = registry.hold(Stage::Before, Matcher::on(Op::ManifestGet));
    let held = {
        let session = session.clone();
        tokio::spawn(async move { session.manifest(&tag("v1")).await.map(drop) })
    };
    hold.reached().await.unwrap();
    held.abort();
    hold.release();
    session.manifest(&tag("v1")).await.unwrap();
}

#[tokio::test]
async fn a_silently_dead_connection_costs_one_try_and_a_dead_registry_two() {
    for tls in [false, true] {
        let builder = HostileRegistry::builder();
        let registry = if tls { builder.tls() } else { builder }
            .start()
            .await
            .unwrap();
        image(&registry);
        let session = open_with(&registry, impatient(), access(&registry));
        session.manifest(&tag("v1")).await.unwrap();
        registry.fault(Matcher::any().times(1), Fault::Hang);
        session.manifest(&tag("v1")).await.unwrap();
        registry.clear();
        registry.fault(Matcher::any(), Fault::Hang);
        refused(
            session.manifest(&tag("v1")).await,
            ErrorKind::RegistryUnavailable,
            &["timed out while waiting for the answer"],
        );
        assert_eq!(registry.requests().len(), 2, "{}", registry.transcript());
    }
}

#[tokio::test]
async fn a_429_without_a_wait_is_no_leave_to_come_back_at_once() {
    let registry = HostileRegistry::start().await.unwrap();
    image(&registry);
    for after in [RetryAfter::Seconds(0), RetryAfter::DatePast] {
        registry.calm();
        registry.clear();
        registry.fault(
            Matcher::any().times(2),
            Reply::status(429).retry_after(after),
        );
        let mut options = options();
        options.retry.base = Duration::from_millis(150);
        open_with(&registry, options, access(&registry))
            .manifest(&tag("v1"))
            .await
            .unwrap();
        let times: Vec<_> = registry
            .requests()
            .iter()
            .map(|request| request.at)
            .collect();
        assert!(
            times.len() == 3
                && times
                    .windows(2)
                    .all(|pair| pair[1] - pair[0] >= Duration::from_millis(100)),
            "{times:?}"
        );
    }
}
