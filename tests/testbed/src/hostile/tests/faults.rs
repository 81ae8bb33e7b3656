//! Each fault, and the requests that it applies to.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::Method;

use super::client::{Client, INDEX, NAME, builder, raw, unanswered};
use crate::hostile::{
    Arrival, Cut, Fault, HostileRegistry, Matcher, Op, Outcome, Reply, RetryAfter, Stage, digest,
};

const GET_V1: &str =
    "GET /v2/team/app/manifests/v1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const V1: &str = "/v2/team/app/manifests/v1";

async fn with_image() -> (HostileRegistry, Client) {
    let registry = HostileRegistry::start().await.unwrap();
    registry.image(NAME, "v1").platform("linux/amd64").push();
    let client = Client::new(&registry);
    (registry, client)
}

fn gets() -> Matcher {
    Matcher::on(Op::ManifestGet)
}

#[tokio::test]
async fn a_fault_happens_as_often_as_it_is_told_and_then_no_more() {
    let (registry, client) = with_image().await;
    let outage = registry.fault(gets().times(2), Fault::status(503));
    let limit = registry.fault(
        gets().times(1),
        Reply::status(429).retry_after(RetryAfter::Seconds(3)),
    );
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(client.get(V1).await.status.as_u16());
    }
    assert_eq!(seen, [503, 503, 429, 200]);
    assert_eq!((outage.used(), limit.used()), (2, 1));
    registry.fault(gets().nth(2), Fault::status(500));
    let statuses = [
        client.get(V1).await.status,
        client.get(V1).await.status,
        client.get(V1).await.status,
    ];
    assert_eq!(statuses.map(|status| status.as_u16()), [200, 500, 200]);
    registry.fault(gets().within(Duration::from_secs(3)), Fault::status(502));
    assert_eq!(client.get(V1).await.status, 502);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(client.get(V1).await.status, 200);
    let rule = registry.fault(Matcher::any(), Fault::status(504));
    assert_eq!(client.get("/v2/").await.status, 504);
    rule.lift();
    assert_eq!(client.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_matcher_picks_by_what_a_request_is_about() {
    let (registry, client) = with_image().await;
    registry.image(NAME, "v2").platform("linux/amd64").push();
    registry.fault(
        gets().or(Op::ManifestHead).reference("v1"),
        Fault::status(500),
    );
    registry.fault(
        Matcher::any().path("/v2/*/tags/list").method(Method::GET),
        Fault::status(501),
    );
    registry.fault(Matcher::any().repository("team/other"), Fault::status(502));
    registry.fault(gets().authorized(true), Fault::status(503));
    assert_eq!(client.get(V1).await.status, 500);
    assert_eq!(client.get("/v2/team/app/manifests/v2").await.status, 200);
    assert_eq!(client.get("/v2/team/app/tags/list").await.status, 501);
    assert_eq!(client.get("/v2/team/other/manifests/v3").await.status, 502);
    let with = client
        .send(
            Method::GET,
            "/v2/team/app/manifests/v2",
            &[("authorization", "Basic eDp5")],
            "",
        )
        .await;
    assert_eq!(with.status, 503);
    registry.calm();
    assert_eq!(client.get(V1).await.status, 200);
}

#[tokio::test]
async fn retry_after_has_every_form() {
    let (registry, client) = with_image().await;
    let forms = [
        (RetryAfter::Seconds(7), "7"),
        (RetryAfter::Seconds(u64::MAX), "18446744073709551615"),
        (RetryAfter::DatePast, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (RetryAfter::Raw("soon".to_owned()), "soon"),
    ];
    for (form, text) in forms {
        registry.fault(gets().times(1), Reply::status(429).retry_after(form));
        let seen = client.get(V1).await;
        assert_eq!(
            (seen.status.as_u16(), seen.header("retry-after")),
            (429, Some(text))
        );
    }
    registry.fault(gets().times(1), Reply::status(429));
    assert_eq!(client.get(V1).await.header("retry-after"), None);
    registry.fault(
        gets().times(1),
        Reply::status(503).retry_after(RetryAfter::DateIn(Duration::from_mins(2))),
    );
    let date =
        httpdate::parse_http_date(client.get(V1).await.header("retry-after").unwrap()).unwrap();
    let wait = date.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(
        wait > Duration::from_mins(1) && wait < Duration::from_secs(122),
        "{wait:?}"
    );
}

#[tokio::test]
async fn a_connection_is_reset_before_or_after_the_effect() {
    let (registry, client) = with_image().await;
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let put = format!(
        "PUT /v2/team/app/manifests/new HTTP/1.1\r\nhost: x\r\ncontent-type: {INDEX}\r\ncontent-length: {}\r\n\r\n{index}",
        index.len()
    );
    for (stage, kept) in [
        (Stage::Early, false),
        (Stage::Before, false),
        (Stage::After, true),
    ] {
        registry.fault_at(stage, Matcher::on(Op::ManifestPut).times(1), Fault::Reset);
        let (seen, end) = raw(&registry, &put).await;
        assert_eq!(
            (seen.as_str(), end.unwrap_err().kind()),
            ("", ErrorKind::ConnectionReset),
            "{stage:?}"
        );
        assert_eq!(
            registry.store().tag(NAME, "new").is_some(),
            kept,
            "{stage:?}"
        );
    }
    registry.fault(gets().times(1), Fault::Close);
    let (seen, end) = raw(&registry, GET_V1).await;
    assert_eq!((seen.as_str(), end.is_ok()), ("", true));
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.outcome == Outcome::Cut),
        "{}",
        registry.transcript()
    );
    assert_eq!(client.get(V1).await.status, 200);
}

