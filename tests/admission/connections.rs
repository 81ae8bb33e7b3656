//! Many reviews on one connection, and many idle connections: neither blocks other clients.

use std::time::Duration;

use affix::admission::ServerLimits;
use bytes::Bytes;
use futures::future::{join_all, select_all};
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::direct::{Direct, lookups, review};
use crate::support::namespace::wait_for;

/// A time limit longer than any test, so slow clients are not disconnected.
fn slow_limits() -> ServerLimits {
    ServerLimits {
        patience: Duration::from_mins(10),
        ..ServerLimits::default()
    }
}

/// Returns a small review that is refused without I/O.
fn small() -> String {
    review(
        "ImageAttachment",
        &json!({
            "apiVersion": "affix.dev/v1alpha1", "kind": "ImageAttachment", "metadata": {"name": "a"},
            "spec": {"image": "registry.example.com/Team/app:v1", "artifact": {"artifactType": "application/vnd.demo", "annotations": {"a": "b"}}}
        }),
    )
}

/// Sends `sent` bytes of a body that declares `length` bytes.
async fn unfinished(
    client: &reqwest::Client,
    url: &str,
    length: usize,
    sent: usize,
) -> reqwest::Result<reqwest::Response> {
    let pieces = stream::iter(
        (0..sent.div_ceil(16 << 10))
            .map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 16 << 10]))),
    );
    let body = reqwest::Body::wrap_stream(pieces.chain(stream::pending()));
    client
        .post(url)
        .header("content-length", length)
        .body(body)
        .send()
        .await
}

async fn is_answered(client: &reqwest::Client, url: &str) {
    let answer = client.post(url).body(small()).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    let answer: Value = answer.json().await.unwrap();
    assert!(
        answer["response"]["status"]["message"]
            .as_str()
            .unwrap()
            .contains("is malformed"),
        "{answer}"
    );
}

#[tokio::test]
async fn waiting_large_bodies_do_not_block_small_reviews_on_the_same_connection() {
    let webhook = Direct::start(slow_limits(), lookups()).await;
    let (client, url) = (webhook.client(), webhook.url("validate-imageattachment"));
    // More than the webhook reads at once. Each body fills its window and never ends.
    let large = (0..40).map(|_| unfinished(&client, &url, 8 << 20, 4 << 20).boxed());
    let mut large = large.collect::<Vec<_>>();
    let served = async {
        for _ in 0..20 {
            join_all((0..10).map(|_| is_answered(&client, &url))).await;
        }
    };
    let mut served = std::pin::pin!(served);
    let mut turned_away = 0;
    loop {
        tokio::select! {
            () = &mut served => break,
            // Bodies beyond the waiting places are rejected immediately; the waiting ones stay open.
            (answer, _, rest) = select_all(large.drain(..)) => {
                assert_eq!(answer.unwrap().status(), 503);
                turned_away += 1;
                large = rest;
            }
        }
    }
    println!("{turned_away} of 40 were rejected");
    assert!(turned_away < 40, "all were rejected");
}

#[tokio::test]
async fn a_new_connection_gets_its_first_answer_during_shutdown() {
    let webhook = Direct::start(slow_limits(), lookups()).await;
    let mut stream = webhook.connect().await;
    webhook.stop();
    wait_for("the end of the listener", async || {
        tokio::net::TcpStream::connect(webhook.address)
            .await
            .is_err()
    })
    .await;
    let body = small();
    let request = format!(
        "POST /validate-imageattachment HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("is malformed"),
        "{answer}"
    );
}

#[tokio::test]
async fn idle_connections_are_evicted_for_new_ones() {
    let webhook = Direct::start(
        ServerLimits {
            connections: 20,
            ..slow_limits()
        },
        lookups(),
    )
    .await;
    let url = webhook.url("validate-imageattachment");
    // Silent connections, followed by connections with one review each. All stay open.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(
            tokio::net::TcpStream::connect(webhook.address)
                .await
                .unwrap(),
        );
    }
    let mut kept = Vec::new();
    for _ in 0..60 {
        let client = webhook.client();
        is_answered(&client, &url).await;
        kept.push(client);
    }
    // A connection with a review in flight is not idle.
    let busy = webhook.client();
    is_answered(&busy, &url).await;
    let mut held = unfinished(&busy, &url, 1 << 20, 16 << 10).boxed();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut held)
            .await
            .is_err()
    );
    // A second answer on the connection proves that the first request has arrived.
    is_answered(&busy, &url).await;
    for _ in 0..40 {
        let client = webhook.client();
        is_answered(&client, &url).await;
        kept.push(client);
    }
    assert!(
        held.now_or_never().is_none(),
        "the review in flight was aborted"
    );
    // Clients reconnect after an eviction.
    for client in &kept {
        wait_for("an answer", async || {
            client
                .post(&url)
                .body(small())
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
    drop(silent);
}
