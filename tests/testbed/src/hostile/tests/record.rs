//! The record of requests and its printed form.

use std::time::Duration;

use reqwest::Method;

use super::client::{Client, EMPTY, NAME, raw};
use crate::hostile::{HostileRegistry, Matcher, Op};

#[tokio::test]
async fn a_request_is_recorded_with_all_it_brought_and_got() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    let path = format!("/v2/{NAME}/blobs/uploads/?digest={EMPTY}");
    client
        .send(
            Method::POST,
            &path,
            &[("authorization", "Bearer canary"), ("x-more", "yes")],
            "{}",
        )
        .await;
    client.get("/v2/nobody/manifests/v1").await;
    let requests = registry.requests();
    let post = &requests[0];
    assert_eq!(
        (
            post.op,
            post.repository.as_deref(),
            post.reference.as_deref()
        ),
        (Op::UploadStart, Some(NAME), None)
    );
    assert_eq!(
        (post.header("authorization"), post.header("x-more")),
        (Some("Bearer canary"), Some("yes"))
    );
    assert_eq!(
        (
            post.parameter("digest").as_deref(),
            &post.body[..],
            post.status()
        ),
        (Some(EMPTY), &b"{}"[..], Some(201))
    );
    assert_eq!(post.header("host"), Some(&*registry.host()));
    assert!(post.has_credentials() && post.peer.ip().is_loopback());
    assert_eq!(requests[1].status(), Some(404));
    assert_eq!(
        registry
            .requests_that(&Matcher::any().reference(EMPTY))
            .len(),
        1
    );
    let transcript = registry.transcript();
    let lines: Vec<_> = transcript.lines().collect();
    assert_eq!(lines.len(), 2, "{transcript}");
    assert!(
        lines[0].contains(&format!(
            "201       POST {path}  authorization: Bearer canary"
        )),
        "{transcript}"
    );
    assert!(
        lines[0].ends_with("[2 bytes]")
            && lines[1].contains("404       GET /v2/nobody/manifests/v1"),
        "{transcript}"
    );
    registry.clear();
    assert_eq!((registry.requests().len(), registry.most_at_once()), (0, 0));
    client.get("/v2/").await;
    assert_eq!(registry.requests()[0].id, 2);
}

#[tokio::test]
async fn requests_of_one_connection_are_told_from_those_of_another() {
    let registry = HostileRegistry::start().await.unwrap();
    let ping = "GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    raw(&registry, &format!("{ping}{last}")).await.1.unwrap();
    raw(&registry, last).await.1.unwrap();
    let connections: Vec<_> = registry
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(
        (connections, registry.connections()),
        (vec![0, 0, 1], 2),
        "{}",
        registry.transcript()
    );
}

#[tokio::test]
async fn waiting_for_requests_that_do_not_come_ends_with_the_transcript() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    client.get("/v2/").await;
    assert_eq!(
        registry
            .wait_for(&Matcher::on(Op::Ping), 1, Duration::from_mins(1))
            .await
            .unwrap()
            .len(),
        1
    );
    let error = registry
        .wait_for(&Matcher::on(Op::Ping), 2, Duration::from_millis(50))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("fewer than 2") && error.contains("GET /v2/"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_is_dropped_is_gone() {
    let registry = HostileRegistry::start().await.unwrap();
    let client = Client::new(&registry);
    client.get("/v2/").await;
    drop(registry);
    let mut refused = client.try_get("/v2/").await;
    for _ in 0..1000 {
        if refused.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        refused = client.try_get("/v2/").await;
    }
    assert!(refused.is_err(), "{refused:?}");
}