#[tokio::test]
async fn a_request_is_never_answered() {
    let (registry, client) = with_image().await;
    registry.fault(gets().times(1), Fault::Hang);
    unanswered(&registry, client.get(V1)).await;
    assert_eq!(client.get(V1).await.status, 200);
    let first = registry
        .wait_for(&gets(), 2, Duration::from_mins(1))
        .await
        .unwrap()
        .remove(0);
    assert!(
        matches!(first.outcome, Outcome::Open | Outcome::Abandoned),
        "{first:?}"
    );
}

#[tokio::test]
async fn a_connection_is_spoilt_as_it_arrives() {
    let (registry, _) = with_image().await;
    registry.next_connections(1, Arrival::Reset);
    registry.next_connections(1, Arrival::Close);
    registry.next_connections(1, Arrival::Garbage(Bytes::from_static(b"SSH-2.0-nope\r\n")));
    let (seen, end) = raw(&registry, "").await;
    assert_eq!(
        (seen.as_str(), end.unwrap_err().kind()),
        ("", ErrorKind::ConnectionReset)
    );
    let (seen, end) = raw(&registry, "").await;
    assert_eq!((seen.as_str(), end.is_ok()), ("", true));
    assert_eq!(raw(&registry, "").await.0, "SSH-2.0-nope\r\n");
    registry.next_connections(1, Arrival::Hang);
    let silent = tokio::time::timeout(Duration::from_millis(200), raw(&registry, GET_V1)).await;
    assert!(silent.is_err());
    assert!(
        raw(&registry, GET_V1)
            .await
            .0
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    assert_eq!((registry.connections(), registry.requests().len()), (5, 1));
}

#[tokio::test]
async fn a_body_is_slow_short_stalled_or_reset() {
    let (registry, client) = with_image().await;
    let whole = registry.store().raw_tag(NAME, "v1").unwrap();
    registry.fault(
        gets().times(1),
        Fault::Slow(whole.len() / 4 + 1, Duration::from_millis(50)),
    );
    let start = Instant::now();
    assert_eq!(client.get(V1).await.body, whole);
    assert!(
        start.elapsed() >= Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
    for cut in [Cut::Close, Cut::Reset] {
        registry.fault(gets().times(1), Fault::CutAfter(10, cut));
        let (seen, end) = raw(&registry, GET_V1).await;
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", whole.len())),
            "{head}"
        );
        assert_eq!((body.len(), end.is_ok()), (10, cut == Cut::Close));
    }
    registry.fault(gets().times(1), Fault::CutAfter(10, Cut::Stall));
    unanswered(&registry, client.get(V1)).await;
    registry.fault(
        gets().times(1),
        Fault::ContentLength(whole.len() as u64 + 5),
    );
    let error = client.try_get(V1).await.unwrap_err();
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    registry.fault(gets().times(1), Fault::ContentLength(5));
    assert_eq!(client.get(V1).await.body, whole.slice(..5));
    registry.fault(gets().times(1), Fault::Chunked);
    let chunked = client.get(V1).await;
    assert_eq!(
        (chunked.header("content-length"), &chunked.body),
        (None, &whole)
    );
}

#[tokio::test]
async fn a_body_does_not_match_its_digest() {
    let (registry, client) = with_image().await;
    let whole = registry.store().raw_tag(NAME, "v1").unwrap();
    let bad = [
        Fault::Corrupt,
        Fault::Append(Bytes::from_static(b" ")),
        Fault::Body(Bytes::from_static(b"{\"a\":")),
    ];
    for fault in bad {
        registry.fault(gets().times(1), fault);
        let seen = client.get(V1).await;
        assert_eq!(seen.status, 200);
        assert_eq!(seen.header("docker-content-digest"), Some(&*digest(&whole)));
        assert_ne!(digest(&seen.body), digest(&whole));
    }
    let lie = digest(b"lie");
    registry.fault(
        gets().or(Op::ManifestHead).times(2),
        Fault::digest_header(Some(&lie)),
    );
    assert_eq!(
        client.get(V1).await.header("docker-content-digest"),
        Some(&*lie)
    );
    assert_eq!(
        client
            .send(Method::HEAD, V1, &[], "")
            .await
            .header("docker-content-digest"),
        Some(&*lie)
    );
    registry.fault(gets().times(1), Fault::digest_header(None));
    assert_eq!(client.get(V1).await.header("docker-content-digest"), None);
    let wrong = digest(b"promised");
    registry.store().put_manifest_as(NAME, &wrong, INDEX, "{}");
    let seen = client.get(&format!("/v2/{NAME}/manifests/{wrong}")).await;
    assert_eq!(
        (seen.header("docker-content-digest"), seen.text()),
        (Some(&*wrong), "{}".to_owned())
    );
}

#[tokio::test]
async fn a_put_answers_another_digest_and_status() {
    let (registry, client) = with_image().await;
    let lie = digest(b"lie");
    registry.fault(
        Matcher::on(Op::ManifestPut),
        Fault::digest_header(Some(&lie)),
    );
    registry.fault(Matcher::on(Op::ManifestPut), Fault::Status(200));
    registry.fault(
        Matcher::on(Op::ManifestPut),
        Fault::location(Some("http://169.254.169.254/latest/meta-data/")),
    );
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    let seen = client.put_manifest("new", INDEX, &index).await;
    assert_eq!(
        (seen.status.as_u16(), seen.header("docker-content-digest")),
        (200, Some(&*lie))
    );
    assert_eq!(
        seen.header("location"),
        Some("http://169.254.169.254/latest/meta-data/")
    );
    assert!(registry.store().tag(NAME, "new").is_some());
}

#[tokio::test]
async fn a_body_has_no_end_and_the_registry_does_not_keep_it() {
    let (registry, client) = with_image().await;
    registry.fault(gets().times(1), Fault::Endless(2 << 30));
    let response = builder()
        .build()
        .unwrap()
        .get(format!("{}{V1}", registry.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers().get("content-length"), None);
    let mut body = response.bytes_stream();
    let mut seen = 0;
    while seen < 8 << 20 {
        let chunk = body.next().await.unwrap().unwrap();
        assert!(seen > 0 || chunk.starts_with(b"{\"schemaVersion\":2,"));
        seen += chunk.len();
    }
    drop(body);
    registry.fault(gets().times(1), Fault::Endless(100_000));
    assert_eq!(client.get(V1).await.body.len(), 100_000);
}

#[tokio::test]
async fn a_gzip_bomb_unpacks_to_what_it_promises() {
    let (registry, client) = with_image().await;
    registry.fault(gets(), Fault::GzipBomb(10 << 20));
    let seen = client.get(V1).await;
    assert_eq!(seen.header("content-encoding"), Some("gzip"));
    assert!(seen.body.len() < 80_000, "{} bytes", seen.body.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bomb.gz");
    std::fs::write(&file, &seen.body).unwrap();
    // gzip is on every system that can build this; it checks the checksum and the size too.
    let output = tokio::process::Command::new("gzip")
        .arg("-dc")
        .arg(&file)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stdout.len() >= 10 << 20 && output.stdout.iter().all(|byte| *byte == b' '),
        "{} bytes",
        output.stdout.len()
    );
}

#[tokio::test]
async fn an_error_has_an_absurd_body() {
    let (registry, client) = with_image().await;
    registry.fault(gets().times(1), Reply::html(502));
    assert!(client.get(V1).await.text().starts_with("<!DOCTYPE html>"));
    registry.fault(gets().times(1), Reply::huge(500, 3 << 20));
    let huge = client.get(V1).await;
    assert!(huge.status == 500 && huge.body.len() > 3 << 20);
    registry.fault(gets().times(1), Reply::empty(500));
    assert_eq!(client.get(V1).await.body.len(), 0);
    registry.fault(
        gets().times(1),
        Reply::error(400, "TAG_INVALID", "no")
            .detail("why")
            .header("x-more", "yes"),
    );
    let error = client.get(V1).await;
    assert_eq!(
        (
            error.json()["errors"][0]["detail"].as_str(),
            error.header("x-more")
        ),
        (Some("why"), Some("yes"))
    );
    registry.fault(gets().times(1), Reply::echo(403));
    let echo = client
        .send(
            Method::GET,
            &format!("{V1}?token=canary"),
            &[("authorization", "Bearer canary-2")],
            "",
        )
        .await;
    let message = echo.json()["errors"][0]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "canary",
        "Bearer canary-2",
        "\u{1b}[31m",
        "\r\n",
        "\0",
        "\u{202e}",
    ] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

#[tokio::test]
async fn a_redirect_leads_elsewhere_and_what_arrives_there_is_seen() {
    let (registry, client) = with_image().await;
    let elsewhere = HostileRegistry::start().await.unwrap();
    registry.fault(gets().times(1), Fault::RedirectToHost(307, elsewhere.url()));
    let seen = client.get(&format!("{V1}?a=b")).await;
    assert_eq!(
        (seen.status.as_u16(), seen.header("location")),
        (307, Some(&*format!("{}{V1}?a=b", elsewhere.url())))
    );
    let secret = [("authorization", "Basic eDp5")];
    client
        .send(Method::GET, seen.header("location").unwrap(), &secret, "")
        .await;
    client.get(seen.header("location").unwrap()).await;
    assert_eq!(
        (
            elsewhere.requests().len(),
            elsewhere.with_credentials().len()
        ),
        (2, 1)
    );
    registry.fault(
        gets().times(1),
        Fault::RedirectTo(302, "http://[::ffff:169.254.169.254]/".to_owned()),
    );
    assert_eq!(
        client.get(V1).await.header("location"),
        Some("http://[::ffff:169.254.169.254]/")
    );
    registry.fault(gets(), Fault::RedirectLoop(308));
    let mut path = V1.to_owned();
    for _ in 0..3 {
        let seen = client.get(&path).await;
        assert_eq!(seen.status, 308);
        let next = seen.header("location").unwrap().to_owned();
        assert!(
            next.starts_with(&format!("{V1}?turn=")) && next != path,
            "{next}"
        );
        path = next;
    }
}

#[tokio::test]
async fn faults_are_combined() {
    let (registry, client) = with_image().await;
    registry.fault(gets(), Fault::Delay(Duration::from_millis(50)));
    registry.fault(gets(), Reply::status(503));
    registry.fault(gets(), Fault::Slow(1000, Duration::from_millis(50)));
    registry.fault(
        gets(),
        Fault::link(Some("<http://elsewhere.example/>; rel=\"next\"")),
    );
    let start = Instant::now();
    let seen = client.get(V1).await;
    assert_eq!(
        (seen.status.as_u16(), seen.header("link")),
        (503, Some("<http://elsewhere.example/>; rel=\"next\""))
    );
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
}
